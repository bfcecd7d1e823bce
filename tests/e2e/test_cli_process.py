"""The command line as a process: pipes, the real server, `serve`, `demo`, a bare environment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from llavachat.cli.demo import FOLLOW_UP, PICTURE, QUESTION
from scripted_service import ScriptedServer

PROGRAM = [sys.executable, "-m", "llavachat"]
TEXT = ("--log-format", "text")


@pytest.fixture
def environment(tmp_path, server_address):
    """The real server, and a state folder of this test's own."""
    return {
        **os.environ,
        "LLAVACHAT_ADDRESS": server_address,
        "LLAVACHAT_STATE_DIR": str(tmp_path / "state"),
        "OMP_NUM_THREADS": "1",
    }


def test_a_talk_in_three_commands(environment):
    """`ask`, `ask -c` and `chats` on the real server make one chat of two turns."""

    def run(*arguments, **options):
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env=environment,
            capture_output=True,
            timeout=60,
            **options,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout.decode()

    first = json.loads(
        run("ask", "-", "What is this?", "--json", "--max-tokens", "8", input=PICTURE.read_bytes())
    )
    assert first["usage"]["image_tokens"] > 0
    assert run("ask", "-c", "What colour is it?", "--max-tokens", "8", "--temperature", "0")
    turns = json.loads(run("chats", first["chat_id"], "--json"))["turns"]
    assert ["What is this?", "What colour is it?"] == [turn["prompt"] for turn in turns]
    assert turns[0]["id"] == turns[1]["parent_turn_id"]
    assert "What is this?" in run("chats", first["chat_id"], "--raw")
    assert first["chat_id"] in run("chats")


def test_a_verdict_that_can_not_be_written(environment):
    """`llavachat replay ID > /dev/full`: a sentence, and not the verdict's exit code."""
    done = subprocess.run(
        [*PROGRAM, "ask", str(PICTURE), "What?", "--json", "--max-tokens", "4"],
        env=environment,
        capture_output=True,
        timeout=60,
    )
    with Path("/dev/full").open("wb") as full:
        replay = subprocess.run(
            [*PROGRAM, "replay", json.loads(done.stdout)["chat_id"]],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    sentence = b"llavachat: stdout can not be written: No space left on device.\n"
    assert (1, sentence) == (replay.returncode, replay.stderr)


def test_a_reader_that_leaves_early(environment):
    """`llavachat chats | head -0`: no traceback, and the shell's own code."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "ask", str(PICTURE), "What?", "--max-tokens", "4"],
        env=environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert (141, b"") == (done.returncode, done.stderr)


def test_serve_becomes_the_server(tmp_path):
    """Stages on stderr, then the address; SIGTERM ends it as it ends the server."""
    ready = tmp_path / "ready"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--listen", "127.0.0.1:0", "--ready-file", str(ready), *TEXT],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)  # a file's appearance can not be awaited portably
        address = ready.read_text().strip()
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(20)
    finally:
        process.kill()
        process.wait()
    told = (tmp_path / "log").read_text()
    assert told.index("loading") < told.index(f"llavachat is serving shapes on {address}")


def test_serve_refuses_in_the_servers_words():
    """A wrong setting is one sentence and exit code 2; --help is the server's."""
    done = subprocess.run(
        [*PROGRAM, "serve", "--lisen", "x"], capture_output=True, text=True, timeout=60
    )
    assert (2, 1) == (done.returncode, done.stderr.count("\n"))
    assert "did you mean --listen?" in done.stderr
    done = subprocess.run([*PROGRAM, "serve", "--help"], capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode
    assert "--listen" in done.stdout


def test_demo_shows_the_whole_journey():
    """Stages, both questions and answers, tokens and times, without a terminal; exit code 0."""
    done = subprocess.run(
        [*PROGRAM, "demo"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "LLAVACHAT_ADDRESS": "nowhere:1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    for question in (QUESTION, FOLLOW_UP):
        assert f"You:   {question}\nModel: " in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.index("warming up") < done.stderr.index("Serving on 127.0.0.1:")
    assert 2 == done.stderr.count("first token")
    assert "Server stopped." in done.stderr


INTERRUPTED = """
import os, signal, sys

def interrupt(event, arguments):
    if event == "import" and arguments[0] == "typer":
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(interrupt)
from llavachat.cli import main
sys.argv = ["llavachat", "serve"]
main()
"""


def test_an_interrupt_while_it_is_imported_is_no_stack():
    """Ctrl-C in the first moments ends as any later one does."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, timeout=60)
    assert (130, b"", b"") == (done.returncode, done.stdout, done.stderr)


def test_demo_takes_its_server_along():
    """SIGTERM ends the demonstration and the server that it started."""
    process = subprocess.Popen(
        [*PROGRAM, "demo"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        line = next(line for line in process.stderr if "listening" in line)
        assert line
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        with open(children) as file:  # noqa: PTH123 - a file of the kernel
            (server,) = map(int, file.read().split())
        process.terminate()
        assert 143 == process.wait(20)
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_nothing_but_the_sentence_is_written(tmp_path):
    """gRPC's own log about a failed handshake stays out of the user's sight."""
    scripted = ScriptedServer()
    try:
        done = subprocess.run(
            [*PROGRAM, "ask", "--tls", "-a", scripted.address, str(PICTURE), "What?"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        scripted.stop()
    assert (3, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "does not speak TLS" in done.stderr


def test_demo_tells_why_a_server_does_not_start(tmp_path):
    """A server that dies is one sentence with its last words, not a wait."""
    module = tmp_path / "llavachat_server"
    module.mkdir()
    (module / "__init__.py").write_text("")
    (module / "__main__.py").write_text("import sys; sys.exit('the disk is on fire')")
    done = subprocess.run(
        [*PROGRAM, "demo"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 1 == done.returncode
    assert "llavachat: The server ended with code 1: the disk is on fire\n" in done.stderr


@pytest.mark.parametrize(
    ("missing", "arguments", "code", "sentence"),
    [
        ("typer", ["--help"], 1, "pip install -c constraints.txt '.[cli]'"),
        ("prompt_toolkit", ["chat", str(PICTURE)], 1, "pip install -c constraints.txt '.[cli]'"),
        ("llavachat_server", ["serve"], 2, "pip install -c constraints.txt '.[server]'"),
        ("torch", ["demo"], 2, "pip install -c constraints.txt '.[server]'"),
    ],
)
def test_what_is_not_installed_is_told(missing, arguments, code, sentence):
    """A package that is not there is a sentence that says how to get it."""
    # A finder in front of all others that does not find it, as where it is not installed.
    hide = (
        "import sys\n"
        "from importlib import util\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "find = util.find_spec\n"
        f"util.find_spec = lambda name: None if name == {missing!r} else find(name)\n"
        "from llavachat.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide, *arguments], capture_output=True, text=True, timeout=60
    )
    assert (code, "") == (done.returncode, done.stdout)
    assert sentence in done.stderr
    assert 1 == done.stderr.count("\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell):
    """The script is typer's own, and it completes commands."""
    done = subprocess.run(
        PROGRAM,
        env={**os.environ, "_LLAVACHAT_COMPLETE": f"complete_{shell}", **_WORDS[shell]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "chats" in done.stdout


_WORDS = {
    "bash": {"COMP_WORDS": "llavachat ch", "COMP_CWORD": "1"},
    "zsh": {"_TYPER_COMPLETE_ARGS": "llavachat ch"},
    "fish": {"_TYPER_COMPLETE_ARGS": "llavachat ch", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}
