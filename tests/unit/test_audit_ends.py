"""The end of the audit record: being written, torn by a kill, or damaged."""

import errno
import threading
from concurrent.futures import wait
from pathlib import Path

import pytest
from app_in_process import PATIENCE_SECONDS
from audit_records import full_disk
from llavachat_server.chats import audit
from llavachat_server.chats.audit import AuditError, AuditLog, Lost, list_files, verify
from test_audit import read, write


def test_a_torn_line_is_taken_away_and_told(tmp_path: Path) -> None:
    """What a dying process left half-written was acknowledged to nobody."""
    write(tmp_path, "one")
    (path,) = list_files(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"event":"te')
    finding = verify(tmp_path, end_seconds=0)
    assert (1, path, 2) == (finding.num_lines, finding.file, finding.line)
    assert "the line has no end: torn, as a kill leaves the last one" in str(finding.fault)
    write(tmp_path, "two")
    lines = read(tmp_path)
    assert ["test", "repaired", "test"] == [line["event"] for line in lines]
    assert 12 == lines[1]["num_torn_bytes"]
    assert verify(tmp_path).fault is None


@pytest.mark.parametrize("is_full", [False, True])
def test_a_line_that_is_being_written_is_no_alteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Who reads half of a line waits for the rest; a disk that fills up has it taken back."""
    is_half, may_go_on = threading.Event(), threading.Event()
    write_at = audit._write_at

    def write_halves(handle: int, data: bytes, position: int) -> None:
        half = len(data) // 2
        write_at(handle, data[:half], position)
        is_half.set()
        assert may_go_on.wait(PATIENCE_SECONDS)
        if is_full:
            raise OSError(errno.ENOSPC, "full")
        write_at(handle, data[half:], position + half)

    log = AuditLog(tmp_path)
    log.append({"event": "test"}).result()
    monkeypatch.setattr(audit, "_write_at", write_halves)
    done = log.append({"event": "test"})

    def wait_a_moment(_: float) -> None:
        may_go_on.set()
        wait([done], PATIENCE_SECONDS)

    monkeypatch.setattr(audit, "sleep", wait_a_moment)
    assert is_half.wait(PATIENCE_SECONDS)
    try:
        finding = verify(tmp_path)
    finally:
        may_go_on.set()
    assert (1 if is_full else 2, None) == (finding.num_lines, finding.fault)
    monkeypatch.undo()
    log.close()
    assert (2, None) == (verify(tmp_path).num_lines, verify(tmp_path).fault)


def test_a_damaged_end_is_not_written_on(tmp_path: Path) -> None:
    """A new line behind a damaged one would hide where the damage is."""
    write(tmp_path, "one")
    (path,) = list_files(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"}\n', b'"]\n'))
    with pytest.raises(AuditError, match="damaged"):
        AuditLog(tmp_path)


def test_lines_that_a_closed_record_lacks_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their number, and why: nobody writes them any more."""
    log = AuditLog(tmp_path)
    with full_disk(monkeypatch):
        wait([log.append({"event": "test"}) for _ in range(3)], PATIENCE_SECONDS)
        assert Lost(3, "No space left on device") == log.close()
