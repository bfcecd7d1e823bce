"""A clock that jumps an hour, forwards and backwards, under a server that answers."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import grpc.aio
import pytest
from app_in_process import until
from clock import HOUR_SECONDS, Clock
from killed_server import ServerForks, Start, count_on
from llavachat import FinishReason, TurnState
from llavachat.aio import AsyncClient, AsyncReply
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server.chats.audit import verify
from pictures import red_circle

JUMPS = (HOUR_SECONDS, 0, -HOUR_SECONDS, 0)
"""How far ahead the clock is after each jump: an hour forwards, two back, one forwards."""

GRACE_SECONDS = 1.0
LIMIT_SECONDS = 4.0

BUSY_SECONDS = 30.0
"""What a busy machine may add to a time; far below an hour."""


class Machine:
    """A state folder, a clock, and servers one after another."""

    def __init__(self, folder: Path, forks: ServerForks, clock: Clock) -> None:
        self.folder, self.forks, self.clock = folder, forks, clock

    @asynccontextmanager
    async def run(self, *flags: str, is_real: bool = False) -> AsyncIterator[str]:
        """A server; its address."""
        ready = self.folder / "ready"
        words = ["--listen", "127.0.0.1:0", "--store", "sqlite", "--ready-file", str(ready)]
        words += ["--state-folder", str(self.folder / "state"), *flags]
        start = Start(words, str(self.folder / "log"), is_real=is_real)
        await self.forks.start_and_wait(start, ready)
        yield ready.read_text().strip()
        self.forks.kill(signal.SIGTERM)
        assert 0 == await self.forks.ended(), (self.folder / "log").read_text()[-3000:]


@asynccontextmanager
async def make_machine(folder: Path, *, is_real: bool) -> AsyncIterator[Machine]:
    """A machine whose clock is right at first."""
    clock = Clock(folder / "clock")
    clock.set(0)
    forks = await ServerForks.open(is_real=is_real, variables=clock.variables())
    try:
        yield Machine(folder, forks, clock)
    finally:
        await forks.close()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """One whose servers count."""
    async with make_machine(tmp_path, is_real=False) as made:
        yield made


@pytest.fixture
async def model_machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """One whose servers have the embedded model."""
    async with make_machine(tmp_path, is_real=True) as made:
        yield made


async def test_a_jump_changes_no_answer_and_no_order(machine: Machine) -> None:
    """Answers that come meanwhile are whole, chats go on in their order, none is listed twice."""
    chat_ids: list[str] = []
    times: dict[str, datetime] = {}
    async with machine.run() as address, AsyncClient(address, timeout_seconds=60) as client:
        for number, ahead_seconds in enumerate(JUMPS):
            reply = client.start(None, f"Count slowly on from {100 * number}.")
            await anext(reply.__aiter__())
            machine.clock.set(ahead_seconds)
            assert count_on(f"{100 * number}") == await reply.read()
            chat_ids.append(reply.chat_id)
            for chat_id in chat_ids:
                question = f"Count on from {number}."
                assert count_on(question) == await client.chat(chat_id).ask(question).read()
            listed = [record async for record in client.chats(page_size=1)]
            assert sorted(chat_ids) == sorted(record.id for record in listed)
            for record in listed:
                assert record.update_time is not None
                assert times.get(record.id, record.update_time) <= record.update_time
                times[record.id] = record.update_time
        for number, chat_id in enumerate(chat_ids):
            turns = (await client.chat(chat_id).record()).turns
            prompts = [f"Count slowly on from {100 * number}."]
            prompts += [f"Count on from {later}." for later in range(number, len(JUMPS))]
            assert prompts == [turn.prompt for turn in turns]
            assert {TurnState.FINISHED} == {turn.state for turn in turns}
            for turn in turns:
                assert turn.create_time is not None
                assert turn.finish_time is not None
                assert turn.create_time <= turn.finish_time
    finding = verify(machine.folder / "state" / "audit")
    assert (None, 4 + 4 + 3 + 2 + 1) == (finding.fault, finding.num_lines)


@pytest.mark.parametrize("ahead_seconds", [HOUR_SECONDS, -HOUR_SECONDS])
async def test_a_jump_changes_no_grace_period(machine: Machine, ahead_seconds: int) -> None:
    """A reader who leaves has the same time to come back: not none, and not an hour more."""
    async with machine.run("--abandon-grace-seconds", str(GRACE_SECONDS)) as address:
        async with AsyncClient(address) as client:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = chat_pb2_grpc.ChatServiceStub(channel)
                call = stub.StartChat(pb.StartChatRequest(prompt="Count slowly on from 1."))
                started = (await call.read()).event.started
                left = time.monotonic()
                call.cancel()
            machine.clock.set(ahead_seconds)

            async def state() -> TurnState:
                return (await client.chat(started.chat_id).turn(started.turn_id)).state

            ended = await until(state, lambda state: state is not TurnState.RUNNING)
            seconds = time.monotonic() - left
        assert TurnState.CANCELLED is ended
        assert GRACE_SECONDS < seconds < GRACE_SECONDS + BUSY_SECONDS


async def test_a_jump_erases_no_chat_that_is_young(machine: Machine) -> None:
    """An hour makes a chat an hour older, and no more; it is erased when it is old by the clock."""
    day = ("--max-chat-age-days", "1")
    async with machine.run(*day) as address, AsyncClient(address) as client:
        reply = client.start(None, "Count on from 1.")
        await reply.read()
    for hours, is_kept in ((1, True), (-1, True), (23, True), (25, False)):
        machine.clock.set(hours * HOUR_SECONDS)
        async with machine.run(*day) as address, AsyncClient(address) as client:

            async def listed() -> list[str]:
                return [record.id async for record in client.chats()]

            if is_kept:
                assert [reply.chat_id] == await listed()
            else:
                await until(listed, lambda chats: not chats)


async def test_a_jump_ends_no_answer_of_the_model(model_machine: Machine) -> None:
    """An hour is more than a turn may take; but it has not passed."""
    flags = ("--max-turn-seconds", "600")
    async with model_machine.run(*flags, is_real=True) as address, AsyncClient(address) as client:
        reply = client.start(red_circle(), "Tell me all of it.")
        await anext(reply.__aiter__())
        model_machine.clock.set(HOUR_SECONDS)
        await reply.read()
        assert reply.finish_reason in (FinishReason.EOS, FinishReason.MAX_TOKENS)


async def test_a_jump_gives_the_model_no_more_time(model_machine: Machine) -> None:
    """Turns that are too late are ended, though by the clock they have not begun yet."""
    flags = ("--max-turn-seconds", str(LIMIT_SECONDS))
    async with model_machine.run(*flags, is_real=True) as address, AsyncClient(address) as client:
        # As `host.Streams`: an answer that has no end of its own, however long this test is held.
        endless = {"max_tokens": 1024, "temperature": 0.0, "repetition_penalty": 0.01}
        replies = [client.start(red_circle(), "What is this?", **endless) for _ in range(8)]
        begun = asyncio.Event()
        answers = [asyncio.create_task(_read(reply, begun)) for reply in replies]
        await begun.wait()
        # What could take a small model so long: it is held.
        model_machine.forks.kill(signal.SIGSTOP)
        model_machine.clock.set(-HOUR_SECONDS)
        await asyncio.sleep(LIMIT_SECONDS + 0.5)
        model_machine.forks.kill(signal.SIGCONT)
        await asyncio.gather(*answers)
        assert FinishReason.TIME_LIMIT in {reply.finish_reason for reply in replies}


async def _read(reply: AsyncReply, begun: asyncio.Event) -> None:
    try:
        async for _ in reply:
            begun.set()
    finally:
        begun.set()
