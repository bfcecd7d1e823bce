"""A folder whose files lie in memory, where there is enough: libraries of a gigabyte come and go
faster, and other tests on this machine keep their disk."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_disk(folder: Path, room_bytes: int) -> Iterator[Path]:
    """Make the folder, and take it away again with all that is in it.

    Args:
        folder: does not exist yet.
        room_bytes: what it is to hold; twice as much must be free, or it lies on the disk.
    """
    folder.mkdir()
    memory = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()
    has_room = int(memory[0]) * 1024 > 2 * room_bytes
    if has_room:
        words = ["mount", "-t", "tmpfs", "-o", f"size={room_bytes},mode=0755", "none", str(folder)]
        subprocess.run(words, check=True)
    try:
        yield folder
    finally:
        if has_room:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()
