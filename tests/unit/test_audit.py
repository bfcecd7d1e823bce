"""The audit record: whole, in order, and proof against a changed byte."""

import asyncio
import errno
import hashlib
import os
from concurrent.futures import wait
from pathlib import Path

import pytest
from app_in_process import PATIENCE_SECONDS, until
from audit_records import full_disk, held_flushes, read, write
from chat_room import make_turns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llavachat_server.chats import audit, audited
from llavachat_server.chats.audit import FIRST, AuditLog, list_files, verify
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.errors import NotFound, StoreFull, StoreUnavailable
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.record import RequestClaim, Turn, TurnState
from scripted_engine import ScriptedEngine
from store_contract import StoreContract
from store_records import end, make_chat, make_import, make_picture, make_turn


def test_a_record_is_json_lines_that_verify(tmp_path: Path) -> None:
    """What was appended is there in its order, and holds together over two openings."""
    write(tmp_path, "one", "zwei")
    write(tmp_path, "trois")
    lines = read(tmp_path)
    assert ["one", "zwei", "trois"] == [line["word"] for line in lines]
    assert [FIRST, lines[0]["sha256"], lines[1]["sha256"]] == [line["previous"] for line in lines]
    finding = verify(tmp_path)
    assert (3, lines[2]["sha256"], None) == (
        finding.num_lines,
        finding.last_sha256,
        finding.fault,
    )


def test_an_empty_record_verifies(tmp_path: Path) -> None:
    """Nothing was written, nothing is wrong."""
    write(tmp_path)
    assert audit.Finding(0, FIRST) == verify(tmp_path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_altered_byte_is_found_in_its_line(tmp_path: Path, data: st.DataObject) -> None:
    """Whichever byte becomes whatever other, `verify` names the line that holds it."""
    folder = tmp_path / "record"
    if not folder.exists():
        write(folder, "one", "two", "three")
    (path,) = list_files(folder)
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != original[position]))
    altered = bytearray(original)
    altered[position] = other
    path.write_bytes(altered)
    try:
        finding = verify(folder, end_seconds=0)
        assert finding.fault is not None
        assert path == finding.file
        assert original[:position].count(b"\n") + 1 == finding.line
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("line", [0, 1])
def test_a_removed_line_is_found(tmp_path: Path, line: int) -> None:
    """A line that is gone is missed by the one after it."""
    write(tmp_path, "one", "two", "three")
    (path,) = list_files(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    finding = verify(tmp_path)
    assert (line, line + 1) == (finding.num_lines, finding.line)
    assert finding.fault is not None
    assert "removed or moved" in finding.fault


def test_files_rotate_and_hold_together(tmp_path: Path) -> None:
    """A full file is followed by another; one that goes missing is missed."""
    write(tmp_path, *"abcdefgh", max_file_bytes=500)
    files = list_files(tmp_path)
    assert len(files) > 2
    assert (8, None) == (verify(tmp_path).num_lines, verify(tmp_path).fault)
    files[1].unlink()
    assert "a file before this one is missing" == verify(tmp_path).fault


def test_lines_that_gather_share_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand lines at once take far fewer flushes, and keep their order."""
    flushes = []
    flush = os.fsync
    monkeypatch.setattr(audit.os, "fsync", lambda file: (flushes.append(file), flush(file)))
    log = AuditLog(tmp_path)
    done, late = wait([log.append({"number": number}) for number in range(1000)], PATIENCE_SECONDS)
    assert (1000, 0) == (len(done), len(late))
    log.close()
    assert list(range(1000)) == [line["number"] for line in read(tmp_path)]
    assert len(flushes) < 500


def test_who_waits_no_more_takes_nobody_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line whose sender has left is written, and those beside it are told of theirs."""
    log = AuditLog(tmp_path)
    with held_flushes(monkeypatch) as is_flushing:
        first = log.append({"word": "one"})
        assert is_flushing.wait(PATIENCE_SECONDS)
        assert not first.cancel()
        left, second = log.append({"word": "two"}), log.append({"word": "three"})
        assert left.cancel()
    for done in (first, second, log.append({"word": "four"})):
        done.result(PATIENCE_SECONDS)
    log.close()
    assert ["one", "two", "three", "four"] == [line["word"] for line in read(tmp_path)]
    assert verify(tmp_path).fault is None


async def test_an_erasure_goes_on_without_who_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller leaves while the record is written; it is written, and the engine forgets."""
    log, store, engine = AuditLog(tmp_path), MemoryStore(), ScriptedEngine()
    turns = make_turns(engine, AuditedStore(store, log))
    chat = make_chat()
    await store.add_chat(chat, ())
    with held_flushes(monkeypatch) as is_flushing:
        deleting = asyncio.create_task(turns.delete_chat("ada", chat.id))
        assert await asyncio.to_thread(is_flushing.wait, PATIENCE_SECONDS)
        deleting.cancel()
        await asyncio.wait({deleting})
        assert deleting.cancelled()
        assert [] == engine.forgotten
        stopping = asyncio.create_task(turns.stop(grace_seconds=0))
        await asyncio.sleep(0)
    await stopping
    assert [("ada", chat.id)] == engine.forgotten
    assert ["erased"] == [line["event"] for line in read(tmp_path)]
    log.close()


async def test_an_erasure_that_fails_is_forgotten_all_the_same() -> None:
    """The database is gone half-way: what became of the chat is unknown, the caches let go."""

    class GoneStore(MemoryStore):
        """Erases, and can not say so."""

        async def delete_chat(self, tenant: str, chat_id: str) -> None:
            """Do it and fail."""
            await super().delete_chat(tenant, chat_id)
            raise StoreUnavailable(1.0)

    store, engine = GoneStore(), ScriptedEngine()
    turns = make_turns(engine, store)
    chat = make_chat()
    await store.add_chat(chat, ())
    with pytest.raises(StoreUnavailable):
        await turns.delete_chat("ada", chat.id)
    assert [("ada", chat.id)] == engine.forgotten


async def test_a_full_disk_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn is refused, and so is what would add to the record, until it has found room."""
    log = AuditLog(tmp_path)
    store = AuditedStore(MemoryStore(), log)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    with full_disk(monkeypatch):
        with pytest.raises(StoreFull):
            await store.finish_turn("ada", chat.id, end(turn))
        with pytest.raises(StoreFull):
            await store.begin_chat(make_chat(), make_turn(), (), None)
        with pytest.raises(StoreFull):
            await store.find_claim("ada", "a repeat")
        assert TurnState.RUNNING is (await store.get_chat("ada", chat.id)).turns[0].state
    await store.begin_chat(make_chat(), make_turn(), (), None)
    assert end(turn) == (await store.get_chat("ada", chat.id)).turns[0]
    await store.delete_chat("ada", chat.id)
    log.close()
    assert ["turn", "erased"] == [line["event"] for line in read(tmp_path)]
    assert verify(tmp_path).fault is None


async def test_an_import_whose_record_finds_no_room_has_its_tombstone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line comes once there is room, and would say that the chat is kept."""
    log, kept = AuditLog(tmp_path), MemoryStore()
    store = AuditedStore(kept, log)
    chat = make_import(make_picture(1), make_picture(2))
    with full_disk(monkeypatch), pytest.raises(StoreFull):
        await store.add_chat(chat, (make_picture(1), make_picture(2)))
    await store.find_claim("ada", "whatever comes next")
    log.close()
    told = [(line["event"], line["chat_id"]) for line in read(tmp_path)]
    assert [("imported", chat.id), ("erased", chat.id)] == told
    with pytest.raises(NotFound):
        await kept.get_chat("ada", chat.id)


async def test_an_end_waits_for_its_record_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chat goes on once there is room, though nobody has asked anything meanwhile."""
    log = AuditLog(tmp_path)
    store = AuditedStore(MemoryStore(), log)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    monkeypatch.setattr(audited, "FULL_RETRY_SECONDS", 0.01)
    with full_disk(monkeypatch) as was_refused:
        with pytest.raises(StoreFull):
            await store.finish_turn("ada", chat.id, end(turn))
        was_refused.clear()
        assert await asyncio.to_thread(was_refused.wait, PATIENCE_SECONDS)
        assert TurnState.RUNNING is (await store.get_chat("ada", chat.id)).turns[0].state
    await until(lambda: store.get_chat("ada", chat.id), lambda kept: kept.turns[0] == end(turn))
    log.close()
    assert ["turn"] == [line["event"] for line in read(tmp_path)]


async def test_an_end_that_waited_outlives_who_would_have_kept_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller keeps the ends that waited for room and leaves half-way: all are kept at last."""

    class SlowStore(MemoryStore):
        """Keeps an end once it may."""

        def __init__(self) -> None:
            super().__init__()
            self.is_asked, self.may_keep = asyncio.Event(), asyncio.Event()

        async def finish_turn(self, tenant: str, chat_id: str, turn: Turn) -> None:
            """Wait, and do it."""
            self.is_asked.set()
            await self.may_keep.wait()
            await super().finish_turn(tenant, chat_id, turn)

    log, kept = AuditLog(tmp_path), SlowStore()
    store = AuditedStore(kept, log)
    chats, turns = [make_chat() for _ in range(2)], [make_turn() for _ in range(2)]
    for chat, turn in zip(chats, turns, strict=True):
        await store.begin_chat(chat, turn, (), None)
    with full_disk(monkeypatch):
        for chat, turn in zip(chats, turns, strict=True):
            with pytest.raises(StoreFull):
                await store.finish_turn("ada", chat.id, end(turn))
    leaving = asyncio.create_task(store.find_claim("ada", "a repeat"))
    await kept.is_asked.wait()
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    waiting = [asyncio.create_task(store.find_claim("ada", "a repeat")) for _ in range(2)]
    await asyncio.sleep(0)
    kept.may_keep.set()
    await waiting[1]
    ends = [(await store.get_chat("ada", chat.id)).turns[0] for chat in chats]
    assert [end(turn) for turn in turns] == ends
    await waiting[0]
    log.close()


async def test_a_chat_is_erased_though_its_line_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is not told that it stays; the engine forgets it; the line follows by itself."""
    log, store, engine = AuditLog(tmp_path), MemoryStore(), ScriptedEngine()
    turns = make_turns(engine, AuditedStore(store, log))
    chat = make_chat()
    await store.add_chat(chat, ())
    monkeypatch.setattr(audited, "FULL_RETRY_SECONDS", 0.01)
    with full_disk(monkeypatch):
        await turns.delete_chat("ada", chat.id)
        assert [("ada", chat.id)] == engine.forgotten
        with pytest.raises(NotFound):
            await turns.get_chat("ada", chat.id)
        assert log.is_behind

    async def has_caught_up() -> bool:
        return not log.is_behind

    await until(has_caught_up, bool)
    (line,) = read(tmp_path)
    assert ("erased", chat.id) == (line["event"], line["chat_id"])
    log.close()


async def test_the_record_is_written_before_the_end_is_kept(tmp_path: Path) -> None:
    """A server that dies in between has told nobody, and nothing is without its record."""

    class DyingStore(MemoryStore):
        """Dies at the end of a turn."""

        async def finish_turn(self, tenant: str, chat_id: str, turn: Turn) -> None:
            """Die."""
            raise SystemExit

    log = AuditLog(tmp_path)
    store = AuditedStore(DyingStore(), log)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    with pytest.raises(SystemExit):
        await store.finish_turn("ada", chat.id, end(turn))
    assert [turn.id] == [line["turn_id"] for line in read(tmp_path)]
    log.close()


def test_a_file_that_can_not_be_begun_is_begun_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is lost or doubled when the disk is full just as a file is to be followed."""
    log = AuditLog(tmp_path, max_file_bytes=10)
    log.append({"word": "one"}).result(PATIENCE_SECONDS)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(audit.os, "open", refuse)
        for word in ("two", "three"):
            with pytest.raises(OSError, match="No space"):
                log.append({"word": word}).result(PATIENCE_SECONDS)
    assert log.is_behind
    log.catch_up().result(PATIENCE_SECONDS)
    assert not log.is_behind
    log.close()
    assert ["one", "two", "three"] == [line["word"] for line in read(tmp_path)]
    assert (3, None) == (verify(tmp_path).num_lines, verify(tmp_path).fault)


def test_a_disk_that_fills_up_in_a_line_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes a part of a line and refuses the rest; readers see whole lines only."""
    log = AuditLog(tmp_path)
    log.append({"word": "one"}).result(PATIENCE_SECONDS)
    write_some = os.pwrite
    with monkeypatch.context() as patch:

        def fill_up(handle: int, data: memoryview, position: int) -> int:
            if len(data) < 80:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_some(handle, data[:20], position)

        patch.setattr(audit.os, "pwrite", fill_up)
        with pytest.raises(OSError, match="No space"):
            log.append({"word": "two"}).result(PATIENCE_SECONDS)
        assert (1, None) == (verify(tmp_path).num_lines, verify(tmp_path).fault)
    log.append({"word": "three"}).result(PATIENCE_SECONDS)
    log.close()
    assert ["one", "two", "three"] == [line["word"] for line in read(tmp_path)]
    assert (3, None) == (verify(tmp_path).num_lines, verify(tmp_path).fault)


class TestAuditedStore(StoreContract):
    """A store keeps its promises with an audit record beside it."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> AuditedStore:
        """An empty store."""
        return AuditedStore(MemoryStore(), AuditLog(tmp_path))


@pytest.mark.parametrize("with_content", [False, True])
async def test_every_turn_is_recorded_with_what_it_was_asked_under(
    tmp_path: Path, with_content: bool
) -> None:
    """The system prompt and the caller's id of the request: words as well, the follow-up's, too."""
    log = AuditLog(tmp_path)
    # As a release wrote it that named requests by the callers' words.
    log.append({"event": "turn", "request_id": "an older one"}).result(PATIENCE_SECONDS)
    store = AuditedStore(MemoryStore(), log, with_content=with_content)
    chat, first = make_chat(system_prompt="Speak of canaries."), make_turn()
    second = make_turn(parent_id=first.id)
    claims = [
        RequestClaim("ada", f"job-7/canary-{n}.png", "b" * 64, chat.id, turn.id)
        for n, turn in enumerate((first, second))
    ]
    await store.begin_chat(chat, first, (), claims[0])
    await store.finish_turn("ada", chat.id, end(first))
    await store.begin_turn("ada", chat.id, second, (), claims[1])
    await store.finish_turn("ada", chat.id, end(second))
    log.close()
    _, *lines = read(tmp_path)
    names = ("request_id", "system_prompt")
    expected = [(claim.request_id, "Speak of canaries.") for claim in claims]
    told = [tuple(line.get(name) for name in names) for line in lines]
    assert (expected if with_content else [(None, None)] * 2) == told
    hashes = [hashlib.sha256(claim.request_id.encode()).hexdigest() for claim in claims]
    assert hashes == [line["request_id_sha256"] for line in lines]
    assert with_content == ("canar" in list_files(tmp_path)[0].read_text())
    assert (3, None) == (verify(tmp_path).num_lines, verify(tmp_path).fault)


@pytest.mark.parametrize("with_content", [False, True])
async def test_a_turn_is_recorded_with_its_words_or_without(
    tmp_path: Path, with_content: bool
) -> None:
    """Who, when, with what; what was said by its hash, and itself only by the setting."""
    log = AuditLog(tmp_path)
    store = AuditedStore(MemoryStore(), log, with_content=with_content)
    picture, chat = make_picture(1), make_chat()
    turn = make_turn("Is it a canary?", (picture.info,))
    await store.begin_chat(chat, turn, (picture,), None)
    await store.finish_turn("ada", chat.id, end(turn, "A canary, yes."))
    log.close()
    (line,) = read(tmp_path)
    expected = ("ada", chat.id, turn.id, [picture.info.id], "e" * 64, 2**64 - 1)
    told = (line["tenant"], line["chat_id"], line["turn_id"], line["image_ids"])
    assert expected == (*told, line["model"]["weights_sha256"], line["params"]["seed"])
    assert with_content == ("canary" in list_files(tmp_path)[0].read_text())
