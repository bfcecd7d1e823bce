"""`chat` without a terminal against a scripted service: what is asked, with which pictures."""

import io
import json
import sys
from pathlib import Path

import grpc
import pillow_heif
import pytest
from llavachat import InvalidRequest, LlavaChatError
from llavachat.cli.app import run
from llavachat.cli.conversation import Conversation
from PIL import Image
from scripted_service import abort, refuse_field

pytestmark = pytest.mark.usefixtures("scripted_in_environment")


@pytest.fixture
def photograph(tmp_path, monkeypatch):
    """The path of a HEIC file, which can not be read here."""
    path = tmp_path / "photo.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(path)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    return path


def refuse_heic(service):
    """Have a service refuse questions about HEIC, with the words and details of the real one."""

    def answer(request, context):
        for index, image in enumerate(request.images):
            if b"ftyphei" in image.data[:16]:
                refuse_field(context, f"images[{index}].data", "this is an HEIC picture")
        yield from service.tell(request, context)

    service.answer = answer


def test_a_talk_without_a_terminal(service, picture, monkeypatch, capsys):
    """Each line of stdin is a question; pictures that are added go with the next one."""
    lines = f"What?\n\n/image {picture}\nAnd this?\n/usage\n/retry\n/nonsense\n/help\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert 0 == run(["chat", picture])
    output = capsys.readouterr()
    assert "A red circle.\n" * 3 == output.out
    assert "104 tokens asked" in output.err
    assert "/nonsense is not a command" in output.err
    assert "Ctrl-C stops an answer" in output.err
    _, first, second, again = service.requests
    assert (1, 1, 1) == (len(first.images), len(second.images), len(again.images))
    assert ("turn-1", "turn-1") == (second.parent_turn_id, again.parent_turn_id)
    assert not second.params.HasField("temperature")
    assert 0.8 == pytest.approx(again.params.temperature)


def test_a_picture_that_the_server_alone_may_read(service, photograph, monkeypatch, capsys):
    """HEIC without its library is sent as it is; its size is not known, and it is not shown."""
    service.media_types = ("image/heic",)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = io.BytesIO(f"/image {photograph}\nWhat?\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines))
    assert 0 == run(["chat"])
    assert photograph.read_bytes() == service.requests[-1].images[0].data
    output = capsys.readouterr()
    assert f"image/heic, {photograph.stat().st_size / 1024:.0f} KiB" in output.err
    assert "▀" not in output.out


def test_a_first_question_is_asked_again_at_the_root(service, picture, monkeypatch):
    """/retry after the first question: the same chat, no parent, and its own pictures."""
    lines = b"What?\n/retry\nAnd?\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert 0 == run(["chat", picture, "-t", "0.3"])
    _, _, again, later = service.requests
    assert ("chat-1", "", 0) == (again.chat_id, again.parent_turn_id, len(again.images))
    assert again.HasField("parent_turn_id")
    assert 0.3 == pytest.approx(again.params.temperature)
    assert "turn-2" == later.parent_turn_id


def test_a_talk_is_saved(service, picture, monkeypatch, tmp_path, capsys):
    """Markdown or JSON by the name; what is no place for a file is told."""
    monkeypatch.chdir(tmp_path)
    lines = b"/save\nWhat?\n/save 'my chat.md'\n/save talk.json\n/save talk.html\n/save\n"
    lines += b"/save talk.JSON\n/save talk.htm\n/save talk.txt\n"
    lines += b"/save no/where.md\n/save ~nosuchuser/x.md\n/save a\0b.md\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert 0 == run(["chat", picture])
    assert "**You:** What?" in (tmp_path / "my chat.md").read_text()
    assert "What?" == json.loads((tmp_path / "talk.json").read_text())["turns"][0]["prompt"]
    assert (tmp_path / "chat-chat-1.md").exists()
    assert (tmp_path / "talk.html").read_text().startswith("<!doctype html>")
    assert "What?" == json.loads((tmp_path / "talk.JSON").read_text())["turns"][0]["prompt"]
    assert (tmp_path / "talk.htm").read_text().startswith("<!doctype html>")
    assert "**You:** What?" in (tmp_path / "talk.txt").read_text()
    errors = capsys.readouterr().err
    assert "There is nothing to save yet." in errors
    assert "no/where.md can not be written: No such file or directory." in errors
    assert 2 == errors.count("can not be written: its name is not a path.")


def test_a_talk_without_a_terminal_ends_at_a_failure(service, picture, monkeypatch, capsys):
    """A script gets the sentence and the code, as from `ask`."""

    def answer(request, context):
        abort(context, grpc.StatusCode.INTERNAL, "the model failed on this request")
        yield

    service.answer = answer
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"What?\nAnd?\n")))
    assert 1 == run(["chat", picture])
    assert "llavachat: The model failed on this request.\n" == capsys.readouterr().err
    assert 2 == len(service.requests)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_picture_that_the_server_does_not_read_is_told_at_once(
    service, photograph, picture, monkeypatch, capsys, is_first
):
    """Not by its refusal of a question: what it reads is known before."""
    lines = f"/image {photograph}\nWhat?\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert 2 == run(["chat", str(photograph) if is_first else picture])
    assert capsys.readouterr().err == (
        f"llavachat: {photograph} is image/heic, which this server does not read; it reads "
        "image/png.\n"
    )
    assert {} == service.chats


def converse(client):
    """A conversation that is not begun."""
    return Conversation(client, chat_id=None, pictures=(), start={}, params={})


def test_a_picture_that_was_refused_goes_with_no_later_question(
    client, service, photograph, picture
):
    """Every question after it was refused for it; the others go with the next one, and /retry
    asks without it."""
    refuse_heic(service)
    talk = converse(client)
    talk.expect(())  # of an older server
    for each in (picture, str(photograph)):
        talk.add_picture(each)
    with pytest.raises(InvalidRequest) as refusal:
        talk.ask("What?", lambda reply: reply.read())
    assert [picture, str(photograph)] == talk.asked_names
    assert [str(photograph)] == talk.drop_refused(refusal.value)
    talk.retry(lambda reply: reply.read())
    (sent,) = service.requests[-1].images
    assert Path(picture).read_bytes() == sent.data
    talk.add_picture(str(photograph))
    with pytest.raises(InvalidRequest) as refusal:
        talk.ask("And this?", lambda reply: reply.read())
    assert [str(photograph)] == talk.drop_refused(refusal.value)
    assert "A red circle." == talk.ask("And?", lambda reply: reply.read()).text
    assert 0 == len(service.requests[-1].images)


def test_pictures_that_wait_are_taken_back(service, picture, monkeypatch, capsys):
    """Else nobody would get rid of those for which a question does not fit into the context."""
    lines = f"/drop\n/image {picture}\n/drop\nWhat?\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert 0 == run(["chat"])
    assert 0 == len(service.requests[-1].images)
    told = capsys.readouterr().err.splitlines()
    assert "No picture waits for the next question." == told[0]
    assert f"{picture} goes with no later question." in told


def test_a_question_that_failed_is_asked_again_without_what_was_taken_back(
    client, service, picture
):
    """By /retry: it would fail for them again."""
    service.answer = lambda _, context: abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "no")
    talk = converse(client)
    talk.add_picture(picture)
    with pytest.raises(LlavaChatError):
        talk.ask("What?", lambda reply: reply.read())
    assert [picture] == talk.drop_pending()
    with pytest.raises(LlavaChatError):
        talk.retry(lambda reply: reply.read())
    assert 0 == len(service.requests[-1].images)


def test_a_picture_that_was_asked_about_is_not_taken_back(client, service, picture):
    """Given anew and taken back, the same file goes with /retry of the question before."""
    talk = converse(client)
    talk.ask("What?", lambda reply: reply.read())
    talk.add_picture(picture)
    talk.ask("And this?", lambda reply: reply.read())
    talk.add_picture(picture)
    assert [picture] == talk.drop_pending()
    talk.retry(lambda reply: reply.read())
    assert 1 == len(service.requests[-1].images)


def test_other_refusals_leave_the_pictures(client, service, picture):
    """A question that is too long, say, is asked anew about the same pictures; of too many, none
    goes with it."""
    fields = iter(["prompt", "images"])

    def answer(request, context):
        refuse_field(context, next(fields), "no")
        yield

    service.answer = answer
    talk = converse(client)
    talk.add_picture(picture)
    for dropped in ([], [picture]):
        with pytest.raises(InvalidRequest) as refusal:
            talk.ask("What?", lambda reply: reply.read())
        assert dropped == talk.drop_refused(refusal.value)
        assert 1 - len(dropped) == len(talk.pending)


def test_a_refusal_names_the_picture(service, photograph, monkeypatch, capsys):
    """As the user has."""
    refuse_heic(service)
    service.media_types = ()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"What?\n")))
    assert 1 == run(["chat", str(photograph)])
    assert f"llavachat: {photograph}: this is an HEIC picture.\n" == capsys.readouterr().err
