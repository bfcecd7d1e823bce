"""People who talk to a server that is killed all the time, and never notice more than a delay.

They use the client library as anybody would, and remember what they were told.
"""

import asyncio
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from killed_server import count_on
from llavachat import ChatRecord, IncompleteReply, ServerUnavailable, TurnState
from llavachat.aio import AsyncClient, AsyncReply
from pictures import red_circle

MAX_TURNS = 6
PATIENCE_SECONDS = 300.0
_PAUSE_SECONDS = 0.1

REAL_PARAMS = {"max_tokens": 80, "temperature": 1.5, "seed": 3}
"""Of the embedded model: longish answers, the same ones again."""


@dataclass(frozen=True)
class Told:
    """A turn whose end a client has seen."""

    turn_id: str
    question: str
    answer: str


@dataclass
class Memory:
    """What all talkers of one server were told.

    Args:
        is_real: the embedded model answers, and only it knows what.
    """

    is_real: bool
    told: dict[str, list[Told]] = field(default_factory=lambda: defaultdict(list))
    counts: "Counter[str]" = field(default_factory=Counter)
    num_pieces: int = 0
    is_enough: bool = False
    piece: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self) -> None:
        """A piece of an answer has come."""
        self.num_pieces += 1
        self.piece.set()

    async def pieces(self, number: int) -> None:
        """Wait for so many more pieces."""
        last = self.num_pieces + number
        while self.num_pieces < last:
            self.piece.clear()
            await self.piece.wait()

    def check(self, record: ChatRecord, all_told: Sequence[Told] | None = None) -> None:
        """Compare what the server keeps of a chat with what was told of it before it was read.

        Args:
            record: what the server keeps.
            all_told: what had been told when it was asked. None: everything.
        """
        kept = {turn.id: turn for turn in record.turns}
        for told in self.told[record.id] if all_told is None else all_told:
            assert told.turn_id in kept, "an acknowledged turn was lost"
            turn = kept[told.turn_id]
            assert TurnState.FINISHED is turn.state, f"an end was lost: {turn.finish_reason}"
            assert (told.question, told.answer) == (turn.prompt, turn.answer)
        finished = [turn for turn in record.turns if turn.state is TurnState.FINISHED]
        questions = [turn.prompt for turn in finished]
        assert len(set(questions)) == len(questions), "a question was answered twice"
        parents = [turn.parent_turn_id for turn in finished]
        expected = [None, *(turn.id for turn in finished)][: len(finished)]
        assert expected == parents, "a chat did not go on from its last turn"


async def talk(address: str, memory: Memory, chance: random.Random) -> None:
    """Open chats and ask in them until it is enough."""
    async with AsyncClient(
        address, timeout_seconds=PATIENCE_SECONDS, resume_seconds=PATIENCE_SECONDS
    ) as client:
        while not memory.is_enough:
            chat_id = ""
            for _ in range(chance.randint(1, MAX_TURNS)):
                chat_id = await _ask(client, chat_id, memory, chance)
                if memory.is_enough:
                    break


async def look_up(address: str, memory: Memory) -> None:
    """Read chats from the server, again and again, and check them."""
    async with AsyncClient(address, timeout_seconds=PATIENCE_SECONDS) as client:
        while not memory.is_enough:
            for chat_id in list(memory.told):
                # More may be told while the record is on its way.
                all_told = tuple(memory.told[chat_id])
                try:
                    memory.check(await client.chat(chat_id).record(), all_told)
                    memory.counts["chats looked up on the way"] += 1
                except ServerUnavailable:
                    memory.counts["calls that said UNAVAILABLE and were repeated"] += 1
                if memory.is_enough:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
            await asyncio.sleep(_PAUSE_SECONDS)


async def _ask(client: AsyncClient, chat_id: str, memory: Memory, chance: random.Random) -> str:
    """Ask one question and see it answered, whatever becomes of the server; the chat's id."""
    number = chance.randrange(1_000_000)
    question = f"Count on from {number}."
    request_id = str(uuid.uuid4())
    picture = red_circle() if chance.random() < 0.3 else None
    while True:
        params = REAL_PARAMS if memory.is_real else {}
        if chat_id:
            reply = client.chat(chat_id).ask(question, request_id=request_id, **params)
        else:
            reply = client.start(picture, question, request_id=request_id, **params)
        try:
            answer = await _read(reply, memory)
        except ServerUnavailable:
            # Nothing had been told yet that could be gone on with.
            assert not reply.is_started
            memory.counts["calls that said UNAVAILABLE and were repeated"] += 1
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        except IncompleteReply:
            assert memory.is_real
            memory.counts["answers that began otherwise, and said so"] += 1
            continue
        if not memory.is_real:
            assert count_on(question) == answer
        memory.told[reply.chat_id].append(Told(reply.turn_id, question, answer))
        return reply.chat_id


async def _read(reply: AsyncReply, memory: Memory) -> str:
    async for _ in reply:
        memory.hear()
    return reply.text
