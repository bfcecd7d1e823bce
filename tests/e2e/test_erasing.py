"""What was erased is gone from the files of a server that runs."""

import time
from pathlib import Path

from llavachat import Client
from pictures import red_circle
from server_process import run_server

SOON_SECONDS = 120.0
"""The documents say 15; the rest is for machines that do other things as well."""

NUM_CHATS = 25


def test_erased_words_leave_the_files_of_a_quiet_server(tmp_path: Path) -> None:
    """The database and its write-ahead log: nobody asks anything after the erasures."""
    state = tmp_path / "state"

    def count(word: str) -> int:
        return sum(path.read_bytes().count(word.encode()) for path in state.glob("chats.db*"))

    flags = ("--store", "sqlite", "--state-folder", str(state), "--max-tokens", "4")
    with run_server(tmp_path, *flags) as server, Client(server.address) as client:
        kept = client.start(red_circle(), "Is this a mallard?")
        kept.read()
        chats = [client.start(red_circle(), f"Is this a canary, {n}?") for n in range(NUM_CHATS)]
        for reply in chats:
            reply.read()
        assert NUM_CHATS <= count("canary")
        for reply in chats:
            client.delete_chat(reply.chat.id)
        deadline = time.monotonic() + SOON_SECONDS
        while count("canary") and time.monotonic() < deadline:
            time.sleep(0.1)  # a file's content can not be awaited
        assert 0 == count("canary")
        assert 0 < count("mallard")
        assert 0 == server.stop()
