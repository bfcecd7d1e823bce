"""What lines of the audit record tell of chats.

Contract: pictures, answers, weights and callers' own ids of requests are named by their hashes; the
words themselves are told only where `with_content` says so.
"""

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from llavachat_server.chats.record import Chat, Turn
from llavachat_server.values import hash_request_id


def describe_turn(
    tenant: str,
    chat_id: str,
    turn: Turn,
    request_id: str,
    system_prompt: str | None,
    *,
    with_content: bool,
) -> dict[str, Any]:
    """The record of an ended turn: who, when, with what, and the hashes of what was said."""
    model = turn.model
    record: dict[str, Any] = {
        "event": "turn",
        "time": turn.finished_at.isoformat() if turn.finished_at else _now(),
        "tenant": tenant,
        "chat_id": chat_id,
        "turn_id": turn.id,
        "parent_turn_id": turn.parent_id,
        # The caller's words, as a file's name may be: it may say whose picture this is.
        "request_id_sha256": hash_request_id(request_id),
        "asked_at": turn.created_at.isoformat(),
        "state": turn.state.value,
        "finish_reason": turn.finish_reason.value if turn.finish_reason else None,
        "image_ids": [image.id for image in turn.images],
        "params": _describe_params(turn, with_content=with_content),
        "model": {**asdict(model), "quantization": model.quantization.value},
        "device": turn.device,
        "library_versions": dict(turn.library_versions),
        "usage": asdict(turn.usage) if turn.usage else None,
        "prompt_sha256": _hash(turn.prompt),
        "answer_sha256": _hash(turn.answer),
    }
    if with_content:
        record |= {
            "request_id": request_id,
            "system_prompt": system_prompt,
            "prompt": turn.prompt,
            "answer": turn.answer,
        }
    return record


def _describe_params(turn: Turn, *, with_content: bool) -> dict[str, Any]:
    params = asdict(turn.sampling)
    if not with_content:
        # Stop strings are the caller's words.
        params["stop_sha256"] = [_hash(text) for text in params.pop("stop")]
    return params


def describe_import(chat: Chat, *, with_content: bool) -> dict[str, Any]:
    """The record of a chat that came from elsewhere: who brought it, and the hashes of its words.

    What it tells of models, usage and times is its sender's word, and is left out.
    """
    turns: list[dict[str, Any]] = []
    for turn in chat.turns:
        told = {
            "turn_id": turn.id,
            "parent_turn_id": turn.parent_id,
            "image_ids": [image.id for image in turn.images],
            "prompt_sha256": _hash(turn.prompt),
            "answer_sha256": _hash(turn.answer),
        }
        if with_content:
            told["prompt"], told["answer"] = turn.prompt, turn.answer
        turns.append(told)
    return {
        "event": "imported",
        "time": _now(),
        "tenant": chat.tenant,
        "chat_id": chat.id,
        **({"system_prompt": chat.system_prompt} if with_content else {}),
        "turns": turns,
    }


def describe_erasure(tenant: str, chat_id: str, time: datetime | None = None) -> dict[str, Any]:
    """The record of a chat's erasure; None: it was erased now."""
    told = _now() if time is None else time.isoformat()
    return {"event": "erased", "time": told, "tenant": tenant, "chat_id": chat_id}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat()
