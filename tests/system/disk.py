"""A small disk of its own, which a test can fill to the brim."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SIZE_BYTES = 8 * 1024**2


@dataclass(frozen=True)
class Disk:
    """A mounted file system of 8 MiB.

    Args:
        folder: where it is mounted.
    """

    folder: Path

    def fill(self) -> None:
        """Take all room that is left."""
        handle = os.open(self._ballast, os.O_CREAT | os.O_WRONLY)
        try:
            end, size = 0, SIZE_BYTES
            while size:
                try:
                    os.posix_fallocate(handle, end, size)
                    end += size
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2
            os.fsync(handle)
        finally:
            os.close(handle)

    def make_room(self) -> None:
        """Give it back."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def small_disk(kind: str, folder: Path) -> Iterator[Disk]:
    """Mount one; skips the test where that is not allowed.

    Args:
        kind: "ext4" (on a loop device) or "tmpfs".
        folder: for the image and the mount.
    """
    place, image = folder / "disk", folder / "image"
    place.mkdir()
    if kind == "ext4":
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        # No blocks are kept back for root, who runs this; and blocks as large as a disk of usual
        # size has, since with smaller ones SQLite's shared memory has holes that end a process.
        _run("mkfs.ext4", "-q", "-m", "0", "-b", "4096", str(image))
        _run("mount", "-o", "loop", str(image), str(place))
    else:
        _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "none", str(place))
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a file system can not be mounted here: {error.stderr.strip()}")
