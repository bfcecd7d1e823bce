"""A database that is away is told of once, and once more when it is back."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from app_in_process import PATIENCE_SECONDS
from llavachat_server.chats.errors import StoreUnavailable
from llavachat_server.chats.sql.outage import Outage
from llavachat_server.chats.sql.store import SqlStore
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

AWAY, BACK = "the store does not answer", "the store answers again"


def fail(connection: Connection) -> Any:
    """Ask for what the database does not have, which it tells as it tells that it is away."""
    return connection.exec_driver_sql("SELECT 1 FROM nowhere")


def work(connection: Connection) -> Any:
    """Ask for what there is."""
    return connection.exec_driver_sql("SELECT 1").scalar_one()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, bool]]:
    """Each line's level and event, and whether a stack follows."""
    return [(line.levelname, line.message, bool(line.exc_info)) for line in caplog.records]


async def test_an_outage_is_told_once(store: SqlStore, caplog: pytest.LogCaptureFixture) -> None:
    """However many ask meanwhile; it is over once reading and writing work again."""
    with caplog.at_level(logging.DEBUG, "llavachat.store"):
        reads = [store._lanes.read(fail) for _ in range(5)]
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert [StoreUnavailable] * 5 == [type(outcome) for outcome in outcomes]
        with pytest.raises(StoreUnavailable):
            await store._write(fail)
        assert 1 == await store._lanes.read(work)
        assert [("ERROR", AWAY, True)] + [("DEBUG", AWAY, False)] * 5 == told(caplog)
        assert 1 == await store._write(work)
        assert 1 == await store._write(work)
        assert ("INFO", BACK, False) == told(caplog)[-1]
        assert 7 == len(told(caplog))
        with pytest.raises(StoreUnavailable):
            await store._write(fail)
        assert ("ERROR", AWAY, True) == told(caplog)[-1]
    fields = [getattr(line, "fields", {}) for line in caplog.records]
    assert {"what": "writing", "why": "no such table: nowhere"} == fields[-1]


def test_two_who_are_answered_at_once_tell_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """Though both have found that the database did not answer."""
    both_look, num_looks = threading.Barrier(2), 0

    class Failing(set[str]):
        def __contains__(self, what: object) -> bool:
            nonlocal num_looks
            is_in = super().__contains__(what)
            num_looks += 1
            if num_looks <= 2:
                both_look.wait(PATIENCE_SECONDS)
            return is_in

    outage = Outage()
    outage._failing = Failing({"reading"})
    with (
        caplog.at_level(logging.INFO, "llavachat.store"),
        ThreadPoolExecutor(2) as readers,
    ):
        assert [None, None] == list(readers.map(outage.note_answer, ["reading"] * 2))
    assert [("INFO", BACK, False)] == told(caplog)


def test_why_is_one_line_without_values(caplog: pytest.LogCaptureFixture) -> None:
    """PostgreSQL's second one may hold what somebody said."""
    cause = Exception("the connection is lost\nDETAIL:  Key (prompt)=(canary) is there.")
    error = OperationalError("INSERT", {"prompt": "canary"}, cause, hide_parameters=True)
    Outage().note_failure("writing", error)
    (line,) = caplog.records
    assert {"what": "writing", "why": "the connection is lost"} == getattr(line, "fields", {})
