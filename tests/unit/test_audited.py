"""What the audit record says of a turn, and what is refused while it can not say it."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from audit_records import full_disk, read
from llavachat_server.chats import audited
from llavachat_server.chats.audit import AuditLog
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.errors import StoreFull, StoreUnavailable
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.record import Chat, RequestClaim
from llavachat_server.chats.store import IdleChat
from store_records import NOON, end, make_chat, make_import, make_picture, make_turn
from unsure_store import UnsureStore


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    """A record in a folder of its own."""
    log = AuditLog(tmp_path)
    yield log
    log.close()


def sha256(text: str) -> str:
    """As the record names words."""
    return hashlib.sha256(text.encode()).hexdigest()


async def test_a_turns_line_has_every_field(tmp_path: Path, log: AuditLog) -> None:
    """The whole line of a follow-up, field by field: none may be missing from an account."""
    store = AuditedStore(MemoryStore(), log)
    chat, first, picture = make_chat(), make_turn(), make_picture(1)
    await store.begin_chat(chat, first, (), None)
    await store.finish_turn("ada", chat.id, end(first))
    turn = make_turn("Is it a canary?", (picture.info,), minutes=2, parent_id=first.id)
    claim = RequestClaim("ada", "request 7", "b" * 64, chat.id, turn.id)
    await store.begin_turn("ada", chat.id, turn, (picture,), claim)
    await store.finish_turn("ada", chat.id, end(turn, "A canary, yes."))
    before, line = read(tmp_path)
    assert {
        "event": "turn",
        "time": "2026-03-01T12:03:00.123456+00:00",
        "tenant": "ada",
        "chat_id": chat.id,
        "turn_id": turn.id,
        "parent_turn_id": first.id,
        "request_id_sha256": sha256("request 7"),
        "asked_at": "2026-03-01T12:02:00.123456+00:00",
        "state": "finished",
        "finish_reason": "eos",
        "image_ids": [picture.info.id],
        "params": {
            "max_tokens": 64,
            "temperature": 0.7,
            "top_p": 0.95,
            "top_k": 40,
            "repetition_penalty": 1.1,
            "seed": 2**64 - 1,
            "stop_sha256": [sha256("###")],
        },
        "model": {
            "profile": "llava-1.5-7b",
            "name": "llava-hf/llava",
            "revision": "f" * 40,
            "quantization": "nf4",
            "weights_sha256": "e" * 64,
        },
        "device": "NVIDIA A10G",
        "library_versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "usage": {
            "text_tokens": 40,
            "image_tokens": 576,
            "cached_tokens": 500,
            "completion_tokens": 3,
            "context_left_tokens": 3400,
        },
        "prompt_sha256": sha256("Is it a canary?"),
        "answer_sha256": sha256("A canary, yes."),
        "previous": before["sha256"],
        "sha256": line["sha256"],
    } == line


async def test_a_record_behind_lets_no_turn_begin(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chat that is there goes on no more than a new one begins, and nothing of it is kept."""
    kept = MemoryStore()
    store = AuditedStore(kept, log)
    chat, other, first = make_chat(), make_chat(), make_turn()
    await store.begin_chat(chat, first, (), None)
    await store.finish_turn("ada", chat.id, end(first))
    await store.begin_chat(other, make_turn(), (), None)
    turn = make_turn(parent_id=first.id)
    claim = RequestClaim("ada", "a request", "b" * 64, chat.id, turn.id)
    with full_disk(monkeypatch):
        await store.delete_chat("ada", other.id)
        assert log.is_behind
        with pytest.raises(StoreFull):
            await store.begin_turn("ada", chat.id, turn, (), claim)
    assert (end(first),) == (await kept.get_chat("ada", chat.id)).turns
    assert None is await kept.find_claim("ada", "a request")
    await store.begin_turn("ada", chat.id, turn, (), claim)
    assert (end(first), turn) == (await kept.get_chat("ada", chat.id)).turns


@pytest.mark.parametrize("may_be_done", [True, False])
async def test_a_tombstone_is_of_what_may_be_erased(
    tmp_path: Path, log: AuditLog, *, may_be_done: bool
) -> None:
    """Where the database says that nothing has happened, the record does not say otherwise."""

    class LostStore(MemoryStore):
        """Erases nothing, and knows whether it may have."""

        async def delete_chat(self, tenant: str, chat_id: str) -> None:
            """Fail."""
            raise StoreUnavailable(1.0, may_be_done=may_be_done)

    store = AuditedStore(LostStore(), log)
    with pytest.raises(StoreUnavailable):
        await store.delete_chat("ada", "a chat")
    expected = ["erased"] if may_be_done else []
    assert expected == [line["event"] for line in read(tmp_path)]


async def test_a_request_is_remembered_until_its_turn_ends(tmp_path: Path, log: AuditLog) -> None:
    """It is in the line of the end, and then takes no memory any more."""
    store = AuditedStore(MemoryStore(), log)
    chat, turn = make_chat(), make_turn()
    claim = RequestClaim("ada", "a request", "b" * 64, chat.id, turn.id)
    await store.begin_chat(chat, turn, (), claim)
    await store.finish_turn("ada", chat.id, end(turn))
    assert {} == store._asked
    assert [sha256("a request")] == [line["request_id_sha256"] for line in read(tmp_path)]


async def test_a_request_that_may_be_kept_is_in_the_line_of_its_end(
    tmp_path: Path, log: AuditLog
) -> None:
    """The database did not say whether it began the turn; its end says whose request it was."""

    store = AuditedStore(UnsureStore(), log)
    chat, turn = make_chat(), make_turn()
    claim = RequestClaim("ada", "a request", "b" * 64, chat.id, turn.id)
    with pytest.raises(StoreUnavailable):
        await store.begin_chat(chat, turn, (), claim)
    await store.finish_turn("ada", chat.id, end(turn))
    assert [sha256("a request")] == [line["request_id_sha256"] for line in read(tmp_path)]


async def test_a_chat_that_is_retired_has_its_tombstone(tmp_path: Path, log: AuditLog) -> None:
    """As one that its owner erased; one that was used meanwhile stays, and has none."""
    store = AuditedStore(MemoryStore(), log)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    await store.finish_turn("ada", chat.id, end(turn))
    kept = await store.get_chat("ada", chat.id)
    idle = IdleChat("ada", chat.id, kept.updated_at, 1)
    assert not await store.retire_chat(replace(idle, num_turns=2))
    assert ["turn"] == [line["event"] for line in read(tmp_path)]
    assert await store.retire_chat(idle)
    _, line = read(tmp_path)
    assert ("erased", "ada", chat.id) == (line["event"], line["tenant"], line["chat_id"])


class DoubtfulStore(MemoryStore):
    """Retires a chat or does not, and does not know; then it is away for a moment."""

    def __init__(self, *, is_done: bool) -> None:
        super().__init__()
        self._is_done = is_done
        self._is_away = True

    async def retire_chat(self, idle: IdleChat) -> bool:
        """Fail."""
        if self._is_done:
            await super().retire_chat(idle)
        raise StoreUnavailable(1.0, may_be_done=True)

    async def get_opening(self, tenant: str, chat_id: str) -> Chat:
        """Fail the first time."""
        if self._is_away:
            self._is_away = False
            raise StoreUnavailable(1.0)
        return await super().get_opening(tenant, chat_id)


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_chat_that_may_be_retired_is_looked_for(
    tmp_path: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch, *, is_done: bool
) -> None:
    """Once the database answers: it has a tombstone if it is gone, and else none."""
    monkeypatch.setattr(audited, "FULL_RETRY_SECONDS", 0.0)
    store = AuditedStore(DoubtfulStore(is_done=is_done), log)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    await store.finish_turn("ada", chat.id, end(turn))
    kept = await store.get_chat("ada", chat.id)
    with pytest.raises(StoreUnavailable):
        await store.retire_chat(IdleChat("ada", chat.id, kept.updated_at, 1))
    assert store._retry is not None
    await store._retry
    expected = ["turn", "erased"] if is_done else ["turn"]
    assert expected == [line["event"] for line in read(tmp_path)]


async def test_a_chat_that_may_be_retired_and_is_then_erased_has_one_tombstone(
    tmp_path: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner's."""
    monkeypatch.setattr(audited, "FULL_RETRY_SECONDS", 0.0)
    store = AuditedStore(DoubtfulStore(is_done=False), log)
    chat, turn = make_chat(), make_turn()
    await store.begin_chat(chat, turn, (), None)
    await store.finish_turn("ada", chat.id, end(turn))
    with pytest.raises(StoreUnavailable):
        await store.retire_chat(IdleChat("ada", chat.id, NOON, 1))
    await store.delete_chat("ada", chat.id)
    assert store._retry is not None
    await store._retry
    assert ["turn", "erased"] == [line["event"] for line in read(tmp_path)]


@pytest.mark.parametrize("with_content", [False, True])
async def test_an_imports_line_has_every_turn(
    tmp_path: Path, log: AuditLog, *, with_content: bool
) -> None:
    """By the hashes of its words and pictures, and by the words where the setting says so."""
    store = AuditedStore(MemoryStore(), log, with_content=with_content)
    pictures = (make_picture(1), make_picture(2))
    chat = make_import(*pictures)
    await store.add_chat(chat, pictures)
    (line,) = read(tmp_path)
    first, second = (picture.info.id for picture in pictures)
    one, two, cut = chat.turns
    said = [
        (one, None, [first, second, first], "One?", "A cat."),
        (two, one.id, [], "Two?", "A cat."),
        (cut, one.id, [], "Or?", "I"),
    ]
    expected = [
        {
            "turn_id": turn.id,
            "parent_turn_id": parent_id,
            "image_ids": image_ids,
            "prompt_sha256": sha256(prompt),
            "answer_sha256": sha256(answer),
            **({"prompt": prompt, "answer": answer} if with_content else {}),
        }
        for turn, parent_id, image_ids, prompt, answer in said
    ]
    assert ("imported", "ada", chat.id) == (line["event"], line["tenant"], line["chat_id"])
    assert expected == line["turns"]
