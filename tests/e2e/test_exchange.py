"""Chats from one real server to another: the embedded model goes on as it would have."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llavachat import Client, PreconditionFailed, Turn
from llavachat.archive import read_archive
from llavachat.types import ChatArchive
from pictures import draw_shape, encode, red_circle
from server_process import ServerProcess, run_server

BLUE_SQUARE = encode(draw_shape("square", "blue", (700, 500)), "JPEG")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Another server, which keeps its chats in a file."""
    folder = tmp_path_factory.mktemp("other")
    flags = ("--store", "sqlite", "--state-folder", str(folder / "state"))
    with run_server(folder, *flags) as running:
        yield running
        assert running.stop() == 0, running.log.read_text()


def tell(archive: ChatArchive) -> list[dict[str, object]]:
    """What an export says of each turn, its place in the tree in place of its ids."""
    places = {turn.id: place for place, turn in enumerate(archive.chat.turns)}
    told = []
    for turn in archive.chat.turns:
        told.append(
            {name: getattr(turn, name) for name in Turn.__slots__}
            | {
                "id": places[turn.id],
                "parent_turn_id": places.get(turn.parent_turn_id or ""),
                "imported": None,
            }
        )
    return told


def test_a_chat_moves_to_another_server(server_address: str, other: ServerProcess) -> None:
    """Export, import, export again: equal but for ids; the next answer is the same one."""
    with Client(server_address) as here, Client(other.address) as there:
        reply = here.start(
            [red_circle(), BLUE_SQUARE], "What is in the pictures?", temperature=0, max_tokens=32
        )
        reply.read()
        original = reply.chat
        original.ask("What colour is it?", temperature=0.8, seed=7, max_tokens=16).read()
        original.ask("Is it </s> large?", parent=reply.turn_id, max_tokens=16).read()
        text = original.export()
        moved = there.import_chat(text)
        before, after = read_archive(text), read_archive(moved.export())
        assert tell(before) == tell(after)
        assert before.pictures == after.pictures
        assert {True} == {turn.imported for turn in after.chat.turns}
        history = moved.history()
        answers = [
            chat.ask("What is it?", BLUE_SQUARE, parent=turn, temperature=0).read()
            for chat, turn in ((original, original.history()[1]), (moved, history[1]))
        ]
        assert answers[0] == answers[1]
        assert answers[0]
        assert original.raw_prompt() == moved.raw_prompt()
        with pytest.raises(PreconditionFailed, match="This turn was imported"):
            moved.replay(history[0])
        assert moved.replay(moved.history()[-1]).identical


def test_a_chat_moves_by_the_command_line(
    server_address: str, other: ServerProcess, tmp_path: Path
) -> None:
    """Export to a file, import it elsewhere, go on; and a page to keep."""
    environment = {**os.environ, "LLAVACHAT_STATE_DIR": str(tmp_path / "state")}

    def run(address: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llavachat", *arguments, "--address", address],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout.decode()

    (tmp_path / "red.png").write_bytes(red_circle())
    run(server_address, "ask", "red.png", "What is this?", "--max-tokens", "8")
    run(server_address, "export", "-c", "-o", "talk.json")
    run(server_address, "export", "-c", "-o", "talk.html")
    chat_id = run(other.address, "import", "talk.json").strip()
    assert run(other.address, "ask", "-c", "What colour is it?", "--max-tokens", "8")
    turns = json.loads(run(other.address, "chats", chat_id, "--json"))["turns"]
    assert [True, False] == [turn["imported"] for turn in turns]
    assert "data:image/png;base64," in (tmp_path / "talk.html").read_text("utf-8")
