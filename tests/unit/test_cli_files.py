"""Files that are replaced whole: what stays of the ones before."""

import os
import stat
import threading

import pytest
from llavachat.cli.files import replace_file


def test_a_file_is_made_as_any_other(tmp_path):
    """With the rights that new files have here, and nothing beside it."""
    usual, path = tmp_path / "usual", tmp_path / "new"
    usual.touch()
    replace_file(path, b"text")
    assert (b"text", usual.stat().st_mode) == (path.read_bytes(), path.stat().st_mode)
    assert [path, usual] == sorted(tmp_path.iterdir())


def test_a_file_that_is_there_keeps_its_mode(tmp_path):
    """One that only its owner may read stays so."""
    path = tmp_path / "private"
    path.write_bytes(b"before")
    path.chmod(0o600)
    replace_file(path, b"after")
    assert (b"after", 0o600) == (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_a_link(tmp_path, is_there):
    """What it leads to is written."""
    path, link = tmp_path / "file", tmp_path / "link"
    if is_there:
        path.write_bytes(b"before")
    link.symlink_to(path)
    replace_file(link, b"after")
    assert (True, b"after") == (link.is_symlink(), path.read_bytes())


def test_a_pipe_is_written_to(tmp_path):
    """It is still there, for whoever reads it."""
    path, told = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: told.append(path.read_bytes()))
    reader.start()
    replace_file(path, b"text")
    reader.join(10)
    assert ([b"text"], True) == (told, path.is_fifo())


def test_a_file_that_can_not_be_written_is_as_it_was(tmp_path):
    """A folder of that name here; nothing is left beside it."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "folder", b"text")
    assert [tmp_path / "folder"] == list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_private_file_is_its_owners_alone(tmp_path, mode):
    """Whatever its mode was before."""
    path = tmp_path / "file"
    if mode is not None:
        path.touch(mode)
    replace_file(path, b"text", is_private=True)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_it_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """Else a power cut could leave neither the old file nor the new one."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    found = []
    monkeypatch.setattr(os, "fsync", lambda _: found.append(path.read_bytes()))
    replace_file(path, b"after")
    assert [b"before"] == found
