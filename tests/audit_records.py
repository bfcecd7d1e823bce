"""Audit records that tests write and read, and disks that trouble their writer."""

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from app_in_process import PATIENCE_SECONDS
from llavachat_server.chats.audit import AuditLog, list_files


def write(folder: Path, *words: str, **options: int) -> None:
    """A record of so many lines."""
    log = AuditLog(folder, **options)
    for word in words:
        log.append({"event": "test", "word": word}).result(PATIENCE_SECONDS)
    log.close()


def read(folder: Path) -> list[dict[str, object]]:
    """All lines of a record."""
    text = "".join(path.read_text() for path in list_files(folder))
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def held_flushes(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """No line reaches the disk inside the block; the event says that one is about to."""
    is_flushing, may_flush = threading.Event(), threading.Event()
    flush = os.fsync

    def hold(file: int) -> None:
        is_flushing.set()
        assert may_flush.wait(PATIENCE_SECONDS)
        flush(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", hold)
        try:
            yield is_flushing
        finally:
            may_flush.set()


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The disk has no room inside the block; the event says that a line has been refused."""
    was_refused = threading.Event()

    def refuse(file: int) -> None:
        was_refused.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        yield was_refused
