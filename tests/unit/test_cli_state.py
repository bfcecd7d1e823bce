"""What the command line remembers: its own, whole or not at all, and no reason to fail."""

import os
from pathlib import Path

import pytest
from llavachat.cli.state import find_history_file, read_last_chat, write_last_chat


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state's folder, which is not there yet."""
    folder = tmp_path / "state"
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(folder))
    return folder


def test_each_server_has_its_last_chat(folder: Path) -> None:
    """None of one that was not asked yet, or whose chat was forgotten; the others' stay."""
    assert None is read_last_chat("a:1")
    write_last_chat("a:1", "one")
    write_last_chat("b:1", "two")
    write_last_chat("a:1", "three")
    assert ("three", "two") == (read_last_chat("a:1"), read_last_chat("b:1"))
    write_last_chat("a:1", None)
    assert (None, "two") == (read_last_chat("a:1"), read_last_chat("b:1"))


@pytest.mark.parametrize("make", [find_history_file, lambda: write_last_chat("a:1", "one")])
def test_nobody_else_may_read_it(folder: Path, make: object) -> None:
    """What somebody typed is in there, also where a process lets everybody read."""
    mask = os.umask(0o022)
    try:
        make()  # type: ignore[operator]
    finally:
        os.umask(mask)
    assert 0o700 == folder.stat().st_mode & 0o777
    assert {0o600} >= {path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_what_can_not_be_kept_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up costs the new chat, not the last one, and leaves no half of a file."""
    write_last_chat("a:1", "one")
    before = sorted(folder.iterdir())

    def fill_up(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_up)
        write_last_chat("a:1", "two")
    assert before == sorted(folder.iterdir())
    assert "one" == read_last_chat("a:1")


def test_a_folder_that_can_not_be_made_is_no_reason_to_fail(folder: Path) -> None:
    """There is then no last chat, and no history."""
    folder.write_text("a file")
    write_last_chat("a:1", "one")
    assert (None, None) == (read_last_chat("a:1"), find_history_file())


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a:1": 7}', b"\xff"])
def test_a_state_that_is_none_is_no_last_chat(folder: Path, content: bytes) -> None:
    """Whoever wrote it."""
    folder.mkdir()
    (folder / "last-chats.json").write_bytes(content)
    assert None is read_last_chat("a:1")
