"""What a command line means, without any server: arguments, exit codes, sentences."""

import io
import os
import sys
from datetime import datetime
from pathlib import Path

import llavachat
import pytest
from llavachat import errors, images
from llavachat._wire.status import DETAILS_KEY, read_status
from llavachat.cli import ask, options
from llavachat.cli.app import run
from llavachat.cli.ask import split_arguments
from llavachat.cli.failure import ExitCode, Failure, judge
from llavachat.v1 import error_details_pb2


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


@pytest.mark.parametrize("kind", [ValueError, OverflowError, OSError])
def test_a_time_that_the_machine_has_not_is_told(monkeypatch, kind):
    """Windows has no local time of before 1970, and says so by an OSError."""

    class Clock(datetime):
        def astimezone(self, tz=None):
            raise kind

    monkeypatch.setattr(options, "datetime", Clock)
    with pytest.raises(Failure, match="--since '1969-07-20' is no time"):
        options.parse_time("--since", "1969-07-20")


@pytest.mark.parametrize("label", ["", "key", "key=", "=value"])
def test_wrong_labels_are_told(label):
    """A label is a pair."""
    with pytest.raises(Failure, match="is not KEY=VALUE"):
        options.parse_labels([label])


def test_labels_may_hold_equal_signs():
    """The first one parts key and value."""
    assert {"url": "a=b"} == options.parse_labels(["url=a=b"])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["ask", "--tempature", "1"], 2, "No such option: --tempature"),
        (["ask", "--temperature", "3", "x", "y"], 2, "Invalid value for '--temperature' / '-t'"),
        (["ask", "--top-k", "many", "x", "y"], 2, "Invalid value for '--top-k'"),
        (
            ["ask", "--overflow", "explode", "x", "y"],
            2,
            "llavachat: Invalid value for '--overflow': 'explode' is not one of 'error', 'drop'.",
        ),
        (
            ["export", "x", "--format", "markdown"],
            2,
            "llavachat: Invalid value for '--format': 'markdown' is not one of 'md', 'json', "
            "'html'. See: llavachat export --help",
        ),
        (["ask", "-c", "--chat", "1", "And?"], 2, "--chat and --continue both name a chat"),
        (["ask", "-c", "-s", "Be brief.", "And?"], 2, "belong to a new chat"),
        (["ask", "--label", "x", "a", "b"], 2, "--label 'x' is not KEY=VALUE"),
        (["ask", "nowhere.png", "What?"], 2, "nowhere.png does not exist."),
        (["ask", "", "What?"], 2, "The path of the picture is empty."),
        (["ask", "-a", "https://x", "nowhere.png", "What?"], 2, "is not a server's address"),
        (["ask", "--ca-file", "no.pem", "a.png", "What?"], 2, "no.pem can not be read"),
        (["ask", "--timeout", "0", "a.png", "What?"], 2, "--timeout is 0.0"),
        (["ask", "--top-p", "0", "x", "y"], 2, "0.0 is not in the range 0<x<=1."),
        (["ask", "--top-p", "nan", "x", "y"], 2, "nan is not in the range 0<x<=1."),
        (["ask", "--repetition-penalty", "0", "x", "y"], 2, "0.0 is not in the range 0<x<=2."),
        (["ask", "--top-k", str(2**31), "x", "y"], 2, "less than or equal to 2147483647"),
        (["ask", "--max-tokens", str(2**31), "x", "y"], 2, "less than or equal to 2147483647"),
        (["ask", "--seed", str(2**64), "x", "y"], 2, f"less than or equal to {2**64 - 1}"),
        (["ask", "--stop", "", "x", "y"], 2, "'' has 0 characters; it must have 1 to 64."),
        (["ask", "--stop", "x" * 65, "x", "y"], 2, "has 65 characters; it must have 1 to 64."),
        (["chat", *["--stop", "x"] * 9], 2, "9 texts are given; at most 8 are taken."),
        (["ask", "--no-tls", "--pin", "x", "y", "z"], 2, "--no-tls does not go with a CA file"),
        (["ask", "--pin", "x", "y", "z"], 2, "--pin is 'x'"),
        (["ask", "-c", "And?"], 2, "There is no last chat with localhost:50051"),
        (["chat", "-"], 2, "reads questions from stdin"),
        (["chats", "--delete"], 2, "give its ID"),
        (["chats", "id", "--raw", "--json"], 2, "exclude each other"),
        (["chats", "--raw"], 2, "give its ID"),
        (["chats", "id", "-l", "a=b"], 2, "An ID names one chat"),
        (["chats", "--all", "--limit", "3"], 2, "--limit and --all exclude each other"),
        (["chats", "--delete", "-l", "a=b", "-n", "3"], 2, "--limit is for lists"),
        (["chats", "--since", "yesterday"], 2, "--since 'yesterday' is no time; give one such as"),
        (["chats", "--before", "0001-01-01"], 2, "--before '0001-01-01' is no time"),
        (["chats", "--since", "0001-01-01T00:00+14:00"], 2, "--since must be in the years 1 to"),
        (["chats", "--limit", "0"], 2, "Invalid value for '--limit' / '-n'"),
        (["peel"], 2, "No such command 'peel'"),
        (["demo", "now"], 2, "unexpected extra argument"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, code, sentence, capsys, tmp_path, monkeypatch):
    """Exit code 2, one line on stderr, nothing on stdout."""
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("LLAVACHAT_ADDRESS", raising=False)
    seen = run(arguments)
    output = capsys.readouterr()
    assert (code, "") == (seen, output.out)
    assert sentence.lower() in output.err.lower()
    assert 1 == output.err.count("\n")
    assert output.err.startswith("llavachat: ")


@pytest.mark.parametrize("variable", ["LLAVACHAT_TIMEOUT_SECONDS", "LLAVACHAT_TLS"])
def test_a_wrong_variable_is_told(variable, capsys, monkeypatch, picture):
    """The environment is checked as flags are."""
    monkeypatch.setenv(variable, "perhaps")
    assert 2 == run(["ask", picture, "What?"])
    assert variable in capsys.readouterr().err


def test_the_key_needs_tls(capsys, monkeypatch, picture):
    """A key never leaves the machine in clear text, and is never shown."""
    monkeypatch.setenv("LLAVACHAT_API_KEY", "secret-key")
    assert 2 == run(["ask", "-a", "gpu.example", picture, "What?"])
    output = capsys.readouterr()
    assert "clear text; use --tls or --pin, or LLAVACHAT_ALLOW_INSECURE=1 where" in output.err
    assert "secret-key" not in output.err


def test_version_and_help(capsys):
    """Both go to stdout and are no errors; no command at all is a wish for help."""
    assert 0 == run(["--version"])
    assert f"llavachat {llavachat.__version__}\n" == capsys.readouterr().out
    for arguments in ([], ["--help"], ["ask", "-h"]):
        assert 0 == run(arguments)
        assert "Usage: llavachat" in capsys.readouterr().out


def _make(cls):
    return cls("Something happened.")


@pytest.mark.parametrize(
    "cls",
    [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.LlavaChatError)
    ],
)
def test_every_error_has_a_sentence_and_a_code(cls):
    """Connection trouble is 3, the user's own mistakes are 2, the server's word is 1."""
    failure = judge(_make(cls))
    expected = ExitCode.FAILED
    if issubclass(cls, errors.ServerUnavailable | errors.CertificateRefused):
        expected = ExitCode.UNAVAILABLE
    elif issubclass(cls, errors.ConfigurationError | errors.ImageError | errors.ArchiveError):
        expected = ExitCode.USAGE
    assert expected is failure.code
    assert str(failure).startswith("Something happened.")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            errors.DeadlineExceeded("The answer did not come within timeout_seconds."),
            "The answer did not come within --timeout.",
        ),
        (
            errors.InvalidRequest("params.top_p: is 3; allowed: over 0.0 to 1.0."),
            "--top-p: is 3; allowed: over 0.0 to 1.0.",
        ),
        (errors.InvalidRequest("prompt: is blank."), "The question: is blank."),
        (errors.InvalidRequest("Stop must not be."), "Stop must not be."),
        (
            errors.ConfigurationError("tls_ca_file top_k.pem can not be read."),
            "--ca-file top_k.pem can not be read.",
        ),
        (
            errors.ConfigurationError("tls_pin is 'timeout_seconds'; it must not be."),
            "--pin is 'timeout_seconds'; it must not be.",
        ),
        (errors.ImageError("top_k does not exist."), "top_k does not exist."),
        (
            errors.AuthenticationFailed("The server wants a key."),
            "The server wants a key. Set LLAVACHAT_API_KEY to a key that it knows.",
        ),
        (
            errors.CannotConnect("No llavachat server answers at x:1 (it does not speak TLS)."),
            "No llavachat server answers at x:1 (it does not speak TLS). See --tls, --ca-file and "
            "--pin.",
        ),
    ],
)
def test_a_sentence_is_in_the_command_lines_words(error, expected):
    """Options and variables in place of arguments; what the user wrote stays as it is."""
    assert expected == str(judge(error))


@pytest.mark.parametrize(
    ("can_drop", "advice"),
    [
        (False, "shorten the question."),
        (True, "shorten the question, give `--overflow drop`, or start a new chat."),
    ],
)
def test_a_full_context_names_the_option_where_it_would_help(can_drop, advice):
    """The server's own sentence, and its counts; it knows whether turns could be left out."""
    values = pytest.importorskip("llavachat_server.values")
    status = pytest.importorskip("llavachat_server.rpc.status")
    full = values.ContextFull(5, 7, 10, 9, can_drop=can_drop)
    refusal = status.ROWS[values.ContextFull](full)
    packed = error_details_pb2.ErrorStatus(message=refusal.message)
    for detail in refusal.details:
        packed.details.add().Pack(detail)
    trailers = ((DETAILS_KEY, packed.SerializeToString()),)
    error = read_status(refusal.code, refusal.message, trailers, address="localhost:50051")
    said = f"{full}; {advice}"
    assert said[0].upper() + said[1:] == str(judge(error))


def test_a_request_that_was_not_sent_is_wrong_use():
    """The client refused it; what the server refused is a failure."""
    for reason, code in ((errors.NOT_SENT, ExitCode.USAGE), ("", ExitCode.FAILED)):
        violation = errors.FieldViolation("stop", "must be text", reason)
        details = errors.StatusDetails(violations=(violation,))
        assert code is judge(errors.InvalidRequest("stop must be text.", details)).code


def test_when_to_try_again_is_told():
    """The server's wish is passed on."""
    details = errors.StatusDetails(retry_after_seconds=2.0)
    assert "Full. Try again in 2 s." == str(judge(errors.LimitReached("Full.", details)))
