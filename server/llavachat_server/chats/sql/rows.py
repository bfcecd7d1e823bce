"""Values to rows and back. Pure."""

import json
import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from sqlalchemy import RowMapping

from llavachat_server.chats.record import Chat, ChatSummary, Turn, TurnState
from llavachat_server.images.intake import ImageInfo
from llavachat_server.values import FinishReason, ModelInfo, Quantization, Sampling, Timings, Usage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NARROW = 0xFFFF

TURN_BYTES = 500
"""About what a turn takes beside its texts and ids: numbers, keys, indexes, its request."""

LABEL_BITS = 63
"""Bits of a filter of labels: what a signed 64-bit column holds."""


def write_time(time: datetime) -> int:
    """Whole microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def read_time(microseconds: int) -> datetime:
    """The inverse of `write_time`."""
    return _EPOCH + timedelta(microseconds=microseconds)


def write_ids(ids: Iterable[int]) -> bytes:
    """Token ids in two bytes each, or four where one needs them: width, then little-endian ids.

    Raises:
        ValueError: an id is negative or has more than 32 bits.
    """
    values = tuple(ids)
    if values and not 0 <= min(values) <= max(values) <= 0xFFFFFFFF:
        raise ValueError("token ids have 0 to 32 bits")
    width = 2 if max(values, default=0) <= _NARROW else 4
    packed = array("H" if width == 2 else "I", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return bytes((width,)) + packed.tobytes()


def read_ids(packed: bytes) -> tuple[int, ...]:
    """The inverse of `write_ids`."""
    values = array("H" if packed[0] == 2 else "I", packed[1:])
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)


def write_json(value: object) -> str:
    """Compact, and the same for equal values."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def chat_row(chat: Chat) -> dict[str, Any]:
    """A row of `chats`, without its key and number of turns."""
    return {
        "tenant": chat.tenant,
        "id": chat.id,
        "system_prompt": chat.system_prompt,
        "labels": write_json(dict(chat.labels)),
        "created_at": write_time(chat.created_at),
        "updated_at": write_time(chat.updated_at),
    }


def write_label_bits(labels: Mapping[str, str]) -> int:
    """A Bloom filter of labels: a chat that lacks a bit of a wanted label lacks the label.

    Kept in the database: another function needs a migration.

    Returns:
        Three bits for each label, of `LABEL_BITS`; of several labels every bit of each.
    """
    bits = 0
    for name, value in labels.items():
        digest = sha256(write_json([name, value]).encode()).digest()
        for start in (0, 2, 4):
            bits |= 1 << int.from_bytes(digest[start : start + 2], "big") % LABEL_BITS
    return bits


def label_rows(chat: Chat, chat_key: int) -> list[dict[str, Any]]:
    """Rows of `labels`: each knows of its chat what a listing is ordered by."""
    known = {
        "chat_key": chat_key,
        "tenant": chat.tenant,
        "updated_at": write_time(chat.updated_at),
        "chat_id": chat.id,
        "label_bits": write_label_bits(chat.labels),
    }
    return [{**known, "name": name, "value": value} for name, value in chat.labels.items()]


def turn_row(turn: Turn) -> dict[str, Any]:
    """A row of `turns`, without its keys and position."""
    return {**_question_row(turn), **end_row(turn)}


def _question_row(turn: Turn) -> dict[str, Any]:
    return {
        "id": turn.id,
        "parent_id": turn.parent_id,
        "prompt": turn.prompt,
        "question_ids": write_ids(turn.question_ids),
        "num_trimmed_turns": turn.num_trimmed_turns,
        "num_untrimmed_tokens": turn.num_untrimmed_tokens,
        "sampling": write_json(asdict(turn.sampling)),
        "created_at": write_time(turn.created_at),
        "imported": turn.imported,
    }


def end_row(turn: Turn) -> dict[str, Any]:
    """The columns of `turns` that change when the answer ends."""
    end = _answer_row(turn)
    num_bytes = TURN_BYTES + _count_bytes(_question_row(turn)) + _count_bytes(end)
    return {**end, "num_bytes": num_bytes}


def _count_bytes(row: Mapping[str, Any]) -> int:
    texts = (value.encode() for value in row.values() if isinstance(value, str))
    blobs = (value for value in row.values() if isinstance(value, bytes))
    return sum(map(len, texts)) + sum(map(len, blobs))


def _answer_row(turn: Turn) -> dict[str, Any]:
    return {
        "state": turn.state.value,
        "answer": turn.answer,
        "answer_ids": write_ids(turn.answer_ids),
        "finish_reason": turn.finish_reason.value if turn.finish_reason else None,
        "matched_stop": turn.matched_stop,
        "usage": write_json(asdict(turn.usage)) if turn.usage else None,
        "timings": write_json(asdict(turn.timings)) if turn.timings else None,
        "finished_at": write_time(turn.finished_at) if turn.finished_at else None,
    }


def build_row(turn: Turn) -> dict[str, Any]:
    """A row of `builds`, without its key; equal builds have equal `sha256`."""
    model = turn.model
    row = {
        "profile": model.profile,
        "name": model.name,
        "revision": model.revision,
        "quantization": model.quantization.value,
        "weights_sha256": model.weights_sha256,
        "tokenizer_sha256": turn.tokenizer_sha256,
        "device": turn.device,
        "library_versions": write_json(dict(turn.library_versions)),
    }
    return {"sha256": sha256(write_json(row).encode()).hexdigest(), **row}


def whole_rows(chat: Chat) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of all turns, without their keys, and that of each one's build."""
    known: dict[tuple[object, ...], dict[str, Any]] = {}
    turns, builds = [], []
    for position, turn in enumerate(chat.turns):
        build = (
            turn.model,
            turn.tokenizer_sha256,
            turn.device,
            *sorted(turn.library_versions.items()),
        )
        if build not in known:
            known[build] = build_row(turn)
        turns.append({**turn_row(turn), "position": position})
        builds.append(known[build])
    return turns, builds


def read_turn(row: RowMapping, images: tuple[ImageInfo, ...]) -> Turn:
    """A turn from its row, joined with its build's."""
    reason = row["finish_reason"]
    return Turn(
        id=row["id"],
        parent_id=row["parent_id"],
        prompt=row["prompt"],
        images=images,
        question_ids=read_ids(row["question_ids"]),
        num_trimmed_turns=row["num_trimmed_turns"],
        num_untrimmed_tokens=row["num_untrimmed_tokens"],
        sampling=_read_sampling(row["sampling"]),
        model=_read_model(
            row["profile"],
            row["name"],
            row["revision"],
            row["quantization"],
            row["weights_sha256"],
        ),
        created_at=read_time(row["created_at"]),
        state=TurnState(row["state"]),
        answer=row["answer"],
        answer_ids=read_ids(row["answer_ids"]),
        finish_reason=FinishReason(reason) if reason else None,
        matched_stop=row["matched_stop"],
        usage=Usage(**json.loads(row["usage"])) if row["usage"] else None,
        timings=Timings(**json.loads(row["timings"])) if row["timings"] else None,
        finished_at=None if row["finished_at"] is None else read_time(row["finished_at"]),
        device=row["device"],
        library_versions=_read_versions(row["library_versions"]),
        tokenizer_sha256=row["tokenizer_sha256"],
        imported=row["imported"],
    )


# Turns of a chat say the same in these, mostly: half of what reading a long chat took.


@lru_cache(maxsize=256)
def _read_sampling(text: str) -> Sampling:
    sampling = json.loads(text)
    return Sampling(**{**sampling, "stop": tuple(sampling["stop"])})


@lru_cache(maxsize=256)
def _read_model(
    profile: str, name: str, revision: str, quantization: str, weights_sha256: str
) -> ModelInfo:
    return ModelInfo(profile, name, revision, Quantization(quantization), weights_sha256)


@lru_cache(maxsize=256)
def _read_versions(text: str) -> Mapping[str, str]:
    return MappingProxyType(json.loads(text))


def read_chat(row: RowMapping, turns: tuple[Turn, ...]) -> Chat:
    """A chat from its row."""
    return Chat(**_chat_fields(row), turns=turns)


def read_summary(row: RowMapping) -> ChatSummary:
    """A chat without its turns, from its row and its first question."""
    return ChatSummary(
        **_chat_fields(row), num_turns=row["num_turns"], opening=row["opening"] or ""
    )


def read_image(row: RowMapping) -> ImageInfo:
    """What is told about a picture."""
    return ImageInfo(
        row["id"],
        row["width_pixels"],
        row["height_pixels"],
        row["media_type"],
        row["num_frames"],
    )


def _chat_fields(row: RowMapping) -> Mapping[str, Any]:
    return {
        "id": row["id"],
        "tenant": row["tenant"],
        "system_prompt": row["system_prompt"],
        "labels": json.loads(row["labels"]),
        "created_at": read_time(row["created_at"]),
        "updated_at": read_time(row["updated_at"]),
    }
