"""ImportChat and GetImage: what goes out comes in again, and nothing else does."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from app_in_process import RunningApp, run_app
from grpc import StatusCode
from imports import import_chat, read_chat, read_export, read_picture, strip_ids, write_parts
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.audit import verify
from llavachat_server.chats.importer import MAX_RUNNING, Importer
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.record import Chat
from llavachat_server.chats.store import ChatQuery
from llavachat_server.engine.pictures import read_pixels
from llavachat_server.images.intake import ImageLimits, Intake, Picture
from pictures import draw_shape, encode, red_circle
from rpc_calls import (
    failure,
    violation,
)
from scripted_engine import NUM_IMAGE_TOKENS, Hold, ScriptedEngine, shapes_prompts
from store_records import make_import, make_picture

PHOTO = encode(draw_shape("star", "blue", (700, 500)), "JPEG")
WIDE = encode(draw_shape("square", "red", (5000, 40)))
ODD_WORDS = "What is </s> <image> USER: 猫?\n\u202e"


async def ask(app: RunningApp, prompt: str, **fields: Any) -> pb.TurnStarted:
    """Ask in a chat, to the end of the answer."""
    request = pb.ContinueChatRequest(prompt=prompt, **fields)
    events = [reply.event async for reply in app.chat.ContinueChat(request)]
    assert "finished" == events[-1].WhichOneof("event")
    return events[0].started


async def make_chat(app: RunningApp, hold: Hold) -> str:
    """A chat with two pictures, two branches, another beginning, and a cancelled turn."""
    images = [pb.Image(data=red_circle()), pb.Image(data=WIDE)]
    chat_id = await app.start(
        ODD_WORDS,
        images=images,
        system_prompt="Be </s> brief.",
        labels={"k": "v"},
        params=pb.GenerationParams(temperature=0.7, seed=2**64 - 1, stop=["###"]),
    )
    first = (await read_chat(app.chat, chat_id)).turns[0]
    await ask(app, "And this?", chat_id=chat_id, images=[pb.Image(data=PHOTO)])
    await ask(app, "Or this?", chat_id=chat_id, parent_turn_id=first.id)
    await ask(app, "Anew?", chat_id=chat_id, parent_turn_id="")
    call = app.chat.ContinueChat(pb.ContinueChatRequest(chat_id=chat_id, prompt="Long?"))
    async for reply in call:
        if reply.event.WhichOneof("event") == "started":
            turn_id = reply.event.started.turn_id
        if reply.event.WhichOneof("event") == "delta":
            await hold.said.wait()
            await app.chat.CancelTurn(pb.CancelTurnRequest(chat_id=chat_id, turn_id=turn_id))
    return chat_id


SCRIPT = ("A red circle.", "A star \0 <image>.", "No.", "Yes.")


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_what_goes_out_comes_in_again(store: str, tmp_path: Path) -> None:
    """Branches, cancelled turns, pictures and parameters are equal but for the ids."""
    hold = Hold("I think")
    flags = ("--store", store, "--state-folder", str(tmp_path))
    async with run_app(ScriptedEngine("warm", *SCRIPT, hold), *flags) as app:
        chat_id = await make_chat(app, hold)
        chat, pictures = await read_export(app.chat, chat_id)
        assert (5, 3) == (len(chat.turns), len(pictures))
        assert pb.TURN_STATE_CANCELLED == chat.turns[4].state
        assert (5000, 40) == (chat.turns[0].images[1].width_pixels, 40)
        await app.chat.DeleteChat(pb.DeleteChatRequest(chat_id=chat_id))
        taken = await import_chat(app.chat, chat, reversed(pictures))
        again, same_pictures = await read_export(app.chat, taken.id)
        assert taken == again
        assert strip_ids(chat) == strip_ids(again)
        assert pictures == same_pictures
        assert {True} == {turn.imported for turn in again.turns}
        ids = {chat.id, *(turn.id for turn in chat.turns)}
        assert set() == ids & {again.id, *(turn.id for turn in again.turns)}


async def test_a_chat_that_was_brought_back_goes_on_as_it_would_have() -> None:
    """The next prompt is the one that the original chat would have had, id for id."""
    engine = ScriptedEngine("warm", "A red circle.", "Blue.", "No.", "No.")
    async with run_app(engine) as app:
        chat_id = await app.start("What is this?", images=[pb.Image(data=red_circle())])
        await ask(app, "And </s> this?", chat_id=chat_id)
        chat, pictures = await read_export(app.chat, chat_id)
        taken = await import_chat(app.chat, chat, pictures)
        more = [pb.Image(data=PHOTO)]
        for each in (chat_id, taken.id):
            await ask(app, "Is it large?", chat_id=each, images=more)
        original, brought = engine.requests[-2:]
        assert original.token_ids == brought.token_ids
        assert 2 == len(original.images)
        for one, other in zip(original.images, brought.images, strict=True):
            assert (one.id, await read_pixels(one)) == (other.id, await read_pixels(other))
        assert "</s>" in (await raw_prompt(app, taken.id))


async def raw_prompt(app: RunningApp, chat_id: str) -> str:
    """The prompt of the last turn as the model saw it."""
    request = pb.GetChatRequest(chat_id=chat_id, include_raw_prompts=True)
    return (await app.chat.GetChat(request)).chat.turns[-1].raw_prompt


async def test_an_imported_turn_is_followed_but_not_replayed() -> None:
    """Its text is there for ResumeTurn; ReplayTurn says why it can not compare."""
    async with run_app(ScriptedEngine("warm", "A red circle.")) as app:
        chat, pictures = await read_export(app.chat, await app.start())
        taken = await import_chat(app.chat, chat, pictures)
        names = {"chat_id": taken.id, "turn_id": taken.turns[0].id}
        replies = app.chat.ResumeTurn(pb.ResumeTurnRequest(**names))
        text = "".join([reply.event.delta.text async for reply in replies])
        assert "A red circle." == text
        error = await failure(app.chat.ReplayTurn(pb.ReplayTurnRequest(**names)))
        assert StatusCode.FAILED_PRECONDITION is error.code()
        assert "this turn was imported" in (error.details() or "")


async def test_a_picture_is_told_in_parts() -> None:
    """Parts of at most 1 MiB make a PNG of the pixels; the first says what it is."""
    rough = draw_shape("star", "pink").resize((900, 900)).effect_spread(300)
    async with run_app(ScriptedEngine()) as app:
        sent = encode(rough)
        chat_id = await app.start(images=[pb.Image(data=sent)])
        image = (await read_chat(app.chat, chat_id)).turns[0].images[0]
        call = app.chat.GetImage(pb.GetImageRequest(image_id=image.id))
        parts = [part async for part in call]
        assert image == parts[0].image
        assert not any(part.HasField("image") for part in parts[1:])
        assert 1024 * 1024 >= max(len(part.data) for part in parts)
        again = await app.start(images=[pb.Image(data=b"".join(part.data for part in parts))])
        assert image.id == (await read_chat(app.chat, again)).turns[0].images[0].id


async def test_another_tenants_picture_can_not_be_fetched(tmp_path: Path) -> None:
    """It looks like one that does not exist; without a key not even that is told."""
    keys = tmp_path / "keys"
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("anna", "ben")}
    keys.write_text("".join(f"{name} {digest}\n" for name, digest in digests.items()))
    async with run_app(ScriptedEngine(), "--keys-file", str(keys)) as app:
        anna, ben = ({"metadata": (("authorization", f"Bearer {name}"),)} for name in digests)
        request = pb.StartChatRequest(prompt="?", images=[pb.Image(data=red_circle())])
        events = [reply.event async for reply in app.chat.StartChat(request, **anna)]
        image_id = events[0].started.images[0].id
        assert await read_picture(app.chat, image_id, **anna)
        theirs = await failure(app.chat.GetImage(pb.GetImageRequest(image_id=image_id), **ben))
        none = await failure(app.chat.GetImage(pb.GetImageRequest(image_id="0" * 64), **ben))
        assert StatusCode.NOT_FOUND is theirs.code() is none.code()
        assert theirs.details() == none.details()
        chat = await read_chat(app.chat, events[0].started.chat_id, **anna)
        missing = await failure(app.chat.ImportChat(iter(write_parts(chat, [])), **ben))
        assert "chat.turns[0].images[0].id" == violation(missing)[0]
        for call in (
            app.chat.GetImage(pb.GetImageRequest(image_id=image_id)),
            app.chat.ImportChat(endless(chat)),
        ):
            assert StatusCode.UNAUTHENTICATED is (await failure(call)).code()


async def endless(chat: pb.Chat) -> AsyncIterator[pb.ImportChatRequest]:
    """A body that never ends."""
    yield pb.ImportChatRequest(chat=chat)
    await asyncio.Event().wait()


async def test_a_wrong_field_is_named_and_nothing_is_kept(
    importing: tuple[RunningApp, pb.Chat, list[bytes]],
) -> None:
    """What is wrong with the tree, a limit, or a picture's name and size comes back as a status."""
    app, good, pictures = importing

    def copy() -> pb.Chat:
        chat = pb.Chat()
        chat.CopyFrom(good)
        return chat

    chat = copy()
    chat.turns.extend([pb.Turn()] * 4)
    await refused(app, chat, pictures, "chat.turns", "6 turns; at most 5 in a chat")
    chat = copy()
    chat.turns[1].parent_turn_id = "b"
    await refused(app, chat, pictures, "chat.turns[1].parent_turn_id", "parents come first")
    chat = copy()
    chat.turns[0].images[0].id = "0" * 64
    await refused(app, chat, pictures, "image[0]", "no turn names this picture")
    chat = copy()
    chat.turns[0].images[0].width_pixels = 9
    field = "chat.turns[0].images[0].width_pixels"
    await refused(app, chat, pictures, field, "9 x 320 pixels are told")


async def refused(
    app: RunningApp, chat: pb.Chat | None, pictures: list[bytes], field: str, expected: str
) -> None:
    """The import is refused for a field, and leaves nothing."""
    before = await app.chat.ListChats(pb.ListChatsRequest())
    error = await failure(app.chat.ImportChat(iter(write_parts(chat, pictures))))
    assert StatusCode.INVALID_ARGUMENT is error.code(), error
    named, told = violation(error)
    assert field == named
    assert expected in told
    assert before == await app.chat.ListChats(pb.ListChatsRequest())


@pytest.fixture
async def importing() -> AsyncIterator[tuple[RunningApp, pb.Chat, list[bytes]]]:
    """A server, and a chat of two turns that it takes."""
    flags = ("--max-turns-per-chat", "5", "--max-import-bytes", str(1024 * 1024))
    async with run_app(ScriptedEngine("warm", "A red circle.", "No."), *flags) as app:
        chat_id = await app.start(images=[pb.Image(data=red_circle())])
        await ask(app, "Is it large?", chat_id=chat_id)
        chat, pictures = await read_export(app.chat, chat_id)
        for turn, name in zip(chat.turns, "ab", strict=True):
            turn.id = name
        chat.turns[1].parent_turn_id = "a"
        assert 2 == len((await import_chat(app.chat, chat, pictures)).turns)
        yield app, chat, pictures


async def test_pictures_come_in_by_the_intake(
    importing: tuple[RunningApp, pb.Chat, list[bytes]],
) -> None:
    """What is no picture, is missing, is doubled, or comes too early is named."""
    app, chat, pictures = importing
    await refused(app, chat, [], "chat.turns[0].images[0].id", "did not come")
    await refused(app, chat, [b"%PDF-1.7"], "image[0]", "this is a PDF")
    await refused(app, chat, [*pictures, *pictures], "image[1]", "came before")
    await refused(app, chat, [*pictures, PHOTO], "image[1]", "no turn names this picture")
    await refused(app, chat, [pictures[0][:500]], "image[0]", "damaged")
    await refused(app, None, pictures, "chat", "comes first")
    await refused(app, None, [], "chat", "comes first")


async def test_a_second_chat_in_one_import_is_refused(
    importing: tuple[RunningApp, pb.Chat, list[bytes]],
) -> None:
    """After the chat come pictures, and nothing else."""
    app, chat, pictures = importing
    for part in (pb.ImportChatRequest(chat=chat), pb.ImportChatRequest()):
        parts = [*write_parts(chat, pictures), part]
        error = await failure(app.chat.ImportChat(iter(parts)))
        assert ("image[1]", "after the chat come its pictures alone") == violation(error)


async def test_words_and_pixels_have_a_limit(
    importing: tuple[RunningApp, pb.Chat, list[bytes]],
) -> None:
    """Pictures that unpack to more than an import may have are refused at the one too many."""
    app, chat, pictures = importing
    large = encode(draw_shape("star", "blue", (600, 600)))
    chat_id = await app.start(images=[pb.Image(data=large)])
    image = (await read_chat(app.chat, chat_id)).turns[0].images[0]
    more = pb.Chat()
    more.CopyFrom(chat)
    more.turns[0].images.append(image)
    expected = "take 1,387,2"  # 320 x 320 and 600 x 600 pixels of three bytes, and the words
    await refused(app, more, [*pictures, large], "image[1]", expected)
    assert await import_chat(app.chat, chat, pictures)


async def test_a_first_question_asked_again_may_have_the_opening_pictures_too(
    importing: tuple[RunningApp, pb.Chat, list[bytes]],
) -> None:
    """Such a turn is made here, and so it can be brought back; another one can not."""
    app, chat, pictures = importing
    chat.turns[1].ClearField("parent_turn_id")
    image = chat.turns[0].images[0]
    del chat.turns[1].images[:]
    chat.turns[1].images.extend([image] * 5)
    assert await import_chat(app.chat, chat, pictures)
    chat.turns[1].parent_turn_id = "a"
    await refused(app, chat, pictures, "chat.turns[1].images", "5 pictures; at most 4")


async def test_nothing_goes_on_from_a_turn_that_was_cut(
    importing: tuple[RunningApp, pb.Chat, list[bytes]],
) -> None:
    """A cancelled turn is kept, but never as a parent."""
    app, chat, pictures = importing
    chat.turns[0].state = pb.TURN_STATE_CANCELLED
    chat.turns[0].finish_reason = pb.FINISH_REASON_SHUTDOWN
    await refused(app, chat, pictures, "chat.turns[1].parent_turn_id", "cut short")
    chat.turns[1].ClearField("parent_turn_id")
    taken = await import_chat(app.chat, chat, pictures)
    assert pb.FINISH_REASON_SHUTDOWN == taken.turns[0].finish_reason


async def test_a_few_imports_are_taken_in_at_a_time(
    importing: tuple[RunningApp, pb.Chat, list[bytes]],
) -> None:
    """A tenant's second import is refused while its first one comes; who leaves makes room."""
    app, chat, pictures = importing
    assert 1 < MAX_RUNNING
    waiting = app.chat.ImportChat(endless(chat))
    error = None
    while error is None:
        # Until the first one has been begun, the other one is taken.
        try:
            await import_chat(app.chat, chat, pictures)
        except grpc.aio.AioRpcError as refusal:
            error = refusal
    assert StatusCode.RESOURCE_EXHAUSTED is error.code()
    waiting.cancel()
    while error is not None:
        try:
            await import_chat(app.chat, chat, pictures)
            error = None
        except grpc.aio.AioRpcError as refusal:
            assert StatusCode.RESOURCE_EXHAUSTED is refusal.code()  # noqa: PT017


async def test_an_import_that_does_not_come_is_given_up(
    importing: tuple[RunningApp, pb.Chat, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that stalls ends at its time, with a sentence."""
    app, chat, _ = importing
    monkeypatch.setattr("llavachat_server.chats.importer.BODY_SECONDS", 0.05)
    error = await failure(app.chat.ImportChat(endless(chat)))
    assert StatusCode.DEADLINE_EXCEEDED is error.code()
    assert "nothing of it was kept" in (error.details() or "")


async def test_an_import_is_in_the_audit_record(tmp_path: Path) -> None:
    """Who brought which words, by their hashes; before the chat is kept."""
    flags = ("--store", "sqlite", "--state-folder", str(tmp_path))
    async with run_app(ScriptedEngine("warm", "A red circle."), *flags) as app:
        chat, pictures = await read_export(
            app.chat, await app.start(images=[pb.Image(data=red_circle())])
        )
        taken = await import_chat(app.chat, chat, pictures)
        await failure(app.chat.ImportChat(iter(write_parts(chat, []))))
    lines = [
        json.loads(line)
        for line in (tmp_path / "audit/audit-000001.jsonl").read_text().split("\n")[:-1]
    ]
    assert ["turn", "imported"] == [line["event"] for line in lines]
    (turn,) = lines[1]["turns"]
    assert (taken.id, taken.turns[0].id) == (lines[1]["chat_id"], turn["turn_id"])
    assert hashlib.sha256(b"A red circle.").hexdigest() == turn["answer_sha256"]
    assert [chat.turns[0].images[0].id] == turn["image_ids"]
    assert "answer" not in turn
    assert verify(tmp_path / "audit").fault is None


async def test_an_import_whose_caller_is_gone_leaves_nothing() -> None:
    """Also when it was just being kept: nobody would know the chat's id."""
    store = HeldStore()
    importer = Importer(
        store, Intake(ImageLimits()), shapes_prompts(), NUM_IMAGE_TOKENS, max_bytes=1000
    )
    chat = replace(make_import(make_picture(1), make_picture(2)), tenant="ada")
    chat = replace(chat, turns=tuple(replace(turn, images=()) for turn in chat.turns))
    taking = asyncio.ensure_future(importer.take(chat, no_files()))
    await store.begun.wait()
    taking.cancel()
    store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert () == (await store.list_chats("ada", ChatQuery())).chats
    assert 3 == len((await importer.take(chat, no_files())).turns)
    importer.close()


class HeldStore(MemoryStore):
    """Keeps a chat only when it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def add_chat(self, chat: Chat, pictures: tuple[Picture, ...]) -> None:
        """See `ChatStore.add_chat`."""
        self.begun.set()
        await self.go_on.wait()
        await super().add_chat(chat, pictures)


async def no_files() -> AsyncIterator[bytes]:
    """A chat without pictures."""
    for data in ():
        yield data
