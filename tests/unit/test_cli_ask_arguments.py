"""Which arguments of `ask` are pictures, and which is the question; no server."""

import io
import os
import sys
from pathlib import Path

import pytest
from llavachat import images
from llavachat.cli import ask
from llavachat.cli.ask import split_arguments
from llavachat.cli.failure import ExitCode, Failure


@pytest.fixture
def no_terminal(monkeypatch):
    """stdin is a pipe with a question in it."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"From stdin?\n")))


@pytest.fixture
def terminal(monkeypatch):
    """stdin is a terminal."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)


def test_the_last_argument_is_the_question(picture):
    """Whatever stands before it is a picture."""
    assert ((picture,), "What?") == split_arguments([picture, "What?"], continued=False)
    names = ["a.png", "https://x.example/b.png"]
    assert (tuple(names), "What?") == split_arguments([*names, "What?"], continued=False)
    assert ((), "And?") == split_arguments(["And?"], continued=True)


def test_stdin_is_a_picture_or_the_question(picture, no_terminal):
    """`-` reads a picture; a missing question is read."""
    names, question = split_arguments(["-", "What?"], continued=False)
    assert ((sys.stdin.buffer,), "What?") == (names, question)
    assert ((picture,), "From stdin?") == split_arguments([picture], continued=False)


def test_several_pictures_are_one_questions(picture, tmp_path, no_terminal):
    """`echo question | llavachat ask a.png b.png`: the last is a picture too, a file or an
    address."""
    second = tmp_path / "second.png"
    second.write_bytes(b"")
    for last in (str(second), "https://x.example/b.png"):
        sys.stdin.seek(0)
        assert ((picture, last), "From stdin?") == split_arguments([picture, last], continued=False)


def test_a_picture_of_ones_home_is_a_picture(picture, tmp_path, no_terminal, monkeypatch):
    """In quotes, where no shell has written its folder out."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (("~/red.png",), "From stdin?") == split_arguments(["~/red.png"], continued=False)


def test_a_file_may_be_called_as_the_question_is(picture, tmp_path, monkeypatch, terminal):
    """One that is no picture, by its name or by its first bytes, is passed over."""
    monkeypatch.chdir(tmp_path)
    Path("Describe").write_text("To do.")
    assert ((picture,), "Describe") == split_arguments([picture, "Describe"], continued=False)
    assert ((), "Describe") == split_arguments(["Describe"], continued=True)


@pytest.mark.parametrize(
    ("name", "begin"),
    [("photo", None), ("photo", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"), ("notes.txt", b"To do.")],
)
def test_a_file_that_may_be_meant_as_a_picture_is_one(
    picture, tmp_path, monkeypatch, no_terminal, name, begin
):
    """By its first bytes; and by an ending, so that it is told what it is."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(Path(picture).read_bytes() if begin is None else begin)
    assert ((picture, name), "From stdin?") == split_arguments([picture, name], continued=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_a_picture(picture, tmp_path, no_terminal):
    """`llavachat ask a.png <(program)`; to look into it would take its bytes."""
    pipe = str(tmp_path / "63")
    os.mkfifo(pipe)
    assert ((picture, pipe), "From stdin?") == split_arguments([picture, pipe], continued=False)


def test_what_was_taken_for_a_picture_is_told(terminal, picture):
    """At a terminal, where there is then no question."""
    for last, kind in ((picture, "a file here"), ("https://x.example/b.png", "an address")):
        with pytest.raises(Failure) as failure:
            split_arguments([picture, last], continued=False)
        assert str(failure.value) == (
            f"There is no question: {last} is {kind}, and was taken for a picture. "
            "Use: llavachat ask PICTURE QUESTION."
        )


def test_a_picture_that_is_there_is_not_said_to_be_missing(picture, tmp_path, monkeypatch):
    """Why it can not be opened is told; a name that came by stdin is no argument."""
    monkeypatch.chdir(tmp_path)
    Path("d.png").mkdir()
    with pytest.raises(Failure, match=r"^d\.png is a folder; give a picture\.$"):
        split_arguments([picture, "d.png"], continued=False)
    with pytest.raises(Failure, match=r"^red\.png/a\.png can not be read: Not a directory\.$"):
        split_arguments([picture, "red.png/a.png"], continued=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"red.png\n")))
    with pytest.raises(
        Failure, match=r"^There is no picture\. Use: llavachat ask PICTURE QUESTION"
    ):
        split_arguments([], continued=False)


def test_words_that_begin_as_an_address_are_fetched_from_nowhere(monkeypatch):
    """They are a question without a picture, whatever they end as."""
    fetched = []
    monkeypatch.setattr(images, "download", fetched.append)
    with pytest.raises(Failure, match=r"^There is no picture\. Use: llavachat ask"):
        split_arguments(["http://x.example/a.png is like b.png"], continued=False)
    assert [] == fetched


def test_a_file_that_may_not_be_read_is_no_question(picture, tmp_path, monkeypatch, no_terminal):
    """Why it can not be opened is told when it is."""

    def refuse(path):
        raise PermissionError(path)

    monkeypatch.chdir(tmp_path)
    Path("photo").write_bytes(Path(picture).read_bytes())
    monkeypatch.setattr(ask, "is_picture_file", refuse)
    assert ((picture, "photo"), "From stdin?") == split_arguments(
        [picture, "photo"], continued=False
    )


@pytest.mark.parametrize("continued", [True, False])
@pytest.mark.parametrize("before", [[], ["a.png"]])
def test_a_missing_picture_is_no_question(no_terminal, continued, before):
    """What is called as a picture is not asked, also where the chat goes on."""
    with pytest.raises(Failure, match=r"^missing\.JPG does not exist\.$") as failure:
        split_arguments([*before, "missing.JPG"], continued=continued)
    assert ExitCode.USAGE is failure.value.code


def test_a_question_may_end_as_a_picture_is_called():
    """Words before it make it a question."""
    question = "Is it more like a.png or b.png"
    assert ((), question) == split_arguments([question], continued=True)
    with pytest.raises(Failure, match=r"^There is no picture: my photo\.jpg does not exist\.$"):
        split_arguments(["my photo.jpg"], continued=False)


def test_a_question_may_begin_with_an_address(picture, no_terminal):
    """Words after it make it a question; stdin is not read."""
    question = "https://x.example/b.png is where it hangs: which room is that?"
    assert ((picture,), question) == split_arguments([picture, question], continued=False)


def test_an_empty_question_is_none(picture, no_terminal):
    """`ask x.png "$QUESTION"`, where the variable is empty: stdin is it, and "" no picture."""
    assert ((picture,), "From stdin?") == split_arguments([picture, ""], continued=False)


def test_stdin_is_the_question_of_a_chat_that_goes_on(no_terminal):
    """`echo question | llavachat ask -c`."""
    assert ((), "From stdin?") == split_arguments([], continued=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "There is no question."),
        (["-"], "There is no question."),
        (["What is this?"], "There is no picture."),
        (["x.png", "  "], "The question is blank."),
        (["x.png", ""], "There is no question."),
        (["-", "-", "What?"], "stdin can be read once"),
    ],
)
def test_what_is_no_question_is_told(terminal, arguments, sentence):
    """The sentence says what is missing and how it would be right."""
    with pytest.raises(Failure, match=sentence) as failure:
        split_arguments(arguments, continued=False)
    assert ExitCode.USAGE is failure.value.code


def test_a_question_longer_than_a_file_name(terminal):
    """A long question is no path, and no crash."""
    with pytest.raises(Failure, match="There is no picture"):
        split_arguments(["Why? " * 1000], continued=False)
