"""Turns with a real store and intake, and an engine that follows a script."""

import asyncio

from llavachat_server.chats.live import LiveTurn, Started, TurnEvent
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.question import ImageSource, NewChat, Place, Question
from llavachat_server.chats.record import Turn
from llavachat_server.chats.store import ChatStore
from llavachat_server.chats.turns import Turns
from llavachat_server.images.intake import ImageLimits, Intake
from llavachat_server.values import Delta, Sampling
from pictures import red_circle
from scripted_engine import Hold, ScriptedEngine

TENANT = "a tenant"


class Room:
    """Turns with all that they need, and short ways to ask."""

    def __init__(self, *script: str | Hold | Exception, context_tokens: int = 4096) -> None:
        self.engine = ScriptedEngine(*script, context_tokens=context_tokens)
        self.store = MemoryStore()
        self.turns = Turns(
            self.engine,
            self.store,
            Intake(ImageLimits()),
            defaults=Sampling(max_tokens=16),
            max_turn_seconds=30.0,
        )

    async def ask(self, question: Question, tenant: str = TENANT) -> list[TurnEvent]:
        """Ask, and follow to the end."""
        return [event async for event in self.turns.ask(tenant, question).follow()]

    async def start(self, prompt: str = "What is this?", **fields: object) -> str:
        """Open a chat about a red circle; its id."""
        sources = (ImageSource(data=red_circle()),)
        events = await self.ask(Question(NewChat(), prompt, sources, **fields))
        return begun(events).chat_id

    async def go_on(self, chat_id: str, prompt: str = "And?", **fields: object) -> list[TurnEvent]:
        """Ask the next question."""
        return await self.ask(Question(Place(chat_id), prompt, **fields))

    async def turns_of(self, chat_id: str) -> tuple[Turn, ...]:
        """The recorded turns."""
        return (await self.store.get_chat(TENANT, chat_id)).turns


def make_turns(engine: ScriptedEngine, store: ChatStore | None = None) -> Turns:
    """Turns whose readers may come back for a minute."""
    return Turns(
        engine,
        store or MemoryStore(),
        Intake(ImageLimits()),
        defaults=Sampling(max_tokens=16),
        max_turn_seconds=30.0,
        abandon_grace_seconds=60.0,
    )


def begun(events: list[TurnEvent]) -> Started:
    """The first event."""
    assert isinstance(events[0], Started)
    return events[0]


def text(events: list[TurnEvent]) -> str:
    """The answer."""
    return "".join(event.text for event in events if isinstance(event, Delta))


async def collect(live: LiveTurn, events: list[TurnEvent]) -> None:
    """Follow a turn that may fail; what came before is in `events`."""
    async for event in live.follow():
        events.append(event)


async def follow_in_background(live: LiveTurn) -> "asyncio.Task[list[TurnEvent]]":
    """Follow a turn in a task of its own, which has begun when this returns."""

    async def follow() -> list[TurnEvent]:
        return [event async for event in live.follow()]

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    return task
