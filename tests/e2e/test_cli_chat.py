"""`llavachat chat` at a real pseudo-terminal."""

import os
import socket
import sys
import threading

import grpc
import pytest
from llavachat.v1 import chat_pb2
from PIL import Image
from scripted_service import abort, refuse_field, started
from terminal import Terminal

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"
PROMPT = ">"


@pytest.fixture
def picture(tmp_path):
    """The path of a small picture."""
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 20), "red").save(path)
    return str(path)


@pytest.fixture
def talk(scripted, tmp_path):
    """Starts `llavachat` at a terminal."""
    terminals = []

    def begin(*arguments, columns=100, **environment):
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "LLAVACHAT_ADDRESS": scripted.address,
            "LLAVACHAT_STATE_DIR": str(tmp_path / "state"),
        }
        command = [sys.executable, "-m", "llavachat", *arguments]
        terminals.append(Terminal(command, {**settings, **environment}, columns=columns))
        return terminals[-1]

    yield begin
    for terminal in terminals:
        terminal.close()


def test_a_talk(talk, service, picture):
    """A thumbnail, an answer set as Markdown, a follow-up, history by the up key, Ctrl-D."""
    service.words = ("A **red** ", "circle.\n\n", "- round\n- red\n")
    terminal = talk("chat", picture)
    terminal.expect("scripted-model at")
    terminal.expect("image/png, 40 x 20 pixels")
    terminal.expect("▀▀▀▀")
    assert "\x1b[38;2;255;0;0" in terminal.raw
    terminal.expect(PROMPT)
    terminal.send("What is this?\r")
    terminal.expect("A red circle.")
    terminal.expect(" • round")
    terminal.expect(PROMPT)
    terminal.send(UP)
    terminal.expect("What is this?")
    terminal.send("!\r")
    terminal.expect("A red circle.")
    terminal.expect(PROMPT)
    terminal.send(CTRL_D)
    assert 0 == terminal.wait()
    assert ["What is this?", "What is this?!"] == [
        request.prompt for request in service.requests if hasattr(request, "prompt")
    ]
    assert "Traceback" not in terminal.text


def test_a_server_that_went_away_is_told_at_once(talk, scripted):
    """Who types is not kept waiting for its return, and the talk goes on."""
    terminal = talk("chat")
    terminal.expect("scripted-model at")
    terminal.send("What is this?\r")
    terminal.expect("A red circle.")
    terminal.expect(PROMPT)
    scripted.stop()
    terminal.send("And now?\r")
    terminal.expect("No llavachat server answers at")
    terminal.expect(PROMPT)
    terminal.send(CTRL_D)
    assert 0 == terminal.wait()


def test_ctrl_c_stops_the_answer_and_keeps_what_came(talk, service, picture):
    """The server is told, the talk goes on, and the next question keeps the chat."""

    def answer(request, context):
        context.add_callback(service.cancelled.set)
        yield started("chat-9", "turn-1")
        offset = 0
        while not service.cancelled.wait(0.05):
            yield chat_pb2.ChatEvent(delta=chat_pb2.TextDelta(text="more ", char_offset=offset))
            offset += 5

    service.answer = answer
    terminal = talk("chat", picture)
    terminal.expect(PROMPT)
    terminal.send("Go on.\r")
    terminal.expect("more more more")
    terminal.send(CTRL_C)
    terminal.expect("The answer was stopped.")
    assert service.cancelled.wait(60)
    terminal.expect(PROMPT)
    assert [("chat-9", "turn-1")] == [(told.chat_id, told.turn_id) for told in service.stopped]

    service.chats["chat-9"] = chat_pb2.Chat(id="chat-9")
    service.answer = service.tell
    terminal.send("And now?\r")
    terminal.expect("A red circle.")
    request = service.requests[-1]
    # The server keeps the pictures that opened the chat; they are not sent again.
    assert ("chat-9", 0) == (request.chat_id, len(request.images))
    terminal.expect(PROMPT)
    terminal.send("half a thought" + CTRL_C)
    terminal.expect("Ctrl-D leaves.")
    terminal.send("/quit\r")
    assert 0 == terminal.wait()
    assert "Traceback" not in terminal.text


def test_ctrl_c_stops_a_command_and_not_the_talk(talk, service, picture, monkeypatch):
    """A picture that does not come, a server that does not answer; then the next question."""
    asked, release = threading.Event(), threading.Event()
    terminal = talk("chat", picture, no_proxy="*")
    terminal.expect(PROMPT)
    terminal.send("What is this?\r")
    terminal.expect("A red circle.")
    terminal.expect(PROMPT)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        terminal.send(f"/image http://127.0.0.1:{silent.getsockname()[1]}/a.png\r")
        with silent.accept()[0]:
            terminal.send(CTRL_C)
            terminal.expect("/image was stopped.")
    terminal.expect(PROMPT)

    def hold(*_):
        asked.set()
        release.wait(20)

    monkeypatch.setattr(service, "_keep", hold)
    terminal.send("/save talk.md\r")
    assert asked.wait(10)
    terminal.send(CTRL_C)
    terminal.expect("/save was stopped.")
    monkeypatch.undo()
    release.set()
    terminal.expect(PROMPT)
    terminal.send("And now?\r")
    terminal.expect("A red circle.")
    assert 0 == len(service.requests[-1].images)
    terminal.expect(PROMPT)
    terminal.send(CTRL_D)
    assert 0 == terminal.wait()


def test_an_error_does_not_end_the_talk(talk, service, picture):
    """A missing picture is a sentence, and the next line is read."""
    terminal = talk("chat", picture)
    terminal.expect(PROMPT)
    terminal.send("/image nowhere.png\r")
    terminal.expect("nowhere.png does not exist.")
    terminal.expect(PROMPT)
    terminal.send(f"/image {picture}\r")
    terminal.expect("goes with the next question")
    terminal.expect(PROMPT)
    terminal.send("/he\t")
    terminal.expect("lp")  # completed
    terminal.send("\r")
    terminal.expect("Ctrl-C stops an answer")
    terminal.expect(PROMPT)
    terminal.send(CTRL_D)
    assert 0 == terminal.wait()


def test_a_refused_picture_does_not_lock_the_talk(talk, service, picture):
    """It is named, and goes with no later question."""

    def answer(request, context):
        if request.images:
            refuse_field(context, "images[0].data", "it is damaged")
        yield from service.tell(request, context)

    service.answer = answer
    # Wide enough for the whole path of a folder for temporary files.
    terminal = talk("chat", columns=400)
    terminal.expect(PROMPT)
    terminal.send(f"/image {picture}\r")
    terminal.expect("goes with the next question")
    terminal.expect(PROMPT)
    terminal.send("What is this?\r")
    terminal.expect("red.png: it is damaged.")
    terminal.expect("goes with no later")
    terminal.expect(PROMPT)
    terminal.send("And now?\r")
    terminal.expect("A red circle.")
    terminal.expect(PROMPT)
    terminal.send(CTRL_D)
    assert 0 == terminal.wait()


def test_a_history_that_can_not_be_kept_is_no_reason_to_be_silent(talk, picture, tmp_path):
    """Neither read nor written, as another user's: it lasts as long as the talk."""
    (tmp_path / "state" / "history").mkdir(parents=True)
    terminal = talk("chat", picture)
    terminal.expect(PROMPT)
    terminal.send("What is this?\r")
    terminal.expect("A red circle.")
    terminal.expect(PROMPT)
    terminal.send(UP)
    terminal.expect("What is this?")
    terminal.send(CTRL_C + CTRL_D)
    assert 0 == terminal.wait()
    assert "Exception" not in terminal.text


OBEYED = "\x1b]52;c;ZXZpbA==\x07 \x1b[2J \x9b31m \x7f \u202e"
SPELT = "�]52;c;ZXZpbA==� �[2J �31m � �"


@pytest.mark.parametrize(
    ("arguments", "num_shown"),
    [
        (["chats"], 1),
        (["chats", "chat-1"], 3),
        (["export", "chat-1"], 3),
        (["ask", "PICTURE", "What?"], 1),
        (["ask", "PICTURE", "Refuse."], 1),
        (["chat", "PICTURE"], 1),
    ],
)
def test_a_terminal_is_not_shown_what_it_would_obey(talk, service, picture, arguments, num_shown):
    """Titles, questions, answers and refusals, whoever wrote them."""

    def answer(request, context):
        if request.prompt == "Refuse.":
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"refused {OBEYED}")
        yield from service.tell(request, context)

    turn = chat_pb2.Turn(id="turn-1", prompt=f"Q {OBEYED}", answer=f"A {OBEYED}")
    service.chats["chat-1"] = chat_pb2.Chat(id="chat-1", title=f"T {OBEYED}", turns=[turn])
    service.words, service.answer = (f"Told {OBEYED}.",), answer
    terminal = talk(*(picture if each == "PICTURE" else each for each in arguments), NO_COLOR="1")
    if arguments[0] == "chat":
        terminal.expect(PROMPT)
        terminal.send("What?\r")
        terminal.expect("Told")
        terminal.expect(PROMPT)
        terminal.send(CTRL_D)
    terminal.wait()
    assert num_shown <= terminal.raw.count(SPELT)
    assert [] == [sign for sign in ("\x1b]", "\x9b", "\x7f", "\u202e") if sign in terminal.raw]


def test_ids_can_be_copied_from_a_narrow_terminal(talk, service):
    """The question is cut, and how often and when it was used are told."""
    chat_id = "3f0c9a1e-5b1d-4c55-9d0a-7c1f2e3d4a5b"
    service.chats[chat_id] = chat_pb2.Chat(id=chat_id, title="What is it? " * 9, num_turns=12)
    terminal = talk("chats", COLUMNS="60")
    assert 0 == terminal.wait()
    _, line = terminal.text.strip().split("\n")
    assert line.startswith(f"{chat_id}    12 ")
    assert line.endswith("…")
    assert 60 == len(line)


def test_notes_are_folded_between_words(talk, service, picture):
    """At the terminal's width; the second column of /help stays one."""
    terminal = talk("chat", picture, COLUMNS="60", NO_COLOR="1")
    terminal.expect(PROMPT)
    terminal.send("/help\r")
    terminal.expect("/image PATH   add a picture (or an http(s) address) to the\n")
    terminal.expect("              next question\n")
    terminal.expect(PROMPT)
    terminal.send("What?\r")
    terminal.expect("A red circle.")
    terminal.expect(PROMPT)
    terminal.send("/usage\r")
    terminal.expect("104 tokens asked")
    terminal.expect("context left")
    terminal.expect(PROMPT)
    usage = terminal.text[terminal.text.index("104 tokens asked") :].split("\n")
    assert all(len(line) <= 60 for line in usage[:3])
    assert "first token" in " ".join(usage[:2])


def test_no_color_means_none(talk, picture):
    """With NO_COLOR there are no colours and no thumbnail."""
    terminal = talk("chat", picture, NO_COLOR="1")
    terminal.expect("image/png, 40 x 20 pixels")
    terminal.expect(PROMPT)
    assert "▀" not in terminal.text
    assert "[38;" not in terminal.raw
    terminal.send(CTRL_D)
    assert 0 == terminal.wait()


def test_ctrl_c_ends_ask_with_130(talk, service, picture):
    """What came is kept, the shell's prompt gets a line of its own, no traceback."""

    def answer(request, context):
        context.add_callback(service.cancelled.set)
        yield started()
        yield chat_pb2.ChatEvent(delta=chat_pb2.TextDelta(text="A red"))
        service.cancelled.wait(20)

    service.answer = answer
    terminal = talk("ask", picture, "What?")
    terminal.expect("A red")
    terminal.send(CTRL_C)
    assert 130 == terminal.wait()
    assert service.cancelled.wait(60)
    assert ["turn-1"] == [told.turn_id for told in service.stopped]
    assert "A red^C\n" == terminal.text
