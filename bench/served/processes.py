"""A contender's process: started in a group of its own, measured, ended with its children."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_SECONDS = 20.0


class ServerDied(Exception):
    """It ended before it answered; the message has its last words."""


class ServerProcess:
    """One server, its children included.

    Args:
        command: program and arguments.
        environment: variables besides this process's own.
        log: where its output goes.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self.began_seconds = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ServerDied: it has ended.
        """
        code = self._process.poll()
        if code is not None:
            raise ServerDied(f"ended with {code}: {self.read_last_words()}")

    def read_last_words(self) -> str:
        """The end of its output, on one line."""
        text = self._log.read_text("utf-8", "replace")
        return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split()[-60:])

    def measure_memory(self) -> float:
        """PSS of the whole group in MB: shared pages are counted in parts."""
        return sum(read_pss_bytes(number) for number in self._find_members()) / 1e6

    def stop(self) -> None:
        """End the group: politely first."""
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                self._process.poll()
                if not self._find_members():
                    return
                time.sleep(0.05)

    def _find_members(self) -> list[int]:
        group = self._process.pid
        return [number for number in list_processes() if read_group(number) == group]


def list_processes() -> list[int]:
    """Numbers of all processes."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def read_group(number: int) -> int:
    """A process's group; 0 when it is gone or has ended."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[2])


def read_pss_bytes(number: int) -> int:
    """A process's share of memory; 0 when it is gone."""
    try:
        text = Path(f"/proc/{number}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def find_free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
