"""A chat as text: Markdown for people, JSON for programs. Pure; knows no gRPC.

A chat is a tree. The Markdown tells its turns in the order in which they were asked, and says
where one goes on from another turn than the one above it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import Any

from llavachat.errors import ArchiveError
from llavachat.types import ChatRecord, FinishReason, Turn, TurnState

_ENDINGS = {
    FinishReason.MAX_TOKENS: "stopped at the limit of tokens",
    FinishReason.MAX_CONTEXT: "stopped: the context is full",
    FinishReason.TIME_LIMIT: "stopped at the time limit",
    FinishReason.CANCELLED: "stopped by the caller",
    FinishReason.SHUTDOWN: "stopped: the server went down",
    FinishReason.ERROR: "the server failed",
}


def pick_transcript(name: str) -> Callable[[ChatRecord], str]:
    """What writes a transcript of this format.

    Raises:
        ArchiveError: there is no such format.
    """
    writers = {"markdown": write_markdown, "json": write_json}
    if name not in writers:
        raise ArchiveError(
            f"There is no transcript in the format {name!r}; take one of {', '.join(writers)}."
        )
    return writers[name]


def write_markdown(chat: ChatRecord) -> str:
    """The chat for people to read, ending in a newline."""
    blocks = [f"# {_inline(chat.title) or 'Chat'}"]
    facts = [f"Chat `{chat.id}`"]
    if chat.turns:
        facts.append(f"model {chat.turns[-1].model.name or chat.turns[-1].model.profile}")
    if chat.create_time:
        facts.append(f"{chat.create_time:%Y-%m-%d %H:%M} UTC")
    blocks.append(", ".join(facts))
    if chat.system_prompt:
        blocks.append(_quote(chat.system_prompt))
    numbers = {turn.id: number for number, turn in enumerate(chat.turns, start=1)}
    above: str | None = None
    for turn in chat.turns:
        blocks += _write_turn(turn, numbers, above)
        above = turn.id
    return "\n\n".join(blocks) + "\n"


def write_json(chat: ChatRecord) -> str:
    """The whole record as one JSON object, times in ISO 8601, ending in a newline."""
    record = to_plain(chat)
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


def to_plain(value: Any) -> Any:
    """A value of `llavachat.types` as what JSON can hold."""
    return _plain(asdict(value))


def _write_turn(turn: Turn, numbers: dict[str, int], above: str | None) -> list[str]:
    blocks = []
    if turn.parent_turn_id != above:
        number = numbers.get(turn.parent_turn_id or "")
        origin = f"goes on from turn {number}" if number else "begins anew"
        blocks.append(f"*Turn {numbers[turn.id]} {origin}.*")
    pictures = "".join(
        f"\n\n*Picture: {image.width_pixels} x {image.height_pixels} pixels"
        + (f", the first of {image.num_frames:,} frames" if image.num_frames > 1 else "")
        + f", `{image.id[:12]}`*"
        for image in turn.images
    )
    blocks.append(f"**You:** {turn.prompt}{pictures}")
    answer = turn.answer or "*(nothing)*"
    blocks.append(f"**{_inline(turn.model.name or turn.model.profile or 'llavachat')}:** {answer}")
    if ending := describe_ending(turn):
        blocks.append(f"*({ending})*")
    return blocks


def describe_ending(turn: Turn) -> str | None:
    """Why an answer is not whole, for people. None: it is, or ended as was asked for."""
    if turn.state is TurnState.RUNNING:
        return "still running"
    return _ENDINGS.get(turn.finish_reason)


def _inline(text: str) -> str:
    return " ".join(text.split())


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return value
