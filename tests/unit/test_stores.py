"""What the settings ask for is opened, and refused in one sentence where it can not be."""

import errno
import fcntl
import json
import logging
from datetime import datetime
from pathlib import Path

import pytest
from app_in_process import until
from llavachat_server.__main__ import main
from llavachat_server.chats import audit
from llavachat_server.chats.audit import list_files, verify
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.record import TurnState
from llavachat_server.chats.sql import writer, writing
from llavachat_server.chats.sql.store import SqlStore
from llavachat_server.flags import SettingsError
from llavachat_server.folders import find_state_folder
from llavachat_server.settings import Settings, load
from llavachat_server.stores import StoreNotOpened, audit_folder, open_store
from setting_sources import forget_settings
from sqlalchemy import Connection
from store_records import end, make_chat, make_turn


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment that the tests run in."""
    forget_settings(monkeypatch)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def test_the_state_folder_is_systemds_or_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting wins over systemd's folder, that over the user's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    assert tmp_path / "home" / "llavachat" == find_state_folder(load([]))
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/unit:{tmp_path}/other")
    assert tmp_path / "unit" == find_state_folder(load([]))
    assert tmp_path == find_state_folder(load(["--state-folder", str(tmp_path)]))


@pytest.mark.parametrize("mode", ["hashes", "content"])
def test_a_record_that_erasing_leaves_words_in_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """At the start, and only then: `hashes` keeps none."""
    with caplog.at_level(logging.WARNING):
        open_store(load(["--state-folder", str(tmp_path), "--audit", mode])).close()
    event = "the audit record keeps what is said, also of chats that are erased"
    assert (mode == "content") == (event in caplog.text)


async def test_by_default_chats_last_and_are_accounted_for(tmp_path: Path) -> None:
    """A file in the state folder, and an audit record beside it; a cut turn is in both."""
    settings = load(["--state-folder", str(tmp_path)])
    opened = open_store(settings)
    chat, turn = make_chat(), make_turn()
    await opened.store.begin_chat(chat, turn, (), None)
    await opened.store.finish_turn("ada", chat.id, end(turn))
    await opened.store.begin_turn("ada", chat.id, make_turn(), (), None)
    opened.close()
    again = open_store(settings)
    try:
        assert isinstance(again.store, AuditedStore)
        assert end(turn) == (await again.store.get_chat("ada", chat.id)).turns[0]
    finally:
        again.close()
    assert (2, None) == (verify(audit_folder(settings)).num_lines, verify(tmp_path / "audit").fault)
    assert "A cat." not in (tmp_path / "audit" / "audit-000001.jsonl").read_text()


@pytest.mark.parametrize("name", ["a?b", "50%25", "x#y", "a?timeout=1&x=y", "with space"])
def test_a_folder_of_any_name_has_its_chats(tmp_path: Path, name: str) -> None:
    """The path is no address: nothing in it is read as one, and nothing lies beside it."""
    open_store(load(["--state-folder", str(tmp_path / name), "--audit", "off"])).close()
    assert [name] == [path.name for path in tmp_path.iterdir()]
    assert {"chats.db", "chats.db.lock"} == {path.name for path in (tmp_path / name).iterdir()}


@pytest.mark.parametrize("audit_mode", ["off", "hashes"])
@pytest.mark.parametrize("inner", ["", "state"])
def test_a_state_folder_that_leads_to_nothing_is_told(
    tmp_path: Path, audit_mode: str, inner: str
) -> None:
    """As that of a volume which is not mounted; nothing is made in its place."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "volume")
    settings = load(["--state-folder", str(link / inner), "--audit", audit_mode])
    with pytest.raises(StoreNotOpened) as caught:
        open_store(settings)
    expected = f"{link} leads to nothing ({tmp_path}/volume); is its volume mounted?"
    assert f"state_folder: {expected}" == str(caught.value)
    assert [link] == list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_looked_at_is_told(tmp_path: Path) -> None:
    """By the sentence of who opens it."""
    with pytest.raises(StoreNotOpened, match=r"^audit: .*: File name too long$"):
        open_store(load(["--state-folder", str(tmp_path / ("x" * 300))]))


def test_a_folder_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on a network; the system's error names no file."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreNotOpened) as caught:
        open_store(load(["--state-folder", str(tmp_path)]))
    assert f"audit: {tmp_path}/audit: No locks available" == str(caught.value)


def test_nobody_else_can_open_what_is_kept(tmp_path: Path) -> None:
    """Nor the locks, which whoever can read may hold; those of earlier releases neither."""
    settings = load(["--state-folder", str(tmp_path)])
    tmp_path.chmod(0o755)
    (tmp_path / "audit").mkdir()
    locks = [tmp_path / "chats.db.lock", tmp_path / "audit" / "lock"]
    for lock in locks:
        lock.touch()
        lock.chmod(0o644)
    opened = open_store(settings)
    try:
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        modes = {path: path.stat().st_mode & 0o777 for path in files}
    finally:
        opened.close()
    assert {*locks, tmp_path / "chats.db"} < modes.keys()
    assert {0o600} == {*modes.values()}, modes


async def begin_and_die(settings: Settings) -> tuple[str, str]:
    """A turn that runs when its server ends; the ids of its chat and of itself."""
    opened = open_store(settings)
    chat, turn = make_chat(), make_turn()
    await opened.store.begin_chat(chat, turn, (), None)
    opened.close()
    return chat.id, turn.id


def read_lines(settings: Settings) -> list[tuple[str, str]]:
    """Events of the audit record, and their turns."""
    lines = list_files(audit_folder(settings))[0].read_text().splitlines()
    return [(line["event"], line["turn_id"]) for line in map(json.loads, lines)]


async def test_a_cut_turn_is_recorded_before_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that dies in between does not leave an ended turn without any line."""
    settings = load(["--state-folder", str(tmp_path)])
    _, turn_id = await begin_and_die(settings)
    told: list[list[tuple[str, str]]] = []
    cancel_running = writing.cancel_running

    def cancel(connection: Connection, now: datetime) -> None:
        told.append(read_lines(settings))
        cancel_running(connection, now)

    monkeypatch.setattr(writing, "cancel_running", cancel)
    open_store(settings).close()
    assert [[("cut", turn_id)]] == told


async def test_a_cut_turn_waits_for_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the record has no room the turn is not ended; both happen by themselves later, once."""
    monkeypatch.setattr(writer, "OWED_RETRY_SECONDS", 0.01)
    settings = load(["--state-folder", str(tmp_path)])
    chat_id, turn_id = await begin_and_die(settings)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(audit, "_write_at", refuse)
        opened = open_store(settings)
        (kept,) = (await opened.store.get_chat("ada", chat_id)).turns
        assert TurnState.RUNNING is kept.state
    try:
        await until(
            lambda: opened.store.get_chat("ada", chat_id),
            lambda chat: chat.turns[0].state is TurnState.CANCELLED,
        )
        assert [("cut", turn_id)] == read_lines(settings)
    finally:
        opened.close()


def test_memory_writes_nothing(tmp_path: Path) -> None:
    """No file, no folder, no record."""
    folder = tmp_path / "state"
    opened = open_store(load(["--store", "memory", "--state-folder", str(folder)]))
    opened.close()
    assert isinstance(opened.store, MemoryStore)
    assert not folder.exists()


def test_the_record_may_be_left_out(tmp_path: Path) -> None:
    """`--audit off` keeps chats alone."""
    opened = open_store(load(["--state-folder", str(tmp_path), "--audit", "off"]))
    opened.close()
    assert isinstance(opened.store, SqlStore)
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    ("mode", "taken"), [("off", "store: another server"), ("hashes", "audit: another server")]
)
def test_a_folder_in_use_is_refused(tmp_path: Path, mode: str, taken: str) -> None:
    """By the first thing that is taken; and the first server's is left as it is."""
    settings = load(["--state-folder", str(tmp_path), "--audit", mode])
    opened = open_store(settings)
    try:
        with pytest.raises(StoreNotOpened, match=f"^{taken} uses"):
            open_store(settings)
    finally:
        opened.close()


@pytest.mark.parametrize("store", ["disk", "mysql://x/y", "postgresql://", "sqlite:///x"])
def test_a_store_that_is_none_is_refused(store: str) -> None:
    """The sentence says what is allowed."""
    with pytest.raises(SettingsError, match="allowed: memory, sqlite, or postgresql://"):
        load(["--store", store])


def test_the_audit_command_tells_whole_from_altered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code and words: whole, altered, absent, wrong use."""
    folder = tmp_path / "audit"
    assert 1 == main(["audit", "verify", str(folder)])
    assert "there is no audit record" in capsys.readouterr().err
    open_store(load(["--state-folder", str(tmp_path)])).close()
    assert 0 == main(["audit", "verify", str(folder)])
    assert capsys.readouterr().out.startswith("0 lines, nothing altered")
    (folder / "audit-000001.jsonl").write_text('{"event":"turn"}\n')
    assert 1 == main(["audit", "verify", str(folder)])
    assert "line 1, from byte 0" in capsys.readouterr().out
    assert 2 == main(["audit"])
    assert 2 == main(["audit", "repair"])
    assert "usage: llavachat-server audit verify" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["verify", "--help"]])
def test_the_audit_command_has_a_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, as it was asked for, and with more than the usage."""
    assert 0 == main(["audit", *words])
    shown = capsys.readouterr()
    assert "" == shown.err
    assert shown.out.startswith("usage: llavachat-server audit verify [FOLDER]\n\nSay whether")
