"""The command line as a process whose stdin and stdout fail it: a sentence, never a traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PROGRAM = [sys.executable, "-m", "llavachat"]
FULL = "stdout can not be written: No space left on device."


@pytest.fixture
def call(scripted, tmp_path):
    """Run a command on that server, beside a picture, red.png; its code and its stderr."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    environment = {
        **os.environ,
        "LLAVACHAT_ADDRESS": scripted.address,
        "LLAVACHAT_STATE_DIR": str(tmp_path / "state"),
        "PYTHONIOENCODING": "utf-8",
    }

    def run(*arguments, shell=(), encoding="utf-8", stdin=subprocess.DEVNULL, **options):
        done = subprocess.run(
            [*shell, *PROGRAM, *arguments],
            cwd=tmp_path,
            env={**environment, "PYTHONIOENCODING": encoding},
            stderr=subprocess.PIPE,
            timeout=60,
            stdin=stdin,
            **options,
        )
        return done.returncode, done.stderr.decode()

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "red.png", "What?"],
        ["ask", "red.png", "What?", "--json"],
        ["chats"],
        ["chats", "chat-1"],
        ["export", "chat-1"],
        ["profiles"],
        ["--version"],
        ["--help"],
        ["ask", "--help"],
        [],
    ],
)
def test_a_full_disk_is_told(call, arguments):
    """Once: not again when the interpreter ends; a table as the text."""
    call("ask", "red.png", "What?", stdout=subprocess.DEVNULL)
    call("profiles", "mine", "--address", "localhost")
    call("profiles", "--none")
    with Path("/dev/full").open("wb") as full:
        assert (1, f"llavachat: {FULL}\n") == call(*arguments, stdout=full)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["ask", "--help"], ["chats"]])
def test_a_reader_that_has_left_is_no_failure_of_ours(call, arguments):
    """`llavachat --help | true`: nothing on stderr, and the shell's own code."""
    call("ask", "red.png", "What?", stdout=subprocess.DEVNULL)
    reader, writer = os.pipe()
    os.close(reader)
    told = call(*arguments, stdout=writer)
    os.close(writer)
    assert (141, "") == told


@pytest.mark.parametrize("format", ["md", "json", "html"])
def test_an_export_is_utf_8_whatever_stdout_s_encoding_is(call, scripted, tmp_path, format):
    """As in a file, byte for byte; what Latin-1 does not have is no failure."""
    scripted.service.words = ("Größer ", "\N{GRINNING FACE}", ".")
    call("ask", "red.png", "Wie groß?", stdout=subprocess.DEVNULL)
    assert 0 == call("export", "-c", "-o", f"talk.{format}")[0]
    with (tmp_path / "stdout").open("wb") as stdout:
        told = call("export", "-c", "--format", format, encoding="latin-1", stdout=stdout)
    assert (0, "") == told
    expected = (tmp_path / f"talk.{format}").read_bytes()
    assert expected == (tmp_path / "stdout").read_bytes()
    assert "Größer \N{GRINNING FACE}." in expected.decode()


def test_an_export_that_finds_no_room_leaves_the_one_before(call, tmp_path):
    """A file that may grow to 512 bytes stands for a full disk; nothing else is left behind."""
    call("ask", "red.png", "What?", stdout=subprocess.DEVNULL)
    assert (0, "Saved to talk.json.\n") == call("export", "-c", "-o", "talk.json")
    before = (tmp_path / "talk.json").read_bytes()
    files = sorted(tmp_path.iterdir())
    told = call(
        "export", "-c", "-o", "talk.json", shell=("sh", "-c", 'ulimit -f 1; exec "$@"', "sh")
    )
    assert (1, "llavachat: talk.json can not be written: File too large.\n") == told
    assert (before, files) == ((tmp_path / "talk.json").read_bytes(), sorted(tmp_path.iterdir()))


@pytest.mark.parametrize("arguments", [["ask", "red.png", "What?"], ["chats", "chat-1"]])
def test_a_character_that_stdout_does_not_have_is_told(call, scripted, arguments):
    """With what would help."""
    scripted.service.words = ("A smile: ", "\N{GRINNING FACE}", ".")
    call("ask", "red.png", "What?", stdout=subprocess.DEVNULL)
    sentence = (
        r"stdout's encoding, iso8859-1, does not have '\U0001f600'; set PYTHONIOENCODING=utf-8."
    )
    told = call(*arguments, encoding="latin-1", stdout=subprocess.DEVNULL)
    assert (1, f"llavachat: {sentence}\n") == told


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_a_question_that_is_no_text_is_told(call, scripted, tmp_path, command):
    """Bytes that are not in stdin's encoding."""
    (tmp_path / "question").write_bytes(b"\xe9\n")
    with (tmp_path / "question").open("rb") as question:
        told = call(command, "red.png", encoding="utf-8:strict", stdin=question)
    assert (2, "llavachat: stdin is no text in utf-8.\n") == told
    assert not scripted.service.chats


@pytest.mark.parametrize(
    ("arguments", "code", "subject"),
    [
        (["ask", "red.png"], 1, "stdin"),
        (["chat", "red.png"], 1, "stdin"),
        (["ask", "-", "What?"], 2, "The input"),
    ],
)
def test_a_stdin_that_can_not_be_read_is_told(call, arguments, code, subject):
    """One that was opened to be written, say."""
    with Path(os.devnull).open("wb") as unreadable:
        told = call(*arguments, stdin=unreadable)
    assert (code, f"llavachat: {subject} can not be read: Bad file descriptor.\n") == told


@pytest.mark.parametrize(
    ("closed", "arguments", "code", "sentence"),
    [
        ("<&-", ["ask", "red.png"], 2, r"llavachat: The question is blank\. .+\n"),
        ("<&-", ["ask", "-", "What?"], 2, r"llavachat: /dev/null is empty\.\n"),
        ("<&-", ["chat", "red.png"], 0, ""),
        (">&-", ["ask", "red.png", "What?"], 0, ""),
    ],
)
def test_a_closed_stream_is_an_empty_one(call, closed, arguments, code, sentence):
    """As for a service that is started without them."""
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    seen, told = call(*arguments, shell=shell, stdout=subprocess.DEVNULL)
    assert code == seen
    assert re.fullmatch(sentence, told)
