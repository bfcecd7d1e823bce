"""Pictures' files as they came: kept where the operator wishes it, told, carried away, erased."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from app_in_process import RunningApp, run_app
from imports import import_chat, read_chat, read_picture
from llavachat import ArchiveError, AsyncClient, Chat, Client, NotFound
from llavachat.cli.app import run
from llavachat.v1 import chat_pb2 as pb
from pictures import draw_shape, encode
from PIL import Image
from rpc_calls import failure, violation
from scripted_engine import ScriptedEngine

SCRIPT = ("warm", "A star.", "A star.", "A star.")


def take_photo(place: str = "48.2 N") -> bytes:
    """A JPEG that says where it was taken."""
    exif = Image.Exif()
    exif[0x010E] = place  # ImageDescription
    return encode(draw_shape("star", "blue", (70, 50)), "JPEG", exif=exif)


PHOTO = take_photo()


def find(folder: Path, word: bytes) -> list[bool]:
    """Of each file of a folder, whether it holds a word."""
    return [word in path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def ask_about(app: RunningApp, photo: bytes) -> tuple[str, pb.ImageInfo]:
    """Open a chat about a picture: its id, and what is told of the picture."""
    chat_id = await app.start(images=[pb.Image(data=photo)])
    return chat_id, (await read_chat(app.chat, chat_id)).turns[0].images[0]


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_the_file_comes_back_as_it_was_sent(store: str, tmp_path: Path) -> None:
    """Byte for byte, its metadata too, beside the pixels without any; erased with its chat."""
    flags = ("--store", store, "--state-folder", str(tmp_path), "--keep-originals")
    places = (b"48.2 N", b"16.4 E")
    async with run_app(ScriptedEngine(*SCRIPT), *flags) as app, AsyncClient(app.address) as client:
        assert (await client.server_info()).keeps_originals
        chat_id, image = await ask_about(app, PHOTO)
        file = await client.original(image.id)
        assert hashlib.sha256(PHOTO).digest() == hashlib.sha256(file.data).digest()
        assert ("image/jpeg", 70, 50) == (file.media_type, file.width_pixels, file.height_pixels)
        assert b"48.2 N" not in (await client.image(image.id)).data
        elsewhere, same = await ask_about(app, take_photo("16.4 E"))
        assert image.id == same.id
        await client.delete_chat(chat_id)
        assert b"16.4 E" in (await client.original(image.id)).data
        await client.delete_chat(elsewhere)
        with pytest.raises(NotFound):
            await client.original(image.id)
    # Closed, its log of writes is gone, and what was erased is overwritten.
    assert not any(any(find(tmp_path, place)) for place in places)


async def test_nothing_of_the_file_stays_by_default(tmp_path: Path) -> None:
    """No file is told, and its metadata are nowhere in the server's folder."""
    flags = ("--store", "sqlite", "--state-folder", str(tmp_path))
    async with run_app(ScriptedEngine(*SCRIPT), *flags) as app, AsyncClient(app.address) as client:
        assert not (await client.server_info()).keeps_originals
        _, image = await ask_about(app, PHOTO)
        with pytest.raises(NotFound) as caught:
            await client.original(image.id)
        assert "No file of such a picture is kept." == str(caught.value)
    assert {False} == set(find(tmp_path, b"48.2 N"))


async def test_an_exported_chat_carries_its_files(tmp_path: Path) -> None:
    """To a server that keeps them, and to one that does not; only where they are asked for."""
    keeping = run_app(ScriptedEngine(*SCRIPT), "--keep-originals")
    async with keeping as app, AsyncClient(app.address) as client:
        chat_id, image = await ask_about(app, PHOTO)
        plain = await client.chat(chat_id).export()
        whole = await client.chat(chat_id).export(originals=True)
        assert "originals" not in json.loads(plain)
        path = tmp_path / "chat.json"
        arguments = ["export", chat_id, "-o", str(path), "--originals", "--address", app.address]
        assert 0 == await asyncio.to_thread(run, arguments)
        assert whole == path.read_text()
        assert whole == await asyncio.to_thread(export_blocking, app.address, chat_id)
        with pytest.raises(ArchiveError, match="Only JSON"):
            await client.chat(chat_id).export("html", originals=True)
        await client.delete_chat(chat_id)
        await client.import_chat(plain)
        with pytest.raises(NotFound):
            await client.original(image.id)
        await client.import_chat(whole)
        assert PHOTO == (await client.original(image.id)).data
    async with run_app(ScriptedEngine(*SCRIPT)) as app, AsyncClient(app.address) as client:
        brought = await client.import_chat(whole)
        assert image == (await read_chat(app.chat, brought.id)).turns[0].images[0]
        assert await read_picture(app.chat, image.id)
        with pytest.raises(NotFound):
            await client.original(image.id)


def export_blocking(address: str, chat_id: str) -> str:
    """By the client that blocks."""
    with Client(address) as client:
        chat: Chat = client.chat(chat_id)
        return chat.export(originals=True)


async def test_a_file_that_is_not_of_the_chat_is_refused() -> None:
    """By its name and place among what was sent."""
    async with run_app(ScriptedEngine(*SCRIPT), "--keep-originals") as app:
        chat_id, _ = await ask_about(app, PHOTO)
        chat = await read_chat(app.chat, chat_id)
        other = encode(draw_shape("star", "red", (70, 50)))
        parts = [pb.ImportChatRequest(chat=chat), pb.ImportChatRequest(original=other)]
        call = app.chat.ImportChat(iter(parts))
        assert "original[0]" in (await call.details() or "")
        assert (
            await import_chat(app.chat, chat, [await read_picture(app.chat, image_id(chat))])
        ).id


@pytest.mark.parametrize("part", ["original", "image"])
async def test_a_file_that_is_too_large_for_a_question_is_for_an_import(part: str) -> None:
    """Only a server's own PNG may be larger: an import brings in no megabytes beside a picture."""
    async with run_app(
        ScriptedEngine(*SCRIPT), "--keep-originals", "--max-image-bytes", "10000"
    ) as app:
        chat_id, _ = await ask_about(app, PHOTO)
        chat = await read_chat(app.chat, chat_id)
        request = pb.ImportChatRequest(**{part: PHOTO + bytes(10_000)})
        refusal = await failure(
            app.chat.ImportChat(iter([pb.ImportChatRequest(chat=chat), request]))
        )
        size = len(PHOTO) + 10_000
        assert (
            f"{part}[0]",
            f"the file has {size:,} bytes; at most 10,000 are taken",
        ) == violation(refusal)


def image_id(chat: pb.Chat) -> str:
    """Of the picture of its first turn."""
    return chat.turns[0].images[0].id
