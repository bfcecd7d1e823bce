"""Signals: to a process with the server's real start and stop, on a scripted engine."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import grpc.aio
import pytest
from app_in_process import until
from grpc import StatusCode
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server.__main__ import main
from terminal import Terminal

PATIENCE_SECONDS = 300.0
TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Answering:
    """A server process in the middle of an answer."""

    process: subprocess.Popen[bytes]
    replies: Any
    ready: Path

    async def end(self) -> int:
        """The exit code, once it has ended."""
        return await asyncio.to_thread(self.process.wait, PATIENCE_SECONDS)


def start_process(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process whose stderr goes to a file, and that has no terminal: as a service."""
    with log.open("wb") as stderr:
        return subprocess.Popen(command, stderr=stderr, start_new_session=True)


@asynccontextmanager
async def answering(folder: Path, *flags: str) -> AsyncIterator[Answering]:
    """Start a server, and an answer that does not end by itself."""
    ready = folder / "ready"
    command = [sys.executable, str(TESTS / "scripted_server.py"), "--listen", "127.0.0.1:0"]
    process = start_process([*command, "--ready-file", str(ready), *flags], folder / "log")

    async def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        return ready.exists()

    try:
        await until(is_ready, bool)
        async with grpc.aio.insecure_channel(ready.read_text().strip()) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            replies = aiter(stub.StartChat(pb.StartChatRequest(prompt="What?")))
            await anext(replies)
            yield Answering(process, replies, ready)
    finally:
        process.kill()
        process.wait()


async def end(replies: Any) -> StatusCode:
    """How a stream ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [reply async for reply in replies]
    return caught.value.code()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_one_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    """After the grace period the stream ends UNAVAILABLE, the process well, its file is gone."""
    async with answering(tmp_path, "--grace-seconds", "0.2") as server:
        server.process.send_signal(number)
        assert StatusCode.UNAVAILABLE is await end(server.replies)
        assert 0 == await server.end()
        assert not server.ready.exists()


async def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    """Who presses Ctrl-C twice does not want to wait for the grace period."""
    async with answering(tmp_path, "--grace-seconds", "3600") as server:
        server.process.send_signal(signal.SIGINT)

        async def is_draining() -> bool:
            return not server.ready.exists()

        await until(is_draining, bool)
        assert None is server.process.poll()
        server.process.send_signal(signal.SIGINT)
        assert 130 == await server.end()


async def test_a_start_can_be_broken_off(tmp_path: Path) -> None:
    """A signal while the real model loads ends the process well, without waiting for it."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "llavachat_server", "--listen", "127.0.0.1:0"]
    process = start_process(command, log)

    async def is_listening() -> bool:
        return "listening" in log.read_text()

    try:
        await until(is_listening, bool)
        process.send_signal(signal.SIGTERM)
        assert 0 == await asyncio.to_thread(process.wait, PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert "stopped while starting" in log.read_text()
    assert "serving" not in log.read_text()


async def test_a_hangup_takes_the_level_up(tmp_path: Path) -> None:
    """The settings file is read again, the answer goes on, and the log says what was done."""
    file, log = tmp_path / "server.toml", tmp_path / "log"
    file.write_text("")
    flags = ("--config", str(file), "--grace-seconds", "0.2")
    async with answering(tmp_path, *flags) as server:

        def told() -> list[dict[str, Any]]:
            lines = map(json.loads, log.read_text().splitlines())
            return [line for line in lines if line["event"] == "settings read again"]

        async def read() -> list[dict[str, Any]]:
            return told()

        for number, level in enumerate(("debug", "info"), 1):
            file.write_text(f'log_level = "{level}"\nmax_queued_turns = 5\n')
            server.process.send_signal(signal.SIGHUP)
            lines = await until(read, lambda found, number=number: len(found) == number)
            assert (level, "max_queued_turns") == (
                lines[-1]["log_level"],
                lines[-1]["needs_restart"],
            )
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert StatusCode.UNAVAILABLE is await end(server.replies)
        assert 0 == await server.end()


INTERRUPTED = """
import os, signal, sys

def interrupt(event, arguments):
    if event == "import" and arguments[0] == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, getattr(signal, sys.argv[2]))
sys.addaudithook(interrupt)
from llavachat_server.__main__ import main
sys.exit(main(["--listen", "127.0.0.1:0", "--ready-file", "/no/such/folder/ready"]))
"""
"""A server that gets a Ctrl-C while it comes up, and that could not serve in the end."""


@pytest.mark.parametrize("module", ["pydantic", "llavachat_server.app"])
@pytest.mark.parametrize(
    ("handler", "status"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 1)]
)
async def test_an_interrupt_before_the_server_listens_for_it_ends_it(
    tmp_path: Path, module: str, handler: str, status: int
) -> None:
    """Without a word; and does nothing where whoever started it has it ignored."""
    log = tmp_path / "log"
    process = start_process([sys.executable, "-c", INTERRUPTED, module, handler], log)
    assert status == await asyncio.to_thread(process.wait, PATIENCE_SECONDS)
    assert (status == 1) == ("/no/such/folder/ready" in log.read_text())
    assert "Traceback" not in log.read_text()


INTERRUPTED_COMMAND = """
import os, signal, sys

def interrupt(event, arguments):
    if event == "import" and arguments[0].endswith("_command"):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(interrupt)
from llavachat_server.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""A command that gets a Ctrl-C while its modules are imported."""


@pytest.mark.parametrize("command", ["keys", "certs", "audit", "store"])
async def test_an_interrupt_before_a_command_has_begun_ends_it(
    tmp_path: Path, command: str
) -> None:
    """Without a word."""
    log = tmp_path / "log"
    process = start_process([sys.executable, "-c", INTERRUPTED_COMMAND, command], log)
    assert -signal.SIGINT == await asyncio.to_thread(process.wait, PATIENCE_SECONDS)
    assert "" == log.read_text()


def test_a_command_runs_in_any_thread(tmp_path: Path) -> None:
    """Of a program that calls it: signals are its own, and only the main thread may take them."""
    codes: list[int] = []
    words = ["store", "backup", str(tmp_path / "copy"), "--state-folder", str(tmp_path / "state")]
    thread = Thread(target=lambda: codes.append(main(words)))
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert [1] == codes


HANGUPS = """
import os, signal, sys

def hang_up(event, arguments):
    if event == "import" and arguments[0] in ("pydantic", "llavachat_server.app"):
        os.kill(os.getpid(), signal.SIGHUP)

# Under nohup it would be ignored from the first on.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.addaudithook(hang_up)
from llavachat_server.__main__ import main
sys.exit(main(["--listen", "127.0.0.1:0", "--ready-file", "/no/such/folder/ready"]))
"""
"""A server that gets hang-ups while it comes up, and that could not serve in the end."""


async def test_a_hangup_before_the_server_listens_for_it_does_nothing(tmp_path: Path) -> None:
    """A service that is told to reload as soon as it was started goes on starting."""
    log = tmp_path / "log"
    process = start_process([sys.executable, "-c", HANGUPS], log)
    assert 1 == await asyncio.to_thread(process.wait, PATIENCE_SECONDS)
    assert "ready_file: '/no/such/folder/ready' can not be written" in log.read_text()


def test_a_terminal_s_hangup_ends_a_start() -> None:
    """Nobody is there to serve for."""
    terminal = Terminal([sys.executable, "-c", HANGUPS], os.environ)
    try:
        assert -signal.SIGHUP == terminal.wait(seconds=PATIENCE_SECONDS)
    finally:
        terminal.close()
