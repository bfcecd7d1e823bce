"""Chats, turns and pictures to keep in stores: shared by the tests of all of them."""

import hashlib
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from llavachat_server.chats.record import Chat, Turn
from llavachat_server.images.intake import ImageInfo, Picture
from llavachat_server.values import (
    Finished,
    FinishReason,
    ModelInfo,
    Quantization,
    Sampling,
    Timings,
    Usage,
)
from PIL import Image

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MODEL = ModelInfo("llava-1.5-7b", "llava-hf/llava", "f" * 40, Quantization.NF4, "e" * 64)


def make_id() -> str:
    """What the server takes for ids of chats and turns."""
    return secrets.token_hex(16)


def make_picture(shade: int, size: tuple[int, int] = (5, 3)) -> Picture:
    """A small picture with its true id."""
    pixels = Image.new("RGB", size, (shade, 255 - shade, 7))
    digest = hashlib.sha256(f"{size[0]}x{size[1]}:".encode())
    digest.update(pixels.tobytes())
    return Picture(ImageInfo(digest.hexdigest(), *size, "image/png", 7), pixels)


def make_chat(tenant: str = "ada", minutes: float = 0, **changes: object) -> Chat:
    """A chat that begins `minutes` after noon."""
    time = NOON + timedelta(minutes=minutes)
    return replace(Chat(make_id(), tenant, None, {}, time, time), **changes)  # type: ignore[arg-type]


def make_turn(
    prompt: str = "What is this?",
    images: tuple[ImageInfo, ...] = (),
    minutes: float = 0,
    **changes: object,
) -> Turn:
    """A running turn that begins `minutes` after noon."""
    turn = Turn(
        id=make_id(),
        parent_id=None,
        prompt=prompt,
        images=images,
        question_ids=(1, 319, 13563, 32000),
        num_trimmed_turns=0,
        num_untrimmed_tokens=640,
        sampling=Sampling(64, 0.7, 0.95, 40, 1.1, 2**64 - 1, ("###",)),
        model=MODEL,
        created_at=NOON + timedelta(minutes=minutes),
        device="NVIDIA A10G",
        library_versions={"torch": "2.13.0", "transformers": "5.23.0"},
        tokenizer_sha256="d" * 64,
    )
    return replace(turn, **changes)  # type: ignore[arg-type]


def end(turn: Turn, answer: str = "A cat.", reason: FinishReason = FinishReason.EOS) -> Turn:
    """The turn with an end a minute after its beginning."""
    finished = Finished(
        reason,
        "###" if reason is FinishReason.STOP_SEQUENCE else None,
        (319, 6635, 29889),
        Usage(40, 576, 500, 3, 3400),
        Timings(0.001, 0.02, 0.1, 0.121, 0.05),
    )
    ended = turn.end(answer, finished)
    return replace(ended, finished_at=turn.created_at + timedelta(minutes=1))


def make_import(first: Picture, second: Picture) -> Chat:
    """A whole chat of two branches, one of them cut short, about two pictures."""
    one = end(make_turn("One?", (first.info, second.info, first.info), imported=True))
    other = replace(MODEL, name="another", quantization=Quantization.NONE)
    two = end(make_turn("Two?", parent_id=one.id, minutes=2, imported=True, model=other))
    cut = end(make_turn("Or?", parent_id=one.id, minutes=4, imported=True), "I", FinishReason.ERROR)
    return make_chat(labels={"k": "v"}, minutes=9, turns=(one, two, cut))
