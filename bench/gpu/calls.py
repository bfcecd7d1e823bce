"""Runs a module in a process of its own, and keeps what it said where it failed."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from bench.served.peers.peer import ROOT_FOLDER

TAIL_LINES = 20
_DUMP_SECONDS = 10.0
_EXCEPTION = re.compile(r"^(?!Traceback|During |The above )[A-Za-z_][\w.]*(:|$)")
"""A traceback's last line: a name that begins the line, behind ones that are set in."""


def call(log: Path, seconds: float, module: str, *words: str) -> str:
    """Run a module to its end.

    Args:
        log: what it says is added here, all of it.
        seconds: after which it is ended; the log then has the stack of each of its threads.
        module: of Python.
        words: for it.

    Returns:
        Why it failed, in a line, and the last lines that it said; or "".
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"python -m {module} {' '.join(words)}\n")
        file.flush()
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT_FOLDER,
            env={**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"},
        )
        why = _wait(process, seconds)
    if not why:
        return ""
    said = log.read_bytes()[begin:].decode(errors="replace")
    return "\n".join([f"{why}{name_exceptions(said)}", *said.splitlines()[-TAIL_LINES:]])


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> str:
    try:
        status = process.wait(seconds)
        return f"exit status {status}" if status else ""
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DUMP_SECONDS)
        return f"no end within {seconds:.0f} s"
    finally:
        # Whoever ends this process must not leave a GPU taken.
        process.kill()
        process.wait()


def name_exceptions(said: str) -> str:
    """The last exception that tracebacks end in, and the first, where that is another one.

    A step that fails reaches whoever asked as `EngineFailed`, which says nothing; what it was is in
    the traceback that was logged before.
    """
    lines, found, is_in_traceback = said.splitlines(), list[str](), False
    for line in lines:
        if line.startswith("Traceback (most recent call last)"):
            is_in_traceback = True
        elif is_in_traceback and _EXCEPTION.match(line):
            found.append(line)
            is_in_traceback = False
    if not found:
        return f": {lines[-1]}" if lines else ""
    first = "" if found[0] == found[-1] else f"; first of all {found[0]}"
    return f": {found[-1]}{first}"
