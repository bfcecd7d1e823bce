"""Copies of the chats of real servers: one that answers meanwhile, one that was killed."""

import subprocess
import sys
from pathlib import Path

from llavachat import Client
from pictures import red_circle
from server_process import ServerProcess, run_server

NUM_CHATS = 5


def keep(*words: str) -> str:
    """Run ``llavachat-server store``, which succeeds; what it says."""
    command = [sys.executable, "-m", "llavachat_server", "store", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def talk(server: ServerProcess, number: int = NUM_CHATS) -> None:
    """Begin chats."""
    with Client(server.address) as client:
        for _ in range(number):
            client.start(red_circle(), "What is it?").read()


def read(server: ServerProcess) -> dict[str, str]:
    """The chats of a server as archives, with their pictures."""
    with Client(server.address) as client:
        return {chat.id: client.chat(chat.id).export("json") for chat in client.chats()}


def test_a_copy_has_all_chats_of_a_server_that_runs(tmp_path: Path) -> None:
    """Those in the write-ahead log as well, though the database itself has none of them yet."""
    state, copy = tmp_path / "state", tmp_path / "copy"
    flags = ("--store", "sqlite", "--state-folder", str(state))
    with run_server(tmp_path, *flags) as server:
        talk(server)
        assert 0 < (state / "chats.db-wal").stat().st_size
        said = keep("backup", str(copy), "--state-folder", str(state))
        assert f"{NUM_CHATS} chats of {state}/chats.db in {copy}\n" == said
        expected = read(server)
        talk(server, 1)
        assert 0 == server.stop()
    other = tmp_path / "other"
    keep("restore", str(copy), "--state-folder", str(other))
    with run_server(tmp_path, "--store", "sqlite", "--state-folder", str(other)) as server:
        assert NUM_CHATS == len(expected)
        assert expected == read(server)


def test_a_copy_replaces_what_a_killed_server_left(tmp_path: Path) -> None:
    """Its log is not taken for the copy's; what it had is kept, and comes back as well."""
    state, copy = tmp_path / "state", tmp_path / "copy"
    flags = ("--store", "sqlite", "--state-folder", str(state))
    with run_server(tmp_path, *flags) as server:
        talk(server)
        keep("backup", str(copy), "--state-folder", str(state))
        before = read(server)
        talk(server, 2)
        after = read(server)
        server.process.kill()
        server.process.wait()
    (tmp_path / "ready").unlink()
    assert (state / "chats.db-wal").exists()
    said = keep("restore", str(copy), "--state-folder", str(state))
    kept = state / "chats.db.before-restore-1"
    assert f"{NUM_CHATS} chats of {copy} in {state}/chats.db; what was there is in {kept}\n" == said
    with run_server(tmp_path, *flags) as server:
        assert before == read(server)
        assert 0 == server.stop()
    keep("restore", str(kept), "--state-folder", str(state))
    with run_server(tmp_path, *flags) as server:
        assert NUM_CHATS + 2 == len(after)
        assert after == read(server)
    assert 0o600 == copy.stat().st_mode & 0o777
