"""Too little memory for the server: the kernel is to end it, by its own rules and its own hand.

By systemd where the container has a memory controller; where the machine keeps that in the old
hierarchy, which containers are not given, by a group of the machine's own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from host import SERVICE, Host

OLD_HIERARCHY = Path("/sys/fs/cgroup/memory")
OLD_LIMIT_BYTES = 2**20
"""Beyond what it has already, which stays charged to the group that it came from."""


@contextmanager
def squeeze(host: Host) -> Iterator[Callable[[], bool]]:
    """Let memory run out, as long as the block lasts.

    Yields:
        A function that tells whether the kernel has killed for want of memory.
    """
    used = host.read_property("MemoryCurrent")
    if used.isdecimal():
        yield from _squeeze_by_systemd(host, int(used) // 2)
    else:
        yield from _squeeze_by_old_group(host.machine.find_process(host.process_id))


def _squeeze_by_systemd(host: Host, limit_bytes: int) -> Iterator[Callable[[], bool]]:
    def has_killed() -> bool:
        return "Failed with result 'oom-kill'" in host.machine.read_journal("-u", SERVICE, "-b")

    words = ("systemctl", "set-property", "--runtime", SERVICE)
    host.machine.run(*words, f"MemoryMax={limit_bytes}")
    try:
        yield has_killed
    finally:
        host.machine.run(*words, "MemoryMax=infinity")


def _squeeze_by_old_group(process: int) -> Iterator[Callable[[], bool]]:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    (path,) = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == "memory"]
    group = OLD_HIERARCHY / path.lstrip("/") / f"llavachat-test-{process}"
    group.mkdir()

    def has_killed() -> bool:
        counts = dict(
            line.split() for line in (group / "memory.oom_control").read_text().splitlines()
        )
        return int(counts["oom_kill"]) > 0

    try:
        (group / "memory.limit_in_bytes").write_text(str(OLD_LIMIT_BYTES))
        (group / "cgroup.procs").write_text(str(process))
        yield has_killed
    finally:
        group.rmdir()
