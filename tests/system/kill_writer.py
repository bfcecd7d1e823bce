"""A process that keeps chats as fast as it can and is killed: tells what was acknowledged.

Each line on the pipe is written after the store has said that a write is durable, so whatever
stands there must be found again.
"""

import asyncio
import hashlib
import itertools
import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

import sqlalchemy
from llavachat_server.chats.audit import AuditLog
from llavachat_server.chats.record import RequestClaim
from llavachat_server.chats.sql import database
from llavachat_server.chats.sql.store import SqlStore
from store_records import end, make_chat, make_id, make_picture, make_turn

NUM_TASKS = 4
"""Several at once, so that commits hold the writes of several chats."""


@dataclass(frozen=True)
class Plan:
    """What the process does.

    Args:
        url: the database.
        seed: of its choices.
        point: where it kills itself: "" (it is killed from outside), "statement" (between two
            statements), "commit" (a transaction is whole but not committed), "committed"
            (before anyone is told), "recorded" (a line of the audit record is written).
        count: at which of these.
    """

    url: str
    seed: int
    point: str = ""
    count: int = 0


def answer_of(turn_id: str) -> str:
    """The one right answer of a turn; half of it is easily told."""
    return hashlib.sha256(turn_id.encode()).hexdigest() * 20


def run(plan: Plan, pipe: int) -> None:
    """Keep chats until killed."""
    if plan.point:
        arm(plan.point, plan.count)
    store = SqlStore(plan.url)
    _tell(pipe, "open")
    asyncio.run(_keep(store, pipe, random.Random(plan.seed)))


async def _keep(store: SqlStore, pipe: int, chance: random.Random) -> None:
    await asyncio.gather(*(_keep_chats(store, pipe, chance) for _ in range(NUM_TASKS)))


async def _keep_chats(store: SqlStore, pipe: int, chance: random.Random) -> None:
    """Open chats, ask in them, erase some."""
    chats: list[str] = []
    for number in itertools.count():
        picture = make_picture(chance.randrange(256))
        turn = make_turn(f"Question {number}", (picture.info,), id=make_id())
        request_id = make_id()
        if not chats or chance.random() < 0.3:
            chat = make_chat()
            claim = RequestClaim("ada", request_id, "a" * 64, chat.id, turn.id)
            chats.append(chat.id)
            await store.begin_chat(chat, turn, (picture,), claim)
        else:
            claim = RequestClaim("ada", request_id, "a" * 64, chats[-1], turn.id)
            await store.begin_turn("ada", chats[-1], turn, (picture,), claim)
        _tell(pipe, "begun", chat=chats[-1], turn=turn.id, request=request_id)
        ended = replace(end(turn), answer=answer_of(turn.id))
        await store.finish_turn("ada", chats[-1], ended)
        _tell(pipe, "finished", chat=chats[-1], turn=turn.id)
        if len(chats) > 3 and chance.random() < 0.2:
            erased = chats.pop(0)
            _tell(pipe, "erasing", chat=erased)
            await store.delete_chat("ada", erased)
            _tell(pipe, "erased", chat=erased)


def _tell(pipe: int, what: str, **fields: str) -> None:
    os.write(pipe, (json.dumps({"what": what, **fields}) + "\n").encode())


def arm(point: str, count: int) -> None:
    """Have this process kill itself at the chosen point; see `Plan`."""
    left = itertools.count(count, -1)

    def maybe_die(*_: object) -> None:
        if next(left) <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if point == "recorded":
        _die_after_record(maybe_die)
        return

    class ArmedDatabase(database.Database):
        """A database whose writing connection is watched."""

        def _make_engine(self, begin: str, pool_size: int) -> sqlalchemy.Engine:
            engine = super()._make_engine(begin, pool_size)
            if begin != "BEGIN":
                if point == "statement":
                    sqlalchemy.event.listen(engine, "before_cursor_execute", maybe_die)
                elif point == "commit":
                    sqlalchemy.event.listen(engine, "commit", maybe_die)
                else:
                    _die_after_commit(engine, maybe_die)
            return engine

    from llavachat_server.chats.sql import store

    store.Database = ArmedDatabase  # type: ignore[misc]


def _die_after_record(maybe_die: Callable[..., None]) -> None:
    extend = AuditLog._extend

    def extend_and_die(log: AuditLog, data: bytes) -> None:
        extend(log, data)
        maybe_die()

    AuditLog._extend = extend_and_die  # type: ignore[method-assign]


def _die_after_commit(engine: sqlalchemy.Engine, maybe_die: object) -> None:
    commit = engine.dialect.do_commit

    def do_commit(connection: object) -> None:
        commit(connection)  # type: ignore[arg-type]
        maybe_die()  # type: ignore[operator]

    engine.dialect.do_commit = do_commit  # type: ignore[method-assign,assignment]
