"""A server of our own for a while: started, waited for, stopped."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from llavachat.cli.failure import Failure

READY_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0
_NUM_LAST_LINES = 5


def _leave(number: int, frame: object) -> None:
    """SIGTERM unwinds, so that the server does not outlive us."""
    sys.exit(128 + number)


class ServerProcess:
    """A server on a free port of this machine. A context manager: it is stopped at the end.

    Args:
        command: how to start it, up to its arguments.
        on_stage: called from another thread with the seconds since the start and the name of
            each stage of loading.
    """

    def __init__(self, command: Sequence[str], on_stage: Callable[[float, str], None]) -> None:
        self._command = command
        self._on_stage = on_stage
        self._last_lines: deque[str] = deque(maxlen=_NUM_LAST_LINES)
        self._folder = tempfile.TemporaryDirectory(prefix="llavachat-")
        self._ready_file = Path(self._folder.name) / "ready"
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.address = ""
        self.start_seconds = 0.0
        """From the start of the process until it served."""

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, _leave)
        try:
            self._start()
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        # The user's own settings are for the user's own server.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("LLAVACHAT_")
        }
        arguments = ["--listen", "127.0.0.1:0", "--ready-file", str(self._ready_file)]
        # What is tried here is not the user's to keep, nor are the user's keys asked for.
        arguments += ["--store", "memory", "--state-folder", self._folder.name]
        self._began = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, and no shell
            [*self._command, *arguments, "--log-format", "json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _wait(self) -> None:
        assert self._process is not None
        deadline = self._began + READY_TIMEOUT_SECONDS
        while not self._ready_file.exists():
            if self._process.poll() is not None:
                if self._reader is not None:
                    self._reader.join(1.0)
                last = " ".join(self._last_lines) or "it said nothing"
                raise Failure(f"The server ended with code {self._process.returncode}: {last}")
            if time.monotonic() > deadline:
                raise Failure(f"The server was not ready within {READY_TIMEOUT_SECONDS:g} s.")
            time.sleep(_POLL_SECONDS)
        self.start_seconds = time.monotonic() - self._began
        self.address = self._ready_file.read_text("utf-8").strip()

    def _stop(self) -> None:
        signal.signal(signal.SIGTERM, self._before)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._reader is not None:
            self._reader.join(1.0)
        if self._process is not None and self._process.stderr is not None:
            self._process.stderr.close()
        self._folder.cleanup()

    def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            try:
                record = json.loads(line)
                stage, level = str(record["event"]), record["level"]
            except (ValueError, KeyError, TypeError):
                self._last_lines.append(line.strip())
                continue
            if level == "info" and not self.address:
                self._on_stage(time.monotonic() - self._began, stage)
            elif level != "info":
                self._last_lines.append(stage)
