"""A copy of the chats takes time: what may come meanwhile, a signal or a server that writes."""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from app_in_process import PATIENCE_SECONDS
from llavachat_server.__main__ import main
from llavachat_server.chats.sql import backup
from llavachat_server.chats.sql.backup import back_up
from llavachat_server.chats.sql.database import sqlite_url
from llavachat_server.chats.sql.store import SqlStore
from store_records import make_chat, make_turn

NUM_STEPS = 20
"""Fewer than a copy of the database takes, of one page each."""


@pytest.fixture
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with a chat, which is copied page by page."""
    path = tmp_path / "state" / "chats.db"
    store = SqlStore(sqlite_url(path))
    await store.begin_chat(make_chat(), make_turn(), (), None)
    store.close()
    monkeypatch.setattr(backup, "_STEP_PAGES", 1)
    return path


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[int]]:
    """Have something done between any two steps; tells of how many pages were left then."""

    def do(work: Callable[[], None]) -> list[int]:
        left: list[int] = []

        def pause(_: int, num_left: int, __: int) -> None:
            left.append(num_left)
            work()

        monkeypatch.setattr(backup, "_pause", pause)
        return left

    return do


def stop() -> None:
    """As a manager of processes."""
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("action", ["backup", "restore"])
def test_a_copy_ends_before_it_is_done(
    database: Path,
    tmp_path: Path,
    pauses: Callable[[Callable[[], None]], list[int]],
    action: str,
) -> None:
    """Where it is told to: who manages processes kills it else, and the draft stays behind."""
    copy = tmp_path / "copy"
    back_up(database, copy)
    before = set(tmp_path.rglob("*"))
    left = pauses(stop)
    target = copy.with_name("another") if action == "backup" else copy
    assert 143 == main(["store", action, str(target), "--state-folder", str(database.parent)])
    assert 1 == len(left)
    assert left[0] > NUM_STEPS
    assert before == set(tmp_path.rglob("*"))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How looks for damage ended. The first takes long, and this process is stopped in it."""
    is_looking = threading.Event()
    ends: list[str] = []

    class Looking(sqlite3.Connection):
        """A connection that looks so."""

        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            """Begin it."""
            if not sql.startswith("PRAGMA integrity_check") or is_looking.is_set():
                return super().execute(sql, *values)
            is_looking.set()
            counting = "SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000000"
            try:
                counted = super().execute(
                    f"WITH RECURSIVE n(i) AS ({counting}) SELECT max(i) FROM n"
                )
            except sqlite3.OperationalError as error:
                ends.append(str(error))
                raise
            ends.append("it was done")
            return counted

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *words, **more: connect(*words, factory=Looking, **more)
    )

    def stop_looking() -> None:
        assert is_looking.wait(PATIENCE_SECONDS)
        stop()

    threading.Thread(target=stop_looking).start()
    return ends


def test_the_look_for_damage_ends_as_well(database: Path, tmp_path: Path, looks: list[str]) -> None:
    """SQLite looks in one call; it is interrupted."""
    words = ("backup", str(tmp_path / "copy"), "--state-folder", str(database.parent))
    assert 143 == main(["store", *words])
    assert ["interrupted"] == looks
    assert [] == [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_program_that_goes_on_has_its_copy(
    database: Path, tmp_path: Path, looks: list[str]
) -> None:
    """Its own handler took the signal: nothing is damaged for that."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        assert 1 == back_up(database, tmp_path / "copy")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ([signal.SIGTERM], ["interrupted"]) == (came, looks)


def test_a_copy_beside_a_server_that_writes_is_of_one_moment(
    database: Path, tmp_path: Path, pauses: Callable[[Callable[[], None]], list[int]]
) -> None:
    """That in which it was begun; it goes on, where it would begin anew at each step."""
    copy = tmp_path / "copy"
    with closing(sqlite3.connect(database)) as server:
        server.execute("PRAGMA journal_mode = WAL")

        def write() -> None:
            assert len(left) < 10 * NUM_STEPS
            with server:
                server.execute("UPDATE chats SET updated_at = updated_at + 1")

        query = "SELECT updated_at FROM chats"
        (begun_at,) = server.execute(query).fetchone()
        left = pauses(write)
        assert 1 == back_up(database, copy)
        assert sorted(left, reverse=True) == left
        assert len(left) > NUM_STEPS
        assert (begun_at + len(left),) == server.execute(query).fetchone()
    with closing(sqlite3.connect(copy)) as copied:
        assert (begun_at,) == copied.execute(query).fetchone()
