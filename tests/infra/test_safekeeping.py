"""Whoever starts after an update that failed finds the chats in the form that its release knows."""

import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from boots import main, make_boot, make_release, say_nothing
from cloud import Cloud

from firstboot import account, safekeeping, wake  # isort: skip

VERSIONS = "llavachat_server/chats/sql/migrations/versions"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The chats' volume, of form 0001; its turn is still in the log beside the database, as a
    server that was killed leaves it."""
    written, folder = tmp_path / "written", tmp_path / "chats"
    written.mkdir()
    folder.mkdir()
    with closing(sqlite3.connect(written / "chats.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("CREATE TABLE turn (answer)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
        connection.execute("INSERT INTO turn VALUES ('a red circle')")
        for path in written.iterdir():
            shutil.copy(path, folder)
    assert 0 < (folder / "chats.db-wal").stat().st_size
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release that knows two forms."""
    return make_wheel(make_release(tmp_path / "release", ""), "0001_chats.py", "0002_more.py")


def make_wheel(release: Path, *migrations: str) -> Path:
    """Give a release a wheel with these migrations."""
    with zipfile.ZipFile(release / "llavachat-1.0-py3-none-any.whl", "w") as wheel:
        for name in (*migrations, "__init__.py"):
            wheel.writestr(f"{VERSIONS}/{name}", "")
    return release


def read(folder: Path) -> tuple[str, list[str]]:
    """The database's form, and its answers."""
    with closing(sqlite3.connect(folder / "chats.db")) as connection:
        (form,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return form, [answer for (answer,) in connection.execute("SELECT answer FROM turn")]


def migrate(folder: Path) -> None:
    """What the new release's server does as it opens the database; killed, it leaves a log."""
    with closing(sqlite3.connect(folder / "chats.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0002'")
        connection.execute("ALTER TABLE turn RENAME COLUMN answer TO words")
    (folder / "chats.db-wal").write_bytes(b"of the new one")


def test_a_copy_is_kept_for_another_form_alone(folder: Path, release: Path, tmp_path: Path) -> None:
    """Not for the same one, and not where there are no chats yet."""
    same = make_wheel(make_release(tmp_path / "same", ""), "0001_chats.py")
    safekeeping.keep(folder, same, "i-new", say_nothing)
    assert not safekeeping.is_kept(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    safekeeping.keep(empty, release, "i-new", say_nothing)
    assert [] == list(empty.iterdir())
    safekeeping.keep(folder, release, "i-new", say_nothing)
    assert safekeeping.is_kept(folder)
    assert 0o600 == (folder / safekeeping.COPY).stat().st_mode & 0o777


def test_this_trees_newest_form_is_the_servers_own(release: Path) -> None:
    """As the names of the migrations in its wheel say it."""
    from conftest import ROOT

    schema = (ROOT / "server" / "llavachat_server" / "chats" / "sql" / "schema.py").read_text()
    names = [path.name for path in (ROOT / "server" / VERSIONS).glob("[0-9]*.py")]
    form = safekeeping.read_newest_form(make_wheel(release, *names))
    assert f'HEAD = "{form}"\n' in schema


def test_what_is_put_back_is_all_that_was_committed(folder: Path, release: Path) -> None:
    """With what was only in the log, and without the new release's log."""
    safekeeping.keep(folder, release, "i-new", say_nothing)
    migrate(folder)
    safekeeping.put_back(folder, say_nothing)
    assert ["chats.db"] == [path.name for path in folder.iterdir()]
    assert ("0001", ["a red circle"]) == read(folder)


def test_putting_back_may_be_broken_off_and_done_again(
    folder: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any step: a machine may be taken away amid it."""
    for step in range(20):
        safekeeping.keep(folder, release, "i-new", say_nothing)
        left = iter(range(step))

        def interrupt(path: Path, left: "iter[int]" = left) -> None:  # type: ignore[valid-type]
            if next(left, None) is None:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(safekeeping, "sync", interrupt)
            try:
                safekeeping.put_back(folder, say_nothing)
            except KeyboardInterrupt:
                assert ("0001", ["a red circle"]) == read(folder)
            else:
                assert 2 == step
                return
        safekeeping.put_back(folder, say_nothing)
        assert ["chats.db"] == [path.name for path in folder.iterdir()]
        assert ("0001", ["a red circle"]) == read(folder)


def test_part_of_a_copy_is_not_put_back(folder: Path) -> None:
    """The machine was taken away while it copied: nothing had changed yet."""
    for name in (safekeeping.DRAFT, safekeeping.COPY, safekeeping.DRAFT + "-journal"):
        (folder / name).write_text("half")
    safekeeping.settle(folder, "i-old", say_nothing)
    assert ("0001", ["a red circle"]) == read(folder)
    assert [] == list(folder.glob(f"{safekeeping.COPY}*"))


def test_a_full_volume_is_told_before_anything_is_changed(
    folder: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is free, what is needed and what to do."""
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * 2**28))
    safekeeping.check_room(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**28))
    with pytest.raises(RuntimeError, match=r"has 0\.2 GiB free; .* needs 0\.5 GiB: make chats_gib"):
        safekeeping.keep(folder, release, "i-new", say_nothing)
    assert ("0001", ["a red circle"]) == read(folder)
    assert [] == list(folder.glob(f"{safekeeping.COPY}*"))


def test_a_copy_that_fails_leaves_nothing(folder: Path, release: Path) -> None:
    """A damaged database is told, and not started on."""
    (folder / "chats.db-wal").unlink()
    (folder / "chats.db").write_bytes(b"no database" * 1000)
    with pytest.raises(RuntimeError, match=r"chats\.db can not be read: file is not a database"):
        safekeeping.keep(folder, release, "i-new", say_nothing)
    assert [] == list(folder.glob(f"{safekeeping.COPY}*"))


def test_only_another_machine_puts_back_at_its_start(
    folder: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that made the copy may be amid its first boot; a server of its restarts by itself."""
    safekeeping.keep(folder, release, "i-new", say_nothing)
    migrate(folder)
    monkeypatch.setattr(wake, "CHATS", folder)
    monkeypatch.setattr(wake, "read_instance_id", lambda: "i-new")
    assert 0 == wake.settle()
    assert safekeeping.is_kept(folder)
    monkeypatch.setattr(wake, "read_instance_id", lambda: "i-old")
    assert 0 == wake.settle()
    assert ("0001", ["a red circle"]) == read(folder)
    # Now there is nothing to do, and the metadata service is not asked.
    monkeypatch.setattr(wake, "read_instance_id", None)
    assert 0 == wake.settle()


def test_the_next_new_machine_begins_from_the_chats_as_they_were(
    folder: Path, release: Path
) -> None:
    """The one before it was taken away; the oldest machine still knows the old form alone."""
    safekeeping.keep(folder, release, "i-gone", say_nothing)
    migrate(folder)
    safekeeping.keep(folder, release, "i-new", say_nothing)
    assert ("0001", ["a red circle"]) == read(folder)
    migrate(folder)
    safekeeping.put_back(folder, say_nothing)
    assert ("0001", ["a red circle"]) == read(folder)


MIGRATING = """
import sqlite3, sys
if sys.argv[1] != "run":
    sys.exit()
connection = sqlite3.connect({database!r})
connection.execute("UPDATE alembic_version SET version_num = '0002'")
connection.commit()
raise SystemExit({code})
"""


@pytest.mark.parametrize(("code", "form"), [(0, "0002"), (1, "0001")])
def test_a_first_boot_that_fails_after_the_change_gives_back_the_old_form(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, form: str
) -> None:
    """Before the volume goes; one that succeeds leaves no copy for anybody to go back to."""
    text = MIGRATING.format(database=str(folder / "chats.db"), code=code)
    release = make_wheel(make_release(tmp_path / "release", text), "0001_a.py", "0002_b.py")
    cloud = Cloud(i_old="running")
    monkeypatch.setattr(account, "POLL_SECONDS", 0)
    boot = make_boot(monkeypatch, release, cloud.call, folder)
    monkeypatch.setattr(main, "check_health", lambda *_: None)
    at_unmount: list[str] = []
    monkeypatch.setattr(main.volume, "unmount", lambda *_: at_unmount.append(read(folder)[0]))
    assert (code == 0) == boot.run()
    assert (form, ["a red circle"]) == read(folder)
    assert [] == list(folder.glob(f"{safekeeping.COPY}*"))
    assert ([] if code == 0 else ["0001"]) == at_unmount


def test_a_certificate_that_can_not_be_kept_leaves_the_way_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is given up last, when nothing can fail the first boot any more."""
    text = MIGRATING.format(database=str(folder / "chats.db"), code=0)
    release = make_wheel(make_release(tmp_path / "release", text), "0001_a.py", "0002_b.py")
    boot = make_boot(monkeypatch, release, Cloud(holder="").call, folder)
    monkeypatch.setattr(main, "check_health", lambda *_: None)
    monkeypatch.setattr(main.credentials, "bring", lambda *_: {"certificate": "made"})

    def refuse(*_: str) -> None:
        raise account.CallFailed("AccessDenied")

    monkeypatch.setattr(main.credentials, "write_secret", refuse)
    assert not boot.run()
    assert ("0001", ["a red circle"]) == read(folder)
