"""Whole servers to be killed, one after another: forked from a process that has loaded their
libraries, so that a start takes a fraction of a second and a thousand of them some minutes.

Run as a program it reads a `Start` from each line of stdin, forks a server, tells its process id,
and tells its exit status once it has ended.
"""

import asyncio
import json
import os
import re
import sys
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import kill_writer
from llavachat_server.values import EngineEvent, EngineRequest, Finished
from scripted_engine import ScriptedEngine

PACE_SECONDS = 0.002
"""Between two pieces of an answer: some of them are always on the way."""

SLOW_PACE_SECONDS = 0.05
"""Where the question says "slowly"."""

NO_PACE_SECONDS = 3600.0
"""Where it says "for ever": one word, and then nothing until the turn is ended."""

NUM_WORDS = 40

START_SECONDS = 120.0
"""Far above what a start takes, for machines that do other things as well."""


@dataclass(frozen=True)
class Start:
    """A server to start.

    Args:
        flags: of `llavachat-server`.
        log: the file that its stderr is appended to.
        point, count: where it kills itself; see `kill_writer.Plan`.
        is_real: with the embedded model; else with an engine that counts.
    """

    flags: list[str]
    log: str
    point: str = ""
    count: int = 0
    is_real: bool = False

    def line(self) -> bytes:
        """For the process that forks."""
        return json.dumps(asdict(self)).encode() + b"\n"


def count_on(question: str) -> str:
    """The one right answer of the counting engine: it goes on from the last number it reads."""
    first = int(re.findall(r"\d+", question)[-1])
    return " ".join(str(first + step) for step in range(1, NUM_WORDS + 1))


class CountingEngine(ScriptedEngine):
    """Answers each question with numbers, at a steady pace; keeps nothing."""

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See `Engine.generate`."""
        question = self.prompts.render(request.token_ids).rpartition("USER:")[2]
        self.script = [count_on(question) if re.search(r"\d", question) else "Yes"]
        pace_seconds = SLOW_PACE_SECONDS if "slowly" in question else PACE_SECONDS
        if "for ever" in question:
            pace_seconds = NO_PACE_SECONDS
        try:
            async for event in super().generate(request):
                reason = self.cancelled.get(request.request_id)
                if reason is None:
                    yield event
                    with suppress(TimeoutError):
                        cancelled = self._cancellations[request.request_id].wait()
                        await asyncio.wait_for(cancelled, pace_seconds)
                elif isinstance(event, Finished):
                    yield replace(event, finish_reason=reason)
        finally:
            self.requests.clear()
            self.cancelled.pop(request.request_id, None)
            self._cancellations.pop(request.request_id, None)


def serve(start: Start) -> int:
    """Be the server, in the forked process."""
    if start.point:
        kill_writer.arm(start.point, start.count)
    if start.is_real:
        from llavachat_server.__main__ import main

        return main(start.flags)
    from llavachat_server.app import App
    from llavachat_server.ops import logs
    from llavachat_server.resolution import resolve_profile
    from llavachat_server.settings import load

    async def run() -> None:
        settings = load(start.flags)
        logs.set_up("json", "info")
        await App(settings, resolve_profile(settings), lambda *_: CountingEngine()).run()

    asyncio.run(run())
    return 0


def fork_for_ever(is_real: bool) -> None:
    """The program; see the module. Nothing here may start a thread before it forks."""
    import llavachat_server.app
    import llavachat_server.chats.sql.store

    if is_real:
        import llavachat_server.engine.tensors.loading  # noqa: F401
    CountingEngine()
    for line in sys.stdin:
        start = Start(**json.loads(line))
        process = os.fork()
        if process == 0:
            _become_server(start)
        tell({"process": process})
        tell({"status": os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])})


def _become_server(start: Start) -> None:
    log = os.open(start.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(log, 2)
    os.dup2(log, 1)
    status = 1
    try:
        status = serve(start)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def tell(what: dict[str, Any]) -> None:
    """One line for the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


@dataclass
class ServerForks:
    """The parent's side: starts servers and hears how they ended."""

    process: asyncio.subprocess.Process
    server: int = 0
    _ended: "asyncio.Task[int] | None" = field(default=None)

    @classmethod
    async def open(
        cls, *, is_real: bool = False, variables: Mapping[str, str] | None = None
    ) -> "ServerForks":
        """Start the process that forks, with more variables in its environment."""
        environment = {
            **os.environ,
            **(variables or {}),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "real" if is_real else "counting",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        return cls(process)

    async def start_and_wait(self, start: Start, ready: Path) -> None:
        """Start a server, and wait until it has written its file `ready`."""
        await asyncio.to_thread(ready.unlink, missing_ok=True)
        await self.start(start)
        await self.wait(start, ready)

    async def wait(self, start: Start, ready: Path) -> None:
        """Wait until a server has written its file `ready`."""
        deadline = time.monotonic() + START_SECONDS

        def look() -> None:
            while not ready.exists():
                log = Path(start.log)
                assert self.is_running, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.005)  # a file's appearance can not be awaited portably

        await asyncio.to_thread(look)

    async def start(self, start: Start) -> None:
        """Start a server; `ended` says when it has ended."""
        assert self.process.stdin is not None
        self.process.stdin.write(start.line())
        self.server = (await self._hear())["process"]
        self._ended = asyncio.create_task(self._hear_end())

    def kill(self, number: int) -> None:
        """Send the server a signal."""
        if self.is_running:
            # It may have ended a moment ago, which is told by and by.
            with suppress(ProcessLookupError):
                os.kill(self.server, number)

    @property
    def is_running(self) -> bool:
        """Whether the server has not ended."""
        return self._ended is not None and not self._ended.done()

    async def ended(self) -> int:
        """Wait for the server's end; minus the signal that ended it, or its exit status."""
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Kill what still runs."""
        self.kill(9)
        if self._ended is not None:
            await self._ended
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()

    async def _hear_end(self) -> int:
        return int((await self._hear())["status"])

    async def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the process that forks servers has ended"
        told: dict[str, Any] = json.loads(line)
        return told


if __name__ == "__main__":
    fork_for_ever(sys.argv[1] == "real")
