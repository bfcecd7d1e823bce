"""Kills, by the hundred: no acknowledged turn is lost, none is half there, the file is sound.

How often: see `kill_numbers`; `test_server_kills` kills whole servers.
SIGKILL takes the process, not the machine: what the kernel was given is written all the same.
That a commit also survives the machine rests on SQLite's synchronous=FULL, which is tested by its
setting alone.
"""

import asyncio
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import kill_writer
from alembic import command
from kill_numbers import MIGRATION_KILLS, WRITER_KILLS
from kill_writer import Plan, answer_of
from llavachat_server.chats.errors import NotFound
from llavachat_server.chats.record import RequestClaim, TurnState
from llavachat_server.chats.sql.database import alembic_config
from llavachat_server.chats.sql.schema import HEAD
from llavachat_server.chats.sql.store import SqlStore
from store_records import end, make_chat, make_id, make_turn

KILLS_A_FILE = 25
"""Then a new file, so that kills fall into its making as well."""

MIGRATION_POINTS = ("statement", "statement", "statement", "commit", "committed")

OLD_CHATS = 20
"""In a file of the first release."""

MIGRATION_STATEMENTS = 40
"""About as many as it takes to bring such a file up to date."""

POINTS = ("", "", "statement", "commit", "committed")


@dataclass
class Witness:
    """What killed processes have told of one database, and whether it is so."""

    url: str
    begun: dict[str, tuple[str, str]] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    erasing: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)

    def hear(self, told: bytes) -> bool:
        """Take down what a process said; whether its store had opened."""
        is_open = False
        for line in told.decode().splitlines():
            event = json.loads(line)
            is_open = True
            if event["what"] == "begun":
                self.begun[event["turn"]] = (event["chat"], event["request"])
            elif event["what"] == "finished":
                self.finished.add(event["turn"])
            elif event["what"] in ("erasing", "erased"):
                getattr(self, event["what"]).add(event["chat"])
        return is_open

    async def check(self, store: SqlStore) -> int:
        """Look everything up; how many turns there are."""
        num_turns = 0
        for chat_id in sorted({chat for chat, _ in self.begun.values()}):
            try:
                chat = await store.get_chat("ada", chat_id)
            except NotFound:
                assert chat_id in self.erasing, "a chat was lost"
                continue
            assert chat_id not in self.erased, "an erased chat came back"
            kept = {turn.id: turn for turn in chat.turns}
            num_turns += len(kept)
            for turn in chat.turns:
                assert turn.state is not TurnState.RUNNING
                if turn.state is TurnState.FINISHED:
                    assert answer_of(turn.id) == turn.answer, "a turn is half there"
                for image in turn.images:
                    assert image.id == (await store.get_picture("ada", image.id)).info.id
            for turn_id, (its_chat, request_id) in self.begun.items():
                if its_chat != chat_id:
                    continue
                assert turn_id in kept, "an acknowledged turn was lost"
                claim = await store.find_claim("ada", request_id)
                assert claim is not None, "a request was forgotten"
                assert turn_id == claim.turn_id
                if turn_id in self.finished:
                    assert TurnState.FINISHED is kept[turn_id].state, "an end was lost"
        return num_turns


def test_no_kill_loses_an_acknowledged_turn(tmp_path: Path) -> None:
    """Processes are killed at random moments and at chosen points, and the next one looks."""
    chance = random.Random(7)
    # The parent has one thread whenever it forks: its store is closed.
    context = multiprocessing.get_context("fork")
    counts: Counter[str] = Counter()
    recoveries = []
    for kill, witness in zip(range(WRITER_KILLS), _witnesses(tmp_path), strict=False):
        point = chance.choice(POINTS)
        # Few statements and commits in, a new file is still being made.
        plan = Plan(witness.url, kill, point, chance.choice((0, 3, 10, 40, 150)))
        is_open = witness.hear(_run_and_kill(context, plan, chance))
        counts[point or "at random"] += 1
        counts["before the store had opened"] += not is_open
        began = time.perf_counter()
        store = SqlStore(witness.url)
        recoveries.append(time.perf_counter() - began)
        try:
            counts["turns cut"] += len(store.cut_turns)
            is_last = kill % KILLS_A_FILE == KILLS_A_FILE - 1 or kill == WRITER_KILLS - 1
            if is_last or kill % 5 == 4:
                counts["turns looked up"] += asyncio.run(witness.check(store))
            if is_last:
                counts["turns acknowledged"] += len(witness.finished)
        finally:
            store.close()
        with sqlite3.connect(witness.url.removeprefix("sqlite:///")) as file:
            assert [("ok",)] == file.execute("PRAGMA integrity_check").fetchall()
            assert [] == file.execute("PRAGMA foreign_key_check").fetchall()
    recoveries.sort()
    print(
        f"\n{WRITER_KILLS} kills: {dict(counts)}; opening again took "
        f"{1000 * recoveries[len(recoveries) // 2]:.0f} ms (p50), "
        f"{1000 * recoveries[-1]:.0f} ms (longest)"
    )
    assert counts["turns acknowledged"] > WRITER_KILLS


def _witnesses(folder: Path) -> Iterator[Witness]:
    """One for each kill; of a new file every now and then."""
    number = 0
    while True:
        witness = Witness(f"sqlite:///{folder}/chats-{number}.db")
        for _ in range(KILLS_A_FILE):
            yield witness
        number += 1


def test_a_kill_in_a_migration_leaves_the_old_database(tmp_path: Path) -> None:
    """Whenever it comes, the next process finds all of the old one, or all of the new one."""
    chance = random.Random(13)
    context = multiprocessing.get_context("fork")
    template = Witness(f"sqlite:///{tmp_path}/template.db")
    asyncio.run(_keep_as_first_release(template))
    counts: Counter[str] = Counter()
    for kill in range(MIGRATION_KILLS):
        path = tmp_path / f"old-{kill}.db"
        shutil.copy(tmp_path / "template.db", path)
        witness = deepcopy(replace(template, url=f"sqlite:///{path}"))
        point = chance.choice(MIGRATION_POINTS)
        count = chance.randrange(MIGRATION_STATEMENTS) if point == "statement" else 0
        witness.hear(_run_and_kill(context, Plan(witness.url, kill, point, count), chance))
        revision = _revision(witness)
        assert revision in ("0001", HEAD)
        counts["old" if revision == "0001" else "new"] += 1
        store = SqlStore(witness.url)
        try:
            counts["turns looked up"] += asyncio.run(witness.check(store))
        finally:
            store.close()
    print(f"\n{MIGRATION_KILLS} kills of processes that migrate a database: {dict(counts)}")
    assert counts["old"] > 0


async def _keep_as_first_release(witness: Witness) -> None:
    """Fill a database, and take it back to what the first release made."""
    store = SqlStore(witness.url)
    try:
        for number in range(OLD_CHATS):
            chat, turn = make_chat(labels={"number": str(number)}), make_turn()
            claim = RequestClaim("ada", make_id(), "a" * 64, chat.id, turn.id)
            await store.begin_chat(chat, turn, (), claim)
            await store.finish_turn("ada", chat.id, replace(end(turn), answer=answer_of(turn.id)))
            witness.begun[turn.id] = (chat.id, claim.request_id)
            witness.finished.add(turn.id)
        with store._database.writing.begin() as connection:
            command.downgrade(alembic_config(connection), "0001")
    finally:
        store.close()


def _revision(witness: Witness) -> str | None:
    """Which release's tables a database has; None before it has any."""
    with closing(sqlite3.connect(witness.url.removeprefix("sqlite:///"))) as file:
        known = file.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'")
        if known.fetchone() is None:
            return None
        return str(file.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _run_and_kill(
    context: "multiprocessing.context.ForkContext", plan: Plan, chance: random.Random
) -> bytes:
    """Start a process and kill it; all that it said."""
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(plan, writer), daemon=True)
    process.start()
    writer.close()
    if not plan.point:
        # Long enough to open a new file, half the time.
        process.join(chance.choice((0.02, 0.1, 0.5, 1.0)) * chance.random())
        process.kill()
    told = b""
    with os.fdopen(os.dup(reader.fileno()), "rb") as pipe:
        told = pipe.read()
    process.join()
    assert -9 == process.exitcode, process.exitcode
    reader.close()
    return told


def _child(plan: Plan, writer: "multiprocessing.connection.Connection") -> None:
    kill_writer.run(plan, writer.fileno())
