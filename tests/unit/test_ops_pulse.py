"""The pulse: beats only for steps of the engine, and the notes that tell whether it is in use."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from llavachat_server.ops.pulse import Pulse, WatchedEngine, extend_start, write_activity
from llavachat_server.ops.systemd import Notifier
from llavachat_server.values import (
    EngineEvent,
    EngineFailed,
    EngineLoad,
    EngineRequest,
    Finished,
    FinishReason,
    QueueFull,
    Sampling,
    Timings,
    Usage,
)
from processes import PATIENCE_SECONDS
from scripted_engine import Hold, ScriptedEngine

WATCHDOG_SECONDS = 0.2


class HungEngine(ScriptedEngine):
    """Takes requests and never makes a step; only the time limit ends them."""

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See `Engine.generate`."""
        await asyncio.sleep(request.time_limit_seconds)
        yield Finished(
            FinishReason.TIME_LIMIT, None, (), Usage(1, 0, 0, 0, 1), Timings(0, 0, 0, 0, 0)
        )


class SilentEngine(HungEngine):
    """Computes prompts so long that nobody gets a token, or has hung amid one."""

    hung_at_seconds: float | None = None

    @property
    def load(self) -> EngineLoad:
        """See `Engine.load`."""
        return EngineLoad(silent_step_at_seconds=self.hung_at_seconds or time.monotonic())


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        yield end


@asynccontextmanager
async def beating(pulse: Pulse) -> AsyncIterator[None]:
    """A pulse that beats meanwhile."""
    task = asyncio.create_task(pulse.beat())
    try:
        yield
    finally:
        task.cancel()


async def read_until(manager: socket.socket, word: str) -> list[str]:
    """Everything said up to a word."""
    said: list[str] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not said or word not in said[-1]:
            said.append((await asyncio.get_running_loop().sock_recv(manager, 4096)).decode())
    return said


def request(engine: ScriptedEngine) -> EngineRequest:
    """A question without a picture."""
    prompt = engine.prompts.build_first_turn("Hello", num_images=0)
    return EngineRequest("turn", prompt, (), Sampling(max_tokens=8), 60.0)


async def test_idle_engine_is_asked_for_a_step(manager: socket.socket) -> None:
    """While nobody asks, the pulse has one token generated for each ping."""
    engine = ScriptedEngine()
    pulse = Pulse(
        WatchedEngine(engine), Notifier(manager.getsockname(), WATCHDOG_SECONDS), "Serving"
    )
    async with beating(pulse):
        # On a slow machine one step may fall between two beats and count for both, so the pings
        # are not counted; without further steps there would be none, and this would never end.
        while len(engine.requests) < 3:
            await read_until(manager, "WATCHDOG=1")
    assert {1} == {asked.sampling.max_tokens for asked in engine.requests}


async def test_hung_engine_gets_no_ping(manager: socket.socket) -> None:
    """The event loop runs and the engine does not: no ping, and the status says why."""
    watched = WatchedEngine(HungEngine())
    watched.passed_at_seconds -= 100  # its birth counts as a step
    pulse = Pulse(watched, Notifier(manager.getsockname(), WATCHDOG_SECONDS), "Serving")
    async with beating(pulse):
        said = await read_until(manager, "has not made a step")
    assert "WATCHDOG=1" not in "\n".join(said)


async def test_steps_of_long_prompts_are_pings(manager: socket.socket) -> None:
    """An engine that gives no token for longer than the manager waits is alive while it steps."""
    watched = WatchedEngine(SilentEngine())
    watched.passed_at_seconds -= 100
    pulse = Pulse(watched, Notifier(manager.getsockname(), WATCHDOG_SECONDS), "Serving")
    said: list[str] = []
    async with beating(pulse):
        for _ in range(6):
            said += await read_until(manager, "WATCHDOG=1")
    assert "has not made a step" not in "\n".join(said)


async def test_any_step_is_enough_while_one_is_asked_for(manager: socket.socket) -> None:
    """Behind long steps of others the pulse's own comes late, and is given up once one is heard."""
    engine = SilentEngine()
    engine.hung_at_seconds = time.monotonic() - 100
    watched = WatchedEngine(engine)
    watched.passed_at_seconds -= 100
    is_asked, ends = asyncio.Event(), asyncio.Queue[bool]()

    async def probe(number: int, time_limit_seconds: float) -> None:
        is_asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.put_nowait(True)

    watched.probe = probe  # type: ignore[method-assign]
    pulse = Pulse(watched, Notifier(manager.getsockname(), WATCHDOG_SECONDS), "Serving")
    async with asyncio.timeout(PATIENCE_SECONDS), beating(pulse):
        await is_asked.wait()
        engine.hung_at_seconds = None
        said = await read_until(manager, "WATCHDOG=1")
        await ends.get()
    assert "has not made a step" not in "\n".join(said)


async def test_a_pulse_that_is_ended_leaves_no_question_behind(manager: socket.socket) -> None:
    """Of an engine that hangs."""
    is_asked = asyncio.Event()

    class AskedEngine(HungEngine):
        """Tells when it is asked."""

        def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
            """See `Engine.generate`."""
            is_asked.set()
            return super().generate(request)

    watched = WatchedEngine(AskedEngine())
    watched.passed_at_seconds -= 100
    pulse = Pulse(watched, Notifier(manager.getsockname(), WATCHDOG_SECONDS), "Serving")
    before = asyncio.all_tasks()
    beats = asyncio.create_task(pulse.beat())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await is_asked.wait()
        beats.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beats
    assert before == asyncio.all_tasks()


@pytest.mark.parametrize("was_silent", [True, False], ids=["amid a prompt", "amid an answer"])
async def test_an_engine_that_hangs_amid_something_is_found_out_as_soon(
    manager: socket.socket, *, was_silent: bool
) -> None:
    """What it has done before counts for one beat, whether or not it gave somebody a token."""
    engine = SilentEngine() if was_silent else HungEngine()
    watched = WatchedEngine(engine)
    watched.passed_at_seconds = time.monotonic()
    if isinstance(engine, SilentEngine):
        engine.hung_at_seconds = watched.passed_at_seconds
        watched.passed_at_seconds -= 100
    pulse = Pulse(watched, Notifier(manager.getsockname(), WATCHDOG_SECONDS), "Serving")
    async with beating(pulse):
        said = await read_until(manager, "has not made a step")
    assert "\n".join(said).count("WATCHDOG=1") <= 1


async def test_refused_probe_is_no_ping(manager: socket.socket) -> None:
    """A refused probe alone is no ping: a full engine that does not step is hung, too."""
    engine = ScriptedEngine(*[QueueFull(1.0)] * 100)
    watched = WatchedEngine(engine)
    watched.passed_at_seconds -= 100  # as above
    pulse = Pulse(watched, Notifier(manager.getsockname(), WATCHDOG_SECONDS), "Serving")
    async with beating(pulse):
        said = await read_until(manager, "has not made a step")
    assert "WATCHDOG=1" not in "\n".join(said)


async def test_engine_is_left_alone_where_no_watchdog_waits(manager: socket.socket) -> None:
    """A server in a terminal computes nothing of its own accord."""
    engine = ScriptedEngine()
    watched = WatchedEngine(engine)
    watched.passed_at_seconds -= 100
    async with beating(Pulse(watched, Notifier(manager.getsockname()), "Serving")):
        await read_until(manager, "waiting for a question")
    assert [] == engine.requests


async def test_statuses_read_like_sentences(manager: socket.socket, tmp_path: Path) -> None:
    """What runs, what was answered, and what a stop waits for."""
    hold = Hold()
    watched = WatchedEngine(ScriptedEngine(hold))
    pulse = Pulse(
        watched,
        Notifier(manager.getsockname(), WATCHDOG_SECONDS),
        "Serving shapes on :1",
        tmp_path / "activity.json",
    )

    async def ask() -> None:
        async for _ in watched.generate(request(ScriptedEngine())):
            pass

    turn = asyncio.create_task(ask())
    await hold.said.wait()
    async with beating(pulse):
        await read_until(manager, "STATUS=Serving shapes on :1: 1 turn running, 0 answered")
        running = json.loads((tmp_path / "activity.json").read_text())
        hold.release.set()
        await turn
        await read_until(manager, "STATUS=Serving shapes on :1: waiting for a question, 1 answered")
        pulse.tell_stopping(30.0)
        said = await read_until(manager, "EXTEND_TIMEOUT_USEC")
    assert "STOPPING=1\nSTATUS=Stopping: waiting for 0 turns to end" in said
    # The grace period, and what a stop takes beside it.
    assert "EXTEND_TIMEOUT_USEC=45000000" == said[-1]
    assert (1, 0.0) == (running["running_turns"], running["idle_seconds"])


async def test_idle_time_begins_with_the_last_turns_end(tmp_path: Path) -> None:
    """A turn's end and a call are use; the pulse's own steps are none."""
    watched = WatchedEngine(ScriptedEngine())
    path = tmp_path / "activity.json"
    watched.used_at_seconds -= 100
    await watched.probe(1, 1.0)
    write_activity(path, watched, is_stopping=False)
    assert json.loads(path.read_text())["idle_seconds"] >= 100
    async for _ in watched.generate(request(ScriptedEngine())):
        pass
    write_activity(path, watched, is_stopping=False)
    activity = json.loads(path.read_text())
    assert activity["idle_seconds"] < 10
    assert ("serving", 0, 1) == (
        activity["state"],
        activity["running_turns"],
        activity["answered_turns"],
    )


async def test_a_turns_end_is_use(tmp_path: Path) -> None:
    """However long it took: a machine does not stop under whoever reads the answer."""
    hold = Hold()
    engine = ScriptedEngine(hold)
    watched = WatchedEngine(engine)
    path = tmp_path / "activity.json"

    async def ask() -> None:
        async for _ in watched.generate(request(engine)):
            pass

    turn = asyncio.create_task(ask())
    await hold.said.wait()
    watched.used_at_seconds -= 1000
    hold.release.set()
    await turn
    write_activity(path, watched, is_stopping=False)
    assert json.loads(path.read_text())["idle_seconds"] < 500


def test_activity_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """A reader of the last one keeps what it reads: the next is another file in its place."""
    watched = WatchedEngine(ScriptedEngine())
    path = tmp_path / "activity.json"
    write_activity(path, watched, is_stopping=False)
    with path.open() as reader:
        write_activity(path, watched, is_stopping=True)
        assert "serving" == json.loads(reader.read())["state"]
    assert "stopping" == json.loads(path.read_text())["state"]
    assert [path] == list(tmp_path.iterdir())


async def test_activity_that_can_not_be_written_ends_no_beat(
    manager: socket.socket, tmp_path: Path
) -> None:
    """A full disk, or a folder that is gone, is no reason to take the engine for hung."""
    watched = WatchedEngine(ScriptedEngine())
    path = tmp_path / "gone" / "activity.json"
    write_activity(path, watched, is_stopping=False)
    notifier = Notifier(manager.getsockname(), WATCHDOG_SECONDS)
    async with beating(Pulse(watched, notifier, "Serving", path)):
        for _ in range(3):
            await read_until(manager, "WATCHDOG=1")
    assert not path.exists()


@pytest.mark.parametrize(("watchdog_seconds", "expected"), [(1.0, 0.25), (60.0, 2.0), (None, 2.0)])
def test_there_are_four_beats_in_the_managers_patience(
    watchdog_seconds: float | None, expected: float
) -> None:
    """Three pings may be late; and none comes more seldom than the status is to be true."""
    pulse = Pulse(WatchedEngine(ScriptedEngine()), Notifier("", watchdog_seconds), "Serving")
    assert expected == pulse._beat_seconds


async def test_an_engine_that_steps_is_asked_for_none(manager: socket.socket) -> None:
    """Its steps are the pulse; one more would be at the cost of who is being answered."""

    class SteppingEngine(ScriptedEngine):
        """Makes a step whenever it is looked at."""

        @property
        def load(self) -> EngineLoad:
            """See `Engine.load`."""
            return EngineLoad(silent_step_at_seconds=time.monotonic())

    engine = SteppingEngine()
    watched = WatchedEngine(engine)
    watched.passed_at_seconds -= 100
    async with beating(
        Pulse(watched, Notifier(manager.getsockname(), WATCHDOG_SECONDS), "Serving")
    ):
        for _ in range(3):
            await read_until(manager, "WATCHDOG=1")
    assert [] == engine.requests


async def test_only_answers_count_as_answered() -> None:
    """Not a question that was refused, failed or called off, though each was use."""
    hold = Hold()
    engine = ScriptedEngine(QueueFull(1.0), EngineFailed(), hold, "An answer")
    watched = WatchedEngine(engine)

    async def ask() -> None:
        async for _ in watched.generate(request(engine)):
            pass

    watched.used_at_seconds -= 100
    for error in (QueueFull, EngineFailed):
        with pytest.raises(error):
            await ask()
    assert time.monotonic() - watched.used_at_seconds < 50
    turn = asyncio.create_task(ask())
    await hold.said.wait()
    watched.cancel("turn")
    await turn
    assert (0, 0) == (watched.num_running, watched.num_answered)
    await ask()
    assert (0, 1) == (watched.num_running, watched.num_answered)


async def test_start_asks_for_time_up_to_its_limit(manager: socket.socket) -> None:
    """A loading model gets time at once; past the limit none is asked for."""
    task = asyncio.create_task(extend_start(Notifier(manager.getsockname()), 60.0))
    await read_until(manager, "EXTEND_TIMEOUT_USEC=40000000")
    task.cancel()
    await extend_start(Notifier(manager.getsockname()), 0.0)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)
