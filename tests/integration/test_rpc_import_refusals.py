"""ImportChat: what is refused, and that nothing of it is kept."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from app_in_process import RunningApp, run_app
from grpc import StatusCode
from imports import (
    ask,
    endless,
    import_chat,
    read_chat,
    read_export,
    write_parts,
)
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.arrivals import MAX_RUNNING
from llavachat_server.rpc.access import SMALL_REQUEST_BYTES
from pictures import draw_shape, encode, red_circle
from rpc_calls import (
    failure,
    violation,
)
from scripted_engine import ScriptedEngine

PHOTO = encode(draw_shape("star", "blue", (700, 500)), "JPEG")


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


@pytest.mark.parametrize("num_turns", [12, 250])
async def test_a_chat_of_more_turns_than_this_server_takes_is_told_so(
    monkeypatch: pytest.MonkeyPatch, num_turns: int
) -> None:
    """Also one so long that it is measured before it is read; it is no part of a flood."""
    spoilt: list[str] = []
    monkeypatch.setattr(
        "llavachat_server.rpc.floods.Floods.note", lambda _, peer: spoilt.append(peer)
    )
    async with run_app(ScriptedEngine("A red circle."), "--max-turns-per-chat", "10") as app:
        chat = await read_chat(app.chat, await app.start("x" * 1000))
        chat.turns.extend([chat.turns[0]] * (num_turns - 1))
        assert (num_turns > 200) is (chat.ByteSize() > SMALL_REQUEST_BYTES)
        expected = f"{num_turns} turns; at most 10 in a chat"
        await refused(app, chat, [], "chat.turns", expected)
    assert [] == spoilt


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


async def test_words_alone_have_a_limit() -> None:
    """By their bytes as they are sent, to the byte, though no picture comes."""
    limit = 1024 * 1024
    engine = ScriptedEngine("warm", "A red circle.", context_tokens=4096)
    async with run_app(engine, "--max-import-bytes", str(limit)) as app:
        chat, _ = await read_export(app.chat, await app.start())
        first = chat.turns[0]
        first.id, first.prompt = "t0", "?"
        for number in range(1, 100):
            turn = chat.turns.add()
            turn.CopyFrom(first)
            turn.id, turn.parent_turn_id = f"t{number}", f"t{number - 1}"
            turn.prompt, turn.answer = "\u20ac" * 3_500, ""
        told = sum(len((turn.prompt + turn.answer).encode()) for turn in chat.turns)
        first.prompt += "x" * (limit + 1 - told)
        expected = f"its words take {limit + 1:,} bytes; at most {limit:,} in one chat"
        await refused(app, chat, [], "chat", expected)
        first.prompt = first.prompt[:-1]
        assert 100 == len((await import_chat(app.chat, chat, [])).turns)


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
    expected = "one import of a tenant is taken in at a time; try again when it has ended"
    assert expected == error.details()
    waiting.cancel()
    while error is not None:
        try:
            await import_chat(app.chat, chat, pictures)
            error = None
        except grpc.aio.AioRpcError as refusal:
            assert StatusCode.RESOURCE_EXHAUSTED is refusal.code()  # noqa: PT017


@pytest.mark.parametrize("limit", ["importer.BODY_SECONDS", "arrivals.PART_SECONDS"])
async def test_an_import_that_does_not_come_is_given_up(
    importing: tuple[RunningApp, pb.Chat, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
) -> None:
    """A body that stalls ends at its time, and so does a part; with a sentence."""
    app, chat, _ = importing
    monkeypatch.setattr(f"llavachat_server.chats.{limit}", 0.05)
    error = await failure(app.chat.ImportChat(endless(chat)))
    assert StatusCode.DEADLINE_EXCEEDED is error.code()
    assert "nothing of it was kept" in (error.details() or "")
