"""What an installation does, said and timed, step by step; and programs run on its behalf.

Each line goes to the terminal and to the log file. A program's output is shown only if it fails.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

TAIL_LINES = 15


class HostError(Exception):
    """The host can not be brought to what was asked for. The message says why and what to do."""


class InstallationRuns(HostError):
    """Another installation, or what one that failed left behind, holds the lock."""


_UNFINISHED = "an installation that failed or was killed"

_handed_on: list[int] = []
"""Descriptors that each program gets, so that what it holds is held until the program has ended."""


class Steps:
    """The account of one run.

    Args:
        log: file to add to; None where there is no right to write one.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._began = time.monotonic()
        self._log = log
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """One line."""
        line = f"{time.monotonic() - self._began:7.1f} s  {text}"
        print(line, flush=True)  # noqa: T201
        if self._log is not None:
            stamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            # A full disk is told about by the step that needs it, not by the log.
            try:
                with self._log.open("a") as file:
                    file.write(f"{stamp} {line}\n")
            except OSError:
                self._log = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step with its time; a failure is told with the step's name."""
        began = time.monotonic()
        self.say(f"{name} ...")
        try:
            yield
        except BaseException:
            self.say(f"{name}: FAILED after {time.monotonic() - began:.1f} s")
            raise
        self.say(f"{name}: done in {time.monotonic() - began:.1f} s")


def run(
    words: Sequence[str | Path],
    *,
    failure: str,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float | None = None,
) -> str:
    """Run a program to its end.

    Args:
        words: program and arguments.
        failure: what it means if the program fails; begins the error's message.
        environment: all of its variables; None for this process's own.
        timeout_seconds: the longest it may take.

    Returns:
        What it wrote on stdout.

    Raises:
        HostError: it failed; with the last lines that it wrote.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            [str(word) for word in words],
            capture_output=True,
            text=True,
            env=environment,
            timeout=timeout_seconds,
            check=False,
            pass_fds=_handed_on,
        )
    except FileNotFoundError as error:
        raise HostError(f"{failure}: {words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{failure}: no end after {timeout_seconds:.0f} s") from error
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:]
        said = "".join(f"\n    {line}" for line in lines)
        raise HostError(f"{failure} ({Path(str(words[0])).name}: exit {done.returncode}){said}")
    return done.stdout


def probe(words: Sequence[str | Path]) -> str | None:
    """What a program writes on stdout; None if it is absent or fails."""
    try:
        return run(words, failure="", timeout_seconds=60)
    except HostError:
        return None


def warn(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def hold_lock(path: Path, steps: Steps | None = None) -> Iterator[None]:
    """One installation at a time.

    An installer that is killed leaves the program behind that it had begun, pip for one, which goes
    on writing into the folder that the next installer would begin anew. So there are two locks: one
    of the installer alone, and one that its programs hold with it.

    Args:
        path: file of the installer's lock; that of its programs lies beside it.
        steps: tells of the wait for what a killed installer left at work; None: do not wait.

    Raises:
        InstallationRuns: another one is at work.
    """
    with path.open("w") as own, path.with_name(path.name + ".programs").open("w") as shared:
        if not _take(own):
            raise InstallationRuns("another installation is at work on this machine")
        if not _take(shared):
            if steps is None:
                raise InstallationRuns(f"{_UNFINISHED} has left a program at work")
            with steps.step(f"waiting for what {_UNFINISHED} has left at work"):
                fcntl.flock(shared, fcntl.LOCK_EX)
        _handed_on.append(shared.fileno())
        try:
            yield
        finally:
            _handed_on.remove(shared.fileno())
        # For all who share it: what a program leaves in the background, where all went well, holds
        # up nobody. What is left of an installation that did not is at work on its folders.
        fcntl.flock(shared, fcntl.LOCK_UN)


def _take(file: IO[str]) -> bool:
    """Lock a file unless somebody holds its lock; whether it is ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
