"""A server that is given a limit keeps to it: settings, store, engine and audit record at once."""

import random
from pathlib import Path

import pytest
from app_in_process import run_app, until
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats import retention
from pictures import encode
from PIL import Image
from scripted_engine import ScriptedEngine

SIDE = 500
"""Of a picture that nothing packs: 750 kB, so that two are more than 1 MiB."""


def draw_noise(seed: int) -> bytes:
    """A file of random pixels."""
    noise = random.Random(seed).randbytes(3 * SIDE * SIDE)
    return encode(Image.frombytes("RGB", (SIDE, SIDE), noise))


async def test_chats_that_take_too_much_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was used longest ago is erased, forgotten by the engine, and has a tombstone."""
    monkeypatch.setattr(retention, "SIZE_PAUSE_SECONDS", 0.01)
    flags = ("--store", "sqlite", "--state-folder", str(tmp_path), "--max-chats-bytes", "1048576")
    engine = ScriptedEngine()
    async with run_app(engine, *flags) as app:
        ids = [await app.start(images=[pb.Image(data=draw_noise(seed))]) for seed in range(3)]
        listed = await until(
            lambda: app.chat.ListChats(pb.ListChatsRequest()), lambda _: len(engine.forgotten) == 2
        )
        assert ids[2:] == [chat.id for chat in listed.chats]
        assert ids[:2] == [chat_id for _, chat_id in engine.forgotten]
    record = (tmp_path / "audit" / "audit-000001.jsonl").read_text().splitlines()
    assert 2 == sum('"event":"erased"' in line for line in record)
