"""Copies of the chats: what is refused, and that nothing is changed then."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from llavachat_server.__main__ import main
from llavachat_server.chats.sql import backup
from llavachat_server.chats.sql.backup import CopyError, back_up, restore
from llavachat_server.chats.sql.database import sqlite_url
from llavachat_server.chats.sql.store import SqlStore
from store_records import make_chat, make_turn


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """One with a chat, which no server uses; its path is one that an address would misread."""
    path = tmp_path / "a?b%20" / "chats.db"
    store = SqlStore(sqlite_url(path))
    await store.begin_chat(make_chat(), make_turn(), (), None)
    store.close()
    return path


@pytest.fixture
def copy(database: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    target = tmp_path / "copy"
    assert 1 == back_up(database, target)
    return target


def list_files(folder: Path) -> dict[str, bytes]:
    """All files that are in a folder, but for the lock."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != "chats.db.lock" and path.is_file()
    }


def test_a_copy_is_one_file_for_its_owner_alone(copy: Path) -> None:
    """It needs no log beside it, and reading it makes none, be it on a medium that only reads."""
    assert 0o600 == copy.stat().st_mode & 0o777
    with closing(sqlite3.connect(copy)) as file:
        assert ("delete",) == file.execute("PRAGMA journal_mode").fetchone()


def test_nothing_is_written_over(database: Path, copy: Path) -> None:
    """Neither a copy of before nor, by a slip, the database."""
    before = list_files(copy.parent / "a?b%20") | {"copy": copy.read_bytes()}
    for target in (copy, database):
        with pytest.raises(CopyError, match="is there already; name another file"):
            back_up(database, target)
    assert before == list_files(database.parent) | {"copy": copy.read_bytes()}


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_no_copy_is_written_beside_another_ones_log(
    database: Path, tmp_path: Path, ending: str
) -> None:
    """Whoever opened the copy would take that for its own, and lose chats or find it damaged."""
    (tmp_path / f"copy{ending}").write_bytes(b"another's")
    with pytest.raises(CopyError, match=f"copy{ending} is there already; name another file"):
        back_up(database, tmp_path / "copy")
    assert {f"copy{ending}", database.parent.name} == {path.name for path in tmp_path.iterdir()}


def test_a_copy_that_finds_no_room_is_none(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of it."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(backup, "_count_chats", refuse)
    with pytest.raises(OSError, match="No space left"):
        back_up(database, tmp_path / "copy")
    assert [database.parent] == list(tmp_path.iterdir())


def test_a_copy_is_not_put_under_a_server(database: Path, copy: Path) -> None:
    """It would write on into the database that is gone."""
    store = SqlStore(sqlite_url(database))
    try:
        with pytest.raises(CopyError, match=r"a server uses .*chats\.db; stop it first"):
            restore(database, copy)
    finally:
        store.close()
    assert ["chats.db"] == list(list_files(database.parent))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("DELETE FROM alembic_version", "is no database of llavachat's"),
        ("DROP TABLE alembic_version", "is no database of llavachat's"),
        ("UPDATE alembic_version SET version_num = '9999'", "newer llavachat.* 9999"),
    ],
)
def test_what_is_no_copy_is_not_restored(database: Path, copy: Path, change: str, why: str) -> None:
    """And the database is as it was."""
    with closing(sqlite3.connect(copy)) as file, file:
        file.execute(change)
    before = list_files(database.parent)
    with pytest.raises(CopyError, match=why):
        restore(database, copy)
    assert before == list_files(database.parent)


def test_a_damaged_copy_is_not_restored(database: Path, copy: Path) -> None:
    """Also where the damage is in what nobody reads at a start, as in an index."""
    with closing(sqlite3.connect(copy)) as file:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'ix_turns_running'"
        (page,) = file.execute(query).fetchone()
    with copy.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xaa" * 4096)
    before = list_files(database.parent)
    with pytest.raises(CopyError, match="is damaged"):
        restore(database, copy)
    assert before == list_files(database.parent)
    copy.write_text("chats " * 1000)
    with pytest.raises(CopyError, match="is damaged, or no database"):
        restore(database, copy)


def test_what_was_there_is_kept_each_time(database: Path, copy: Path) -> None:
    """No copy is put in the place of one that was set aside before."""
    kept = [restore(database, copy)[1] for _ in range(2)]
    names = ["chats.db.before-restore-1", "chats.db.before-restore-2"]
    assert [database.with_name(name) for name in names] == kept
    assert {"chats.db", *names} == set(list_files(database.parent))


def test_what_is_put_aside_meets_no_other_ones_log(database: Path, copy: Path) -> None:
    """As where the one of before was removed, and its log was forgotten."""
    left = {
        f"chats.db.before-restore-{number}{ending}": b"another's"
        for number, ending in enumerate(("-wal", "-shm", "-journal"), start=1)
    }
    for name, content in left.items():
        database.with_name(name).write_bytes(content)
    before = database.read_bytes()
    assert (1, database.with_name("chats.db.before-restore-4")) == restore(database, copy)
    files = list_files(database.parent)
    del files["chats.db"]
    assert left | {"chats.db.before-restore-4": before} == files


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_what_belongs_to_the_database_of_before_goes_with_it(
    database: Path, copy: Path, ending: str
) -> None:
    """Aside, or away where it is gone itself: else it would spoil the copy."""
    for is_there in (True, False):
        database.with_name(f"chats.db{ending}").write_bytes(b"of before")
        if not is_there:
            database.unlink()
        restore(database, copy)
    names = ["chats.db", "chats.db.before-restore-1", f"chats.db.before-restore-1{ending}"]
    assert names == sorted(list_files(database.parent))


@pytest.mark.parametrize(
    ("store", "why"),
    [
        (
            "postgresql://ada:secret@127.0.0.1/chats",
            "the chats are in PostgreSQL; copy them by",
        ),
        ("memory", "memory keeps nothing"),
    ],
)
def test_what_is_elsewhere_is_not_copied(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    store: str,
    why: str,
) -> None:
    """The sentence says how it is done there."""
    monkeypatch.setenv("LLAVACHAT_STORE", store)
    assert 1 == main(["store", "backup", str(tmp_path / "copy")])
    said = capsys.readouterr()
    assert "" == said.out
    assert said.err.startswith(f"llavachat-server: store: {why}")
    assert "secret" not in said.err


@pytest.fixture
def at_a_terminal() -> Iterator[None]:
    """SIGINT is taken as there; who runs tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c(*_: object) -> None:
    """What a terminal sends, to this process."""
    signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("at_a_terminal")
@pytest.mark.parametrize("action", ["backup", "restore"])
def test_ctrl_c_is_no_stack(
    database: Path,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    action: str,
) -> None:
    """One line and the shell's exit code; nothing is left of the copy."""
    before = list_files(database.parent)
    monkeypatch.setattr(backup, "_count_chats", ctrl_c)
    file = copy.with_name("another") if action == "backup" else copy
    assert 130 == main(["store", action, str(file), "--state-folder", str(database.parent)])
    assert ("", "llavachat-server: stopped by Ctrl-C\n") == tuple(capsys.readouterr())
    assert before == list_files(database.parent)
    assert {database.parent, copy} == set(copy.parent.iterdir())


@pytest.mark.usefixtures("at_a_terminal")
def test_ctrl_c_waits_while_there_is_no_database(
    database: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server's next start would find none, and begin one without chats."""
    put_aside = backup._put_aside

    def interrupt(path: Path) -> Path | None:
        kept = put_aside(path)
        ctrl_c()
        return kept

    monkeypatch.setattr(backup, "_put_aside", interrupt)
    with pytest.raises(KeyboardInterrupt):
        restore(database, copy)
    assert {"chats.db", "chats.db.before-restore-1"} == set(list_files(database.parent))


STOPPED = """
import signal, sys, threading
from llavachat_server.__main__ import main
from llavachat_server.chats.sql import backup

name, number, handler, *words = sys.argv[1:]
work = getattr(backup, name)

is_time, has_come = threading.Event(), threading.Event()

def be_stopped():
    is_time.wait()
    signal.raise_signal(int(number))
    has_come.set()

def stop(*arguments):
    done = work(*arguments)
    is_time.set()
    has_come.wait()
    return done

setattr(backup, name, stop)
for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(ending, getattr(signal, handler))
if handler == "SIG_DFL":
    signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=be_stopped, daemon=True).start()
sys.exit(main(["store", *words]))
"""
"""The command, to which a signal comes at a certain point; another thread of it gets it, as those
of libraries do, which block none."""


def stop_at(
    step: str, number: signal.Signals, *words: str | Path, handler: str = "SIG_DFL"
) -> tuple[int, str]:
    """Run the command as `STOPPED` does; its exit code and what it says on stderr."""
    command = [sys.executable, "-c", STOPPED, step, str(int(number)), handler, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("action", ["backup", "restore"])
def test_who_is_told_to_end_leaves_nothing(
    database: Path, copy: Path, action: str, number: signal.Signals
) -> None:
    """As by a manager, or a terminal that was closed: the draft has all that was ever said."""
    before = list_files(database.parent)
    file = copy.with_name("another") if action == "backup" else copy
    told = stop_at("_count_chats", number, action, file, "--state-folder", database.parent)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert (ENDS[number], f"llavachat-server: stopped by {name}\n") == told
    assert before == list_files(database.parent)
    assert {database.parent, copy} == set(copy.parent.iterdir())


@pytest.mark.parametrize("number", ENDS)
def test_an_end_waits_while_there_is_no_database(
    database: Path, copy: Path, number: signal.Signals
) -> None:
    """Whichever thread gets it; and one that is ignored, as by nohup, changes nothing."""
    words = ("restore", copy, "--state-folder", database.parent)
    assert ENDS[number] == stop_at("_put_aside", number, *words)[0]
    assert {"chats.db", "chats.db.before-restore-1"} == set(list_files(database.parent))
    assert 0 == stop_at("_put_aside", number, *words, handler="SIG_IGN")[0]


@pytest.mark.parametrize("action", ["backup", "restore"])
def test_what_a_killed_one_left_goes_with_the_next(database: Path, copy: Path, action: str) -> None:
    """What others have is left: another target's, and that of a process that lives."""
    target = copy.with_name("another") if action == "backup" else database
    words = (action, target if action == "backup" else copy, "--state-folder", database.parent)
    assert -signal.SIGKILL == stop_at("_count_chats", signal.SIGKILL, *words)[0]
    (left,) = target.parent.glob(f".{target.name}.*.new")
    left.with_name(f"{left.name}.lock").touch()
    others = [target.with_name(".others.db.1.new")]
    others += [target.with_name(f".{target.name}.1.new")] if action == "backup" else []
    for file in others:
        file.touch()
    assert 0 == main(["store", *map(str, words)])
    hidden = {path for path in target.parent.iterdir() if path.name.startswith(".")}
    assert set(others) == hidden


def test_the_command_tells_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence on stderr, exit code 1."""
    words = ["--state-folder", str(tmp_path)]
    assert 1 == main(["store", "backup", str(tmp_path / "copy"), *words])
    assert f"llavachat-server: there is no chats.db in {tmp_path}\n" == capsys.readouterr().err
    assert 1 == main(["store", "restore", str(tmp_path / "copy"), *words])
    assert f"llavachat-server: there is no file {tmp_path}/copy\n" == capsys.readouterr().err
    (tmp_path / "chats.db").write_bytes(b"")
    assert 1 == main(["store", "backup", str(tmp_path / "no" / "copy"), *words])
    assert "No such file or directory" in capsys.readouterr().err
