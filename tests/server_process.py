"""A real server process, for tests and measurements: started, waited for, asked how it ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from llavachat.v1 import chat_pb2_grpc

START_SECONDS = 600.0
"""Far above what a start takes, for machines that do other things as well."""

STOP_SECONDS = 60.0


@dataclass(frozen=True)
class ServerProcess:
    """A server that serves.

    Args:
        address: what it bound.
        process: the process.
        log: its stderr.
        start_seconds: from its start until it said that it serves.
    """

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    start_seconds: float

    def stub(self) -> chat_pb2_grpc.ChatServiceStub:
        """A stub over a new plain-text channel."""
        return chat_pb2_grpc.ChatServiceStub(grpc.insecure_channel(self.address))

    def stop(self) -> int:
        """Send SIGTERM and wait for the end; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def count_resident_bytes(self) -> int:
        """The memory that it holds now."""
        return self._read_bytes("VmRSS")

    def count_peak_bytes(self) -> int:
        """The most memory that it has held."""
        return self._read_bytes("VmHWM")

    def _read_bytes(self, name: str) -> int:
        # proc_pid_status(5).
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith(name)]
        return int(line.split()[1]) * 1024


@contextmanager
def run_server(
    folder: Path,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "llavachat_server"),
) -> Iterator[ServerProcess]:
    """Start a server on a free port of this machine and wait until it serves.

    Args:
        folder: for its log and its ready file.
        flags: more of the server's flags.
        environment: more of its variables.
        program: what Python runs.
    """
    ready, log = folder / "ready", folder / "server.log"
    command = [sys.executable, *program, "--listen", "127.0.0.1:0"]
    command += ["--ready-file", str(ready), "--store", "memory", *flags]
    # One thread: a test machine has few cores, and two would wait for each other.
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    began = time.monotonic()
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=variables)
    try:
        while not ready.exists():
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise AssertionError(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.02)  # a file's appearance can not be awaited portably
        seconds = time.monotonic() - began
        yield ServerProcess(ready.read_text().strip(), process, log, seconds)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
