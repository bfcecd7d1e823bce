"""Processes of this machine as tests watch them, from /proc."""

import os
import time
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PATIENCE_SECONDS = 30.0


def children(pid: int) -> list[int]:
    """The processes that one has started, in any of its threads, and that still are."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(word) for word in task.read_text().split()]
    return found


def resident_bytes(*pids: int) -> int:
    """Memory that processes and their children have in RAM, counted once for each that has it."""
    total, left = 0, list(pids)
    while left:
        pid = left.pop()
        left += children(pid)
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def is_there(pid: int) -> bool:
    """Whether a process is there; a zombie counts where this process is who must reap it."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" or int(parent) == os.getpid()


def wait_until_gone(*pids: int) -> None:
    """Wait until processes are no more; a process that is not ours tells nobody of its end."""
    end = time.monotonic() + PATIENCE_SECONDS
    while any(map(is_there, pids)):
        assert time.monotonic() < end, [pid for pid in pids if is_there(pid)]
        time.sleep(0.01)


def wait_for_child(pid: int) -> int:
    """Wait until a process has a child; its id."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := children(pid)):
        assert time.monotonic() < end
        time.sleep(0.001)
    return found[0]
