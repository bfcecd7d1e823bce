"""The server's commands as processes: what they say where nobody can read it, and their help."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from llavachat_server.rpc.key_file import read_keys
from server_process import run_server

PROGRAM = (sys.executable, "-m", "llavachat_server")


@contextmanager
def open_nowhere(kind: str) -> Iterator[int]:
    """A descriptor to which nothing can be written."""
    if kind == "a full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def run_unheard(kind: str, *words: str) -> tuple[int, str]:
    """Run a command whose stdout leads nowhere; its exit code and what it says on stderr."""
    with open_nowhere(kind) as stdout:
        done = subprocess.run(
            [*PROGRAM, *words],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    return done.returncode, done.stderr


NOWHERE = {"a full disk": "No space left on device", "a pipe without a reader": "Broken pipe"}


@pytest.mark.parametrize("kind", NOWHERE)
@pytest.mark.parametrize("before", ["", f"ben {'0' * 64}\n"])
def test_no_key_is_added_that_nobody_was_told(tmp_path: Path, kind: str, before: str) -> None:
    """The file is as it was, and none where there was none: an empty one would stop a start."""
    path = tmp_path / "keys"
    if before:
        path.write_text(before)
    said = run_unheard(kind, "keys", "add", "anna", "--file", str(path))
    sentence = "the secret could not be written; no key was added"
    assert (1, f"llavachat-server: {sentence}: {NOWHERE[kind]}\n") == said
    assert before == (path.read_text() if path.exists() else "")
    assert ([path] if before else []) == list(tmp_path.iterdir())


def test_no_key_is_added_where_stdout_is_closed(tmp_path: Path) -> None:
    """Python then has no stdout at all, and prints into the void without an error."""
    path = tmp_path / "keys"
    words = [*PROGRAM, "keys", "add", "anna", "--file", str(path)]
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *words]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert 1 == done.returncode
    assert "no key was added: it is closed\n" in done.stderr
    assert not path.exists()


@pytest.mark.parametrize("kind", NOWHERE)
def test_a_list_that_can_not_be_written_is_told(tmp_path: Path, kind: str) -> None:
    """With the reason, and without a file's name, since there is none."""
    path = tmp_path / "keys"
    path.write_text(f"ben {'0' * 64}\n")
    said = run_unheard(kind, "keys", "list", "--file", str(path))
    assert (1, f"llavachat-server: stdout can not be written: {NOWHERE[kind]}\n") == said
    assert ["ben"] == [key.tenant for key in read_keys(path)]


def test_a_pin_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    """The certificate is there all the same, and can be shown to clients as it is."""
    words = ("certs", "self-signed", "--name", "localhost", "--folder", str(tmp_path))
    code, said = run_unheard("a full disk", *words)
    assert 1 == code
    assert "llavachat-server: the pin could not be written: No space left on device\n" == said
    assert {"tls.crt", "tls.key"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("kind", NOWHERE)
def test_a_finding_that_can_not_be_written_is_told(tmp_path: Path, kind: str) -> None:
    """With exit code 1: who reads that alone must not believe that all is well."""
    (tmp_path / "audit-000001.jsonl").touch()
    said = run_unheard(kind, "audit", "verify", str(tmp_path))
    assert (1, f"llavachat-server: the finding could not be written: {NOWHERE[kind]}\n") == said


def run_in(folder: Path, *words: str) -> tuple[int, str]:
    """Run a command in a folder; its exit code and what it says on stderr."""
    done = subprocess.run(
        [*PROGRAM, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("file", "reader"),
    [
        ("keys", "a server that keeps its state in {folder}"),
        ("for ben", "a server with --keys-file '{folder}/for ben'"),
    ],
)
def test_the_server_is_named_that_goes_by_the_file(tmp_path: Path, file: str, reader: str) -> None:
    """A server reads `keys` in its state folder, and of other names what `keys_file` says."""
    code, said = run_in(tmp_path, "keys", "add", "ben", "--file", file)
    (key,) = read_keys(tmp_path / file)
    expected = (
        f"This is the key {key.id} of ben, told only now. {tmp_path / file} has its hash; "
        f"{reader.format(folder=tmp_path)} takes it up within 5 seconds. It is the only one there: "
        "a server that had no key let everybody in, and from then on ends the calls of those who "
        "have none.\n"
    )
    assert (0, expected) == (code, said)


def test_what_the_first_key_and_the_last_do_to_a_server_is_told(tmp_path: Path) -> None:
    """The first shuts out who has none, and without any the server does not start: it does not."""
    file = ("--file", str(tmp_path / "keys"))
    said = [run_in(tmp_path, "keys", "add", name, *file)[1] for name in ("anna", "ben")]
    closes = "from then on ends the calls of those who have none"
    assert [True, False] == [closes in sentence for sentence in said]
    said = [run_in(tmp_path, "keys", "revoke", name, *file)[1] for name in ("anna", "ben")]
    shuts = "nobody may call any more, and the server will not start until a key is added or the"
    assert [False, True] == [shuts in sentence for sentence in said]
    flags = ("--listen", "127.0.0.1:0", "--store", "memory", "--state-folder", str(tmp_path))
    code, said_at_start = run_in(tmp_path, *flags)
    assert (1, True) == (code, "the key file holds no key" in said_at_start)


def test_the_list_to_look_at_is_that_of_the_same_file(tmp_path: Path) -> None:
    """What a refusal advises can be typed as it stands."""
    code, said = run_in(tmp_path, "keys", "revoke", "anna", "--file", "for ben")
    advice = "see llavachat-server keys list --file 'for ben'"
    assert (1, f"llavachat-server: for ben has no key 'anna'; {advice}\n") == (code, said)


def test_a_misspelt_variable_is_told_in_the_log(tmp_path: Path) -> None:
    """The server serves, and says that nobody reads it; its value is not shown."""
    with run_server(tmp_path, environment={"LLAVACHAT_MAX_CHAT_AGE_DAY": "30.125"}) as server:
        log = server.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    told = [line for line in lines if "LLAVACHAT_MAX_CHAT_AGE_DAY" == line.get("variable")]
    expected = ("warning", "a variable is no setting", "LLAVACHAT_MAX_CHAT_AGE_DAYS")
    assert [expected] == [(line["level"], line["event"], line["did_you_mean"]) for line in told]
    assert "30.125" not in log
