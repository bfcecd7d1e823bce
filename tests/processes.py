"""Processes of this machine as tests watch them, from /proc."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

PATIENCE_SECONDS = 30.0
MIB = 2**20


def children(pid: int) -> list[int]:
    """The processes that one has started, in any of its threads, and that still are."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(word) for word in task.read_text().split()]
    return found


def count_own_bytes(*pids: int) -> int:
    """Memory of their own that processes and their children have in RAM, counted once where they
    share it. Pages of files are the kernel's: how many count as whose changes with whoever else
    on the machine has the same library open."""
    total, left = 0, list(pids)
    while left:
        pid = left.pop()
        left += children(pid)
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("Pss_Anon", "Pss_Shmem"):
                    total += int(value.split()[0]) * 1024
    return total


def shared_memory_bytes(name: str) -> int:
    """Memory that this process's open shared files of a name take; it is no process's own."""
    total = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if f"memfd:{name}" in str(link.readlink()):
                total += link.stat().st_blocks * 512
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


def wait_until_stopped(pid: int) -> None:
    """Wait until a process that was sent SIGSTOP has taken notice."""
    end = time.monotonic() + PATIENCE_SECONDS
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < end
        time.sleep(0.001)


def wait_until_busy(*pids: int, seconds: float) -> None:
    """Wait until one of the processes has computed for so long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while max(map(_computed_seconds, pids)) < seconds:
        assert time.monotonic() < end
        time.sleep(0.01)


def count_sleeps(thread_id: int) -> int:
    """How often a thread of this process has gone to sleep; one more for each time it woke up."""
    status = Path(f"/proc/self/task/{thread_id}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def wait_until_asleep(thread_id: int) -> None:
    """Wait until a thread of this process sleeps, and goes on doing so for a moment."""
    end = time.monotonic() + PATIENCE_SECONDS
    num_sleeps = -1
    # One that wants to run and is not let sleeps no more often either; its state tells.
    while num_sleeps != (num_sleeps := count_sleeps(thread_id)) or not _is_asleep(thread_id):
        assert time.monotonic() < end
        time.sleep(0.1)


def _is_asleep(thread_id: int) -> bool:
    # The state, the 3rd field of proc_pid_stat(5).
    stat = Path(f"/proc/self/task/{thread_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def _computed_seconds(pid: int) -> float:
    # utime and stime, the 14th and 15th field of proc_pid_stat(5).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Gauge:
    """Reads the memory of a process and its children all the while, and keeps the most."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.most = 0

    def __enter__(self) -> "Gauge":
        self.before = self.most = count_own_bytes(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, count_own_bytes(self._pid))

    @property
    def grown_mib(self) -> float:
        """How far memory rose above what it was."""
        return (self.most - self.before) / MIB
