"""The thread that writes: what is owed is done at last, whatever comes between."""

import logging
import threading

import pytest
from app_in_process import PATIENCE_SECONDS
from llavachat_server.chats.errors import NotFound
from llavachat_server.chats.sql import writer
from llavachat_server.chats.sql.store import SqlStore
from sqlalchemy import Connection


def test_what_is_owed_is_kept_whatever_it_fails_with(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody thought of is told once; the work is done later, and the others meanwhile."""
    monkeypatch.setattr(writer, "OWED_RETRY_SECONDS", 0.01)
    is_broken, is_done, num_tries = True, threading.Event(), 0

    def fail(_: Connection) -> None:
        nonlocal num_tries
        num_tries += 1
        if is_broken:
            raise RuntimeError("canary")
        is_done.set()

    with caplog.at_level(logging.ERROR), pytest.raises(RuntimeError, match="canary"):
        store._writer.submit(fail, is_owed=True).result(PATIENCE_SECONDS)
    while num_tries < 3:
        assert "goes on" == store._writer.submit(lambda _: "goes on").result(PATIENCE_SECONDS)
    is_broken = False
    assert is_done.wait(PATIENCE_SECONDS)
    assert 1 == caplog.text.count("what was owed can not be written")


def test_what_is_owed_and_refuses_by_itself_is_not_tried_again(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the end of a turn whose chat was erased meanwhile."""
    monkeypatch.setattr(writer, "OWED_RETRY_SECONDS", 0.0)
    num_tries = 0

    def refuse(_: Connection) -> None:
        nonlocal num_tries
        num_tries += 1
        raise NotFound("chat", "")

    with pytest.raises(NotFound):
        store._writer.submit(refuse, is_owed=True).result(PATIENCE_SECONDS)
    for _ in range(3):
        store._writer.submit(lambda _: None).result(PATIENCE_SECONDS)
    assert 1 == num_tries
