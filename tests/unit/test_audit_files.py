"""The audit record's folder and files: whose they are, who may read them, and what lasts."""

import os
from pathlib import Path

import pytest
from app_in_process import PATIENCE_SECONDS
from audit_records import full_disk, read
from llavachat_server.chats.audit import AuditError, AuditLog, list_files, verify


def test_a_folder_belongs_to_one_log(tmp_path: Path) -> None:
    """Two writers would break each other's chain; once the first is closed another may write."""
    log = AuditLog(tmp_path)
    with pytest.raises(AuditError) as caught:
        AuditLog(tmp_path)
    expected = f"audit: another server uses {tmp_path}; stop it, or set another state_folder"
    assert expected == str(caught.value)
    log.append({"word": "one"}).result(PATIENCE_SECONDS)
    log.close()
    again = AuditLog(tmp_path)
    again.append({"word": "two"}).result(PATIENCE_SECONDS)
    again.close()
    assert ["one", "two"] == [line["word"] for line in read(tmp_path)]
    assert None is verify(tmp_path).fault


def test_nobody_else_may_read_the_record(tmp_path: Path) -> None:
    """Its folder and files are their owner's, also where a process lets everybody read."""
    folder = tmp_path / "audit"
    mask = os.umask(0o022)
    try:
        log = AuditLog(folder, max_file_bytes=10)
        for word in ("one", "two"):
            log.append({"word": word}).result(PATIENCE_SECONDS)
        log.close()
    finally:
        os.umask(mask)
    files = list_files(folder)
    assert 2 == len(files)
    assert 0o700 == folder.stat().st_mode & 0o777
    assert [0o600, 0o600] == [path.stat().st_mode & 0o777 for path in files]


def test_lines_that_found_no_room_are_written_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops when there is room again leaves none of them behind."""
    log = AuditLog(tmp_path)
    with full_disk(monkeypatch):
        for word in ("one", "two"):
            with pytest.raises(OSError, match="No space"):
                log.append({"word": word}).result(PATIENCE_SECONDS)
    assert [] == read(tmp_path)
    log.close()
    assert ["one", "two"] == [line["word"] for line in read(tmp_path)]


def test_the_name_of_a_new_file_is_on_the_disk_before_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else a file with lines that were told to be there could be gone after a power cut."""
    flushed: list[int] = []
    flush = os.fsync

    def note(file: int) -> None:
        flushed.append(os.fstat(file).st_ino)
        flush(file)

    monkeypatch.setattr(os, "fsync", note)
    log = AuditLog(tmp_path, max_file_bytes=10)
    for word in ("one", "two"):
        log.append({"word": word}).result(PATIENCE_SECONDS)
    log.close()
    folder = tmp_path.stat().st_ino
    first, second = (path.stat().st_ino for path in list_files(tmp_path))
    assert [folder, first, folder, second] == flushed
