"""Files that are written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest
from llavachat_server.drafts import draft_of


def list_files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    """Until then a reader finds what was there before."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with draft_of(path) as draft:
        draft.write(b"after")
        draft.flush()
        assert b"before" == path.read_bytes()
    assert {"file": b"after"} == list_files(tmp_path)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_folder_as_it_was(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """A full disk, or Ctrl-C; a private key's draft would stay for good."""
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def write() -> None:
        with draft_of(path) as draft:
            draft.write(b"after")
            raise error

    with pytest.raises(error):
        write()
    assert {"file": b"before"} == list_files(tmp_path)


def test_a_disk_that_fails_at_the_end_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that tells only then that it has no room."""

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"), draft_of(tmp_path / "file") as draft:
        draft.write(b"after")
    assert {} == list_files(tmp_path)


def test_what_can_be_made_again_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It need not be on the disk."""
    monkeypatch.delattr(os, "fsync")
    with draft_of(tmp_path / "file", is_lasting=False) as draft:
        draft.write(b"after")
    assert {"file": b"after"} == list_files(tmp_path)


def test_nobody_else_can_ever_read_it(tmp_path: Path) -> None:
    """From its first byte on, whatever was there before."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o644)
    with draft_of(path) as draft:
        assert 0o600 == stat.S_IMODE(os.fstat(draft.fileno()).st_mode)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_two_that_write_at_once_keep_apart(tmp_path: Path) -> None:
    """The last one to end wins, whole."""
    path = tmp_path / "file"
    with draft_of(path) as first, draft_of(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert {"file": b"first"} == list_files(tmp_path)
