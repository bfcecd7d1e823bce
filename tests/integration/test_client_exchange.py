"""Chats out of a server and into one: both clients and the command line, on a scripted service."""

import io
import json
import sys
from pathlib import Path

import grpc
import pytest
from archives import ARCHIVE, TURN
from llavachat import ArchiveError, AsyncClient, Client, ImageInfo, IncompleteReply, NotFound
from llavachat.archive import read_archive, write_archive
from llavachat.cli.app import run
from llavachat.v1 import chat_pb2, error_details_pb2
from PIL import Image
from scripted_service import abort

RED = Image.new("RGB", (8, 6), "red")


pytestmark = pytest.mark.usefixtures("scripted_in_environment")


@pytest.fixture
def chat_id(scripted):
    """A chat of two turns about two pictures."""
    with Client(scripted.address) as client:
        reply = client.start([RED, RED.rotate(90, expand=True)], "What <is> this?")
        reply.read()
        reply.chat.ask("And behind it?").read()
        # In full, as a real server tells it.
        for turn in scripted.service.chats[reply.chat.id].turns:
            for image in turn.images:
                image.width_pixels, image.height_pixels = 8, 6
        return reply.chat.id


def test_a_chat_goes_out_and_comes_in(scripted, chat_id):
    """What is imported is what was exported; the pictures follow the chat, each once."""
    service = scripted.service
    with Client(scripted.address) as client:
        text = client.chat(chat_id).export()
        chat = client.import_chat(text)
        again = read_archive(chat.export())
    assert "chat-2" == chat.id != chat_id
    archive = read_archive(text)
    assert archive.pictures == again.pictures == service.pictures
    assert archive.chat.turns == again.chat.turns
    imported = [item for item in service.requests if isinstance(item, chat_pb2.ImportChatRequest)]
    assert ["chat", "image", "image"] == [part.WhichOneof("part") for part in imported]


async def test_the_async_client_does_the_same(scripted, chat_id):
    """Export in all formats, import, and a picture by itself."""
    with Client(scripted.address) as client:
        expected = [client.chat(chat_id).export(name) for name in ("json", "html", "markdown")]
    async with AsyncClient(scripted.address) as client:
        chat = client.chat(chat_id)
        told = [await chat.export(name) for name in ("json", "html", "markdown")]
        assert expected == told
        assert "chat-2" == (await client.import_chat(told[0].encode())).id
        image = (await chat.history())[0].images[0]
        picture = await client.image(image)
        assert (8, 6) == (picture.width_pixels, picture.height_pixels)
        with pytest.raises(ArchiveError):
            await client.import_chat("{}")


def test_a_picture_is_put_together(scripted, chat_id):
    """By what the server told of it or by its id; what is no PNG is not a picture."""
    service = scripted.service
    image_id = f"{1:064x}"
    with Client(scripted.address) as client:
        picture = client.image(ImageInfo(image_id, 6, 8, 64, "image/png"))
        assert ("image/png", 6, 8) == (
            picture.media_type,
            picture.width_pixels,
            picture.height_pixels,
        )
        assert service.pictures[image_id] == picture.data == client.image(image_id).data
        with Image.open(io.BytesIO(picture.data)) as opened:
            assert (6, 8) == opened.size
        with pytest.raises(NotFound):
            client.image("0" * 63 + "7")
        service.pictures[image_id] = b"something else entirely"
        with pytest.raises(IncompleteReply, match="something else than a picture"):
            client.image(image_id)


def test_markdown_fetches_no_picture(scripted, chat_id):
    """It is the transcript."""
    with Client(scripted.address) as client:
        chat = client.chat(chat_id)
        assert chat.transcript() == chat.export("markdown")
        assert not any(
            isinstance(item, chat_pb2.GetImageRequest) for item in scripted.service.requests
        )
        with pytest.raises(ArchiveError, match="There is no format 'pdf'; take one of json"):
            chat.export("pdf")


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("talk.md", "# What <is> this?\n"),
        ("talk.html", "<!doctype html>\n"),
        ("talk.HTM", "<!doctype html>\n"),
        ("talk.json", '{\n  "format": "llavachat-chat/1",\n'),
    ],
)
def test_the_files_ending_says_the_format(service, chat_id, tmp_path, capsys, name, begin):
    """`export CHAT -o FILE`; stdout stays empty."""
    path = tmp_path / name
    assert 0 == run(["export", chat_id, "-o", str(path)])
    assert path.read_text("utf-8").startswith(begin)
    assert ("", f"Saved to {path}.\n") == capsys.readouterr()


def test_export_to_stdout(service, chat_id, capsys):
    """Markdown unless another format is named; `-c` is the last chat."""
    assert 0 == run(["export", chat_id])
    assert capsys.readouterr().out.startswith("# What <is> this?")
    assert 0 == run(["export", chat_id, "--format", "html", "-o", "-"])
    assert "What &lt;is&gt; this?" in capsys.readouterr().out
    assert 2 == run(["export", "-c"])
    assert "There is no last chat" in capsys.readouterr().err
    run(["ask", "--chat", chat_id, "Once more?"])
    capsys.readouterr()
    assert 0 == run(["export", "-c", "--format", "json"])
    assert 3 == len(json.loads(capsys.readouterr().out)["turns"])


def test_import_prints_the_new_id_and_remembers_it(service, chat_id, tmp_path, capsys):
    """`ask -c` goes on with it; - reads stdin."""
    path = tmp_path / "talk.json"
    run(["export", chat_id, "-o", str(path)])
    capsys.readouterr()
    assert 0 == run(["import", str(path)])
    assert ("chat-2\n", "") == capsys.readouterr()
    assert 0 == run(["ask", "-c", "And?"])
    assert "chat-2" == service.requests[-1].chat_id


def test_import_from_stdin(service, monkeypatch, capsys):
    """`llavachat import - < talk.json`."""
    data = write_archive(ARCHIVE).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert 0 == run(["import", "-"])
    assert "chat-1\n" == capsys.readouterr().out
    assert TURN.prompt == service.chats["chat-1"].turns[0].prompt


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["export"], 2, "There is no chat."),
        (["export", "chat-1", "-c"], 2, "both name a chat"),
        (["export", "chat-1", "-o", "talk.txt"], 2, "talk.txt does not say in which format;"),
        (["export", "chat-1", "-o", "talk"], 2, "end it in .md, .json or .html"),
        (["export", "chat-1", "-o", "no/where.md"], 1, "can not be written: No such file"),
        (["export", "chat-1", "-o", "~nosuchuser/x.md"], 2, "its name is not a path"),
        (["export", "chat-1", "-o", "a\0b.md"], 2, "its name is not a path"),
        (["export", "chat-9", "-o", "talk.md"], 1, "There is no such chat."),
        (["export", "chat-1", "--format", "pdf"], 2, "pdf"),
        (["import"], 2, "Missing argument"),
        (["import", "none.json"], 2, "none.json can not be read: No such file or directory."),
        (["import", "."], 2, ". can not be read: Is a directory."),
        (["import", "a\0b"], 2, "its name is not a path"),
        (["import", "~nosuchuser/x"], 2, "its name is not a path"),
        (["import", "other.json"], 2, "This is no exported chat"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    service, chat_id, tmp_path, monkeypatch, capsys, arguments, code, sentence
):
    """On stderr, with the exit code of its kind; no file is left."""
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text('{"id": "chat-1"}')
    assert code == run(arguments)
    output = capsys.readouterr()
    assert "" == output.out
    assert sentence in output.err
    assert 1 == output.err.count("\n")
    assert {"other.json"} == {path.name for path in tmp_path.iterdir()} - {"state"}


def test_a_refused_import_names_the_field(service, tmp_path, capsys):
    """The server's sentence reaches the terminal."""

    def refuse(parts, context):
        detail = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(
                    field="chat.turns", description="is empty; a chat has one turn or more"
                )
            ]
        )
        abort(context, grpc.StatusCode.INVALID_ARGUMENT, "chat.turns: is empty", detail)

    service.take_in = refuse
    path = tmp_path / "talk.json"
    path.write_text(write_archive(ARCHIVE), "utf-8")
    assert 1 == run(["import", str(path)])
    assert "a chat has one turn or more." in capsys.readouterr().err
