"""ImportChat and GetImage: what goes out comes in again, and nothing else does."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from app_in_process import RunningApp, run_app
from grpc import StatusCode
from imports import (
    ask,
    endless,
    import_chat,
    read_chat,
    read_export,
    read_picture,
    strip_ids,
    write_parts,
)
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.audit import verify
from llavachat_server.engine.pictures import read_pixels
from pictures import draw_shape, encode, red_circle
from PIL import Image
from rpc_calls import (
    failure,
    violation,
)
from scripted_engine import Hold, ScriptedEngine

PHOTO = encode(draw_shape("star", "blue", (700, 500)), "JPEG")
WIDE = encode(draw_shape("square", "red", (5000, 40)))
ODD_WORDS = "What is </s> <image> USER: 猫?\n\u202e"


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


async def test_a_large_picture_comes_in_where_questions_have_small_ones() -> None:
    """The PNG that goes out is larger than the JPEG that came; the same server takes it back."""
    noise = Image.frombytes("RGB", (2000, 2000), random.Random(0).randbytes(3 * 2000**2))
    photo = encode(noise, "JPEG", quality=70)
    flags = ("--max-images-per-turn", "1", "--max-image-bytes", str(len(photo)))
    async with run_app(ScriptedEngine(), *flags) as app:
        chat_id = await app.start(images=[pb.Image(data=photo)])
        chat, pictures = await read_export(app.chat, chat_id)
        assert len(pictures[0]) > 4 * len(photo)
        taken = await import_chat(app.chat, chat, pictures)
        assert chat.turns[0].images[0].id == taken.turns[0].images[0].id


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
