"""What gives way to a copy of the weights on a disk that is nearly full, and what does not."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.shelf import Copy, Shelf

KIND = "int8"
OLD, NEW = {"torch": "1"}, {"torch": "2"}
COPY_BYTES = 14_000
DISK_BYTES = 25_000
"""Room for one copy and what is to stay free beside it, and not for two."""
USAGE = shutil.disk_usage("/")


class Disk:
    """A checkpoint, a shelf, and a disk that is as large as a test wants it."""

    def __init__(self, folder: Path) -> None:
        self.num_bytes = DISK_BYTES
        self.source = folder / "source"
        self.source.mkdir()
        (self.source / "model.safetensors").write_text("weights")
        self.folder = folder / "shelf"
        self.folder.mkdir()
        self.shelf = Shelf(self.folder)

    def measure(self, _: Path) -> Any:
        """In place of `shutil.disk_usage`."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        used = sum(path.stat().st_size for path in files)
        return USAGE._replace(free=self.num_bytes - used)

    def keep(self, form: dict[str, str], meanwhile: Any = lambda: None) -> bool:
        """Keep a copy; `meanwhile` is called while it is written."""

        def write(folder: Path) -> None:
            (folder / "weights").write_bytes(b"w" * COPY_BYTES)
            meanwhile()

        return self.shelf.keep(KIND, self.source, form, "hash", COPY_BYTES, write)

    def find(self, form: dict[str, str]) -> Copy | None:
        """A copy that fits."""
        return self.shelf.find(KIND, self.source, form)

    def list_names(self) -> list[str]:
        """What lies on the shelf."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Nothing is kept yet."""
    disk = Disk(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", disk.measure)
    return disk


def test_what_a_killed_server_left_gives_way(disk: Disk) -> None:
    """It is nobody's, and took the room for every copy after it."""
    left = disk.folder / f".{KIND}-0"
    left.mkdir()
    (left / "weights").write_bytes(b"w" * 10_000)

    assert disk.keep(NEW)
    assert [KIND] == disk.list_names()


def test_what_could_not_be_written_leaves_nothing(disk: Disk) -> None:
    """The disk filled up half-way, and is not to stay full; nor is the last copy lost by it."""
    disk.num_bytes = 10 * DISK_BYTES
    disk.keep(OLD)

    def fill_up() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert not disk.keep(NEW, fill_up)
    assert [KIND] == disk.list_names()
    assert disk.find(OLD) is not None


def test_what_another_server_is_writing_stays(disk: Disk) -> None:
    """Both copies become whole, and the one that is whole last is kept."""
    disk.num_bytes = 10 * DISK_BYTES
    were_kept: list[bool] = []
    were_kept.append(disk.keep(OLD, lambda: were_kept.append(disk.keep(NEW))))

    assert [True, True] == were_kept
    assert disk.find(OLD) is not None


def test_a_copy_that_fits_no_more_gives_way(disk: Disk) -> None:
    """After an update of a library it would be replaced, and there is not room for both."""
    assert disk.keep(OLD)

    assert disk.keep(NEW)
    assert disk.find(NEW) is not None


def test_a_copy_stays_until_its_successor_is_whole(disk: Disk) -> None:
    """Where there is room for both."""
    disk.num_bytes = 10 * DISK_BYTES
    found: list[Copy | None] = []
    disk.keep(OLD)
    disk.keep(NEW, lambda: found.append(disk.find(OLD)))

    assert found[0] is not None
    assert [KIND] == disk.list_names()


def test_a_copy_that_is_in_use_stays(disk: Disk) -> None:
    """Another server reads it: its room would not even be free."""
    disk.keep(OLD)
    copy = disk.find(OLD)
    fingerprint = Fingerprint(disk.source, copy)

    assert not disk.keep(NEW)
    assert copy == disk.find(OLD)
    assert fingerprint.has_whole_copy()


def test_a_copy_that_fits_stays(disk: Disk) -> None:
    """Another server has just made it."""
    disk.keep(NEW)

    assert not disk.keep(NEW)
    assert disk.find(NEW) is not None


def test_what_would_not_make_room_enough_stays(disk: Disk) -> None:
    """Without a gain nothing is given up."""
    disk.keep(OLD)
    disk.num_bytes = 17_000

    assert not disk.keep(NEW)
    assert disk.find(OLD) is not None


def test_weights_that_are_fetched_again_are_the_same(disk: Disk) -> None:
    """In the hub's cache by the name of their content, when a disk was emptied meanwhile."""
    contents = disk.source.parent / "blobs"
    contents.mkdir()
    weights = disk.source / "model.safetensors"
    for number, name in enumerate(("a1", "a1", "b2")):
        (contents / name).write_text("weights")
        os.utime(contents / name, (number, number))
        weights.unlink()
        weights.symlink_to(Path("..") / "blobs" / name)
        if number == 0:
            disk.keep(OLD)
        assert (name == "a1") == (disk.find(OLD) is not None)


def test_a_file_that_was_written_again_is_another(disk: Disk) -> None:
    """In a folder, where nothing tells its content."""
    disk.keep(OLD)
    os.utime(disk.source / "model.safetensors", (1, 1))

    assert disk.find(OLD) is None
