"""A disk without a byte left: new turns are refused, reading goes on, and nothing that was told is
lost; once there is room the server goes on without a restart."""

import asyncio
import json
import signal
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from disk import Disk, small_disk
from killed_server import ServerForks, Start, count_on
from llavachat import LimitReached, TurnState
from llavachat.aio import AsyncClient
from llavachat_server.chats.audit import list_files, verify
from llavachat_server.settings import load
from llavachat_server.stores import StoreNotOpened, open_store
from pictures import red_circle

NUM_TALKERS = 6
MOST_QUESTIONS = 2000
"""So many find room in what the files had taken already before the last of it is gone; by far."""


@dataclass
class Question:
    """What was asked, and what came of it so far."""

    text: str
    has_picture: bool = False
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    turn_id: str = ""


@dataclass
class Talk:
    """One client of the server.

    Args:
        client: its connection.
        told: chat id, turn id and answer of each turn whose end it saw.
        refused_at_start, refused_at_end: questions, by whether any of the answer had come.
    """

    client: AsyncClient
    told: list[tuple[str, str, str]] = field(default_factory=list)
    refused_at_start: list[Question] = field(default_factory=list)
    refused_at_end: list[Question] = field(default_factory=list)

    async def ask(self, question: Question, hear: Callable[[], None] = lambda: None) -> bool:
        """Open a chat with a question, `hear` each piece; whether it was answered to the end."""
        reply = self.client.start(
            red_circle() if question.has_picture else None,
            question.text,
            request_id=question.request_id,
        )
        try:
            async for _ in reply:
                hear()
            assert count_on(question.text) == reply.text
        except LimitReached as refusal:
            if not refusal.retry_after_seconds:
                raise
            refused = self.refused_at_end if reply.is_started else self.refused_at_start
            question.turn_id = reply.turn_id if reply.is_started else ""
            refused.append(question)
            return False
        self.told.append((reply.chat_id, reply.turn_id, reply.text))
        return True

    async def ask_until_refused(self, first: int) -> None:
        """Fill what room there is."""
        for number in range(first, first + MOST_QUESTIONS):
            if not await self.ask(Question(f"Count on from {number}.", number % 4 == 0)):
                return
        raise AssertionError("a full disk takes whatever it is given")

    async def check(self) -> None:
        """What was told is read as it was told."""
        for chat_id, turn_id, answer in self.told:
            turn = await self.client.chat(chat_id).turn(turn_id)
            assert (TurnState.FINISHED, answer) == (turn.state, turn.answer)


@asynccontextmanager
async def running(forks: ServerForks, folder: Path, state: Path) -> AsyncIterator[str]:
    """A server with its state on the disk and its log elsewhere."""
    ready = folder / "ready"
    flags = ["--listen", "127.0.0.1:0", "--store", "sqlite", "--state-folder", str(state)]
    flags += ["--ready-file", str(ready), "--log-level", "warning"]
    await forks.start_and_wait(Start(flags, str(folder / "log")), ready)
    yield ready.read_text().strip()


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
async def test_a_full_disk_costs_new_turns_and_nothing_else(tmp_path: Path, kind: str) -> None:
    """Also for a server that is killed on the full disk and starts on it again."""
    forks = await ServerForks.open()
    try:
        with small_disk(kind, tmp_path) as disk:
            state = disk.folder / "state"
            async with running(forks, tmp_path, state) as address:
                told = await _fill_and_recover(disk, address)
                disk.fill()
                told += await _fill_again(address)
                forks.kill(signal.SIGKILL)
                await forks.ended()
            async with running(forks, tmp_path, state) as address:
                told += await _read_and_recover(disk, address, told)
                forks.kill(signal.SIGTERM)
                assert 0 == await forks.ended(), (tmp_path / "log").read_text()[-3000:]
            _check_files(state, {turn_id for _, turn_id, _ in told})
        assert "Count on" not in (tmp_path / "log").read_text()
    finally:
        await forks.close()


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_server_that_was_stopped_needs_a_little_room_to_start(tmp_path: Path, kind: str) -> None:
    """It leaves no shared memory behind, as one that is killed does; and says what is missing."""
    with small_disk(kind, tmp_path) as disk:
        settings = load(["--store", "sqlite", "--state-folder", str(disk.folder / "state")])
        open_store(settings).close()
        disk.fill()
        with pytest.raises(StoreNotOpened, match=r"^store: there is no room for .*chats\.db: make"):
            open_store(settings)
        disk.make_room()
        open_store(settings).close()


async def _fill_and_recover(disk: Disk, address: str) -> list[tuple[str, str, str]]:
    """Talk until the disk is full, read, make room, and talk on; what was told."""
    async with AsyncClient(address) as client:
        talks = [Talk(client) for _ in range(NUM_TALKERS)]
        assert await talks[0].ask(Question("Count on from 1."))
        await _fill_in_mid_stream(disk, talks)
        await asyncio.gather(*(talk.ask_until_refused(1000 * i) for i, talk in enumerate(talks)))
        talk = talks[0]
        for number in range(3):
            assert not await talk.ask(Question(f"Count on from {number}."))
        for each in talks:
            await each.check()
        assert talk.told[0][0] in {chat.id async for chat in client.chats()}
        disk.make_room()
        assert await talk.ask(Question("Count on from 5."))
        for each in talks:
            for question in each.refused_at_start:
                assert await each.ask(question), "refused though there is room"
            for question in each.refused_at_end:
                assert await each.ask(question)
                assert question.turn_id == each.told[-1][1], "answered twice"
            await each.check()
        counts = [
            sum(map(len, (each.told for each in talks))),
            sum(map(len, (each.refused_at_start for each in talks))),
            sum(map(len, (each.refused_at_end for each in talks))),
        ]
        print("\ntold, refused at the start, refused at the end:", counts)
        return [turn for each in talks for turn in each.told]


async def _fill_in_mid_stream(disk: Disk, talks: list[Talk]) -> None:
    """Fill it while answers come: their ends find no room, or the last that there is."""
    begun = [asyncio.Event() for _ in talks]
    asked = [
        asyncio.create_task(talk.ask(Question(f"Count slowly on from {number}."), event.set))
        for number, (talk, event) in enumerate(zip(talks, begun, strict=True))
    ]
    for event in begun:
        await event.wait()
    disk.fill()
    answered = await asyncio.gather(*asked)
    assert not all(answered), "the disk was not full"


async def _fill_again(address: str) -> list[tuple[str, str, str]]:
    async with AsyncClient(address) as client:
        talk = Talk(client)
        await talk.ask_until_refused(0)
        return talk.told


async def _read_and_recover(
    disk: Disk, address: str, told: list[tuple[str, str, str]]
) -> list[tuple[str, str, str]]:
    """A server that has started on a full disk reads, refuses, and goes on once there is room."""
    async with AsyncClient(address) as client:
        talk = Talk(client, told=list(told))
        await talk.check()
        await talk.ask_until_refused(0)
        disk.make_room()
        assert await talk.ask(Question("Count on from 7."))
        await talk.check()
        return talk.told[len(told) :]


def _check_files(state: Path, told: set[str]) -> None:
    with sqlite3.connect(state / "chats.db") as file:
        assert [("ok",)] == file.execute("PRAGMA integrity_check").fetchall()
        running = "SELECT count(*) FROM turns WHERE state = 'running'"
        assert (0,) == file.execute(running).fetchone()
    assert verify(state / "audit").fault is None
    lines = [
        json.loads(line)
        for path in list_files(state / "audit")
        for line in path.read_text().splitlines()
    ]
    recorded = [line["turn_id"] for line in lines if line["event"] == "turn"]
    assert set() == told - set(recorded), "an acknowledged turn is not in the audit record"
    assert len(set(recorded)) == len(recorded), "a turn was recorded twice"
