"""What a command line means, without any server: options, exit codes, sentences."""

from datetime import datetime

import llavachat
import pytest
from llavachat import errors
from llavachat._wire.status import DETAILS_KEY, read_status
from llavachat.cli import options
from llavachat.cli.app import run
from llavachat.cli.failure import ExitCode, Failure, judge
from llavachat.v1 import error_details_pb2


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
    """The first one parts key and value; the same pair twice is one."""
    assert {"url": "a=b"} == options.parse_labels(["url=a=b", "url=a=b"])


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
        (["ask", "-l", "a=1", "-l", "a=2", "x", "y"], 2, "--label 'a' is given twice, as '1' and"),
        (["chats", "--delete", "-y", "-l", "a=1", "-l", "a=2"], 2, "'a' is given twice"),
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
