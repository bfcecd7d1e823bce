"""A chat as a JSON file that can be read again: its tree, its pictures, everything but its ids'
meaning to the server it came from. Pure; knows no gRPC.

``"format": "llavachat-chat/1"``. Members that a reader does not know are passed over; one that a
reader must know would be another number. What is read may be anybody's file: whatever it holds,
it is a `ChatArchive` or one sentence. Whether the chat makes sense is the server's to judge.
"""

import base64
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

from llavachat.errors import ArchiveError
from llavachat.transcript import to_plain
from llavachat.types import (
    ChatArchive,
    ChatRecord,
    FinishReason,
    ImageInfo,
    ModelInfo,
    Params,
    Timings,
    Turn,
    TurnState,
    Usage,
)

FORMAT = "llavachat-chat/1"
_FAMILY = "llavachat-chat/"

E = TypeVar("E", bound=Enum)

_INT32_MAX = 2**31 - 1
_UINT64_MAX = 2**64 - 1
_MAX_SECONDS = 1_000_000


def write_archive(archive: ChatArchive) -> str:
    """The chat and its pictures as one JSON object, ending in a newline.

    A turn that still runs is left out: it has no end to bring back.
    """
    chat = to_plain(archive.chat)
    turns = [turn for turn in chat["turns"] if turn["state"] != TurnState.RUNNING.value]
    for turn in turns:
        del turn["raw_prompt"]
    names = ("id", "title", "system_prompt", "labels", "create_time")
    whole = {
        "format": FORMAT,
        **{name: chat[name] for name in names},
        "turns": turns,
        "pictures": _write_files(archive.pictures),
    }
    if archive.originals:
        whole["originals"] = _write_files(archive.originals)
    return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"


def read_archive(source: str | bytes) -> ChatArchive:
    """Read what `write_archive` wrote.

    Raises:
        ArchiveError: it is no exported chat, of a later format, or damaged.
    """
    root = _Object(_read_json(source), "")
    told = root.members.get("format")
    if told != FORMAT:
        if isinstance(told, str) and told.startswith(_FAMILY):
            raise ArchiveError(
                f"The chat's format is {told[:40]!r}, and this release reads {FORMAT!r}; "
                "install a newer llavachat."
            )
        raise ArchiveError(f'This is no exported chat: "format" must be "{FORMAT}".')
    turns = tuple(_read_turn(turn) for turn in root.objects("turns"))
    chat = ChatRecord(
        id=root.text("id"),
        title=root.text("title"),
        system_prompt=root.optional_text("system_prompt"),
        labels=root.object("labels").texts(),
        create_time=root.time("create_time"),
        update_time=None,
        num_turns=len(turns),
        turns=turns,
    )
    originals = root.object("originals").files() if root.has("originals") else {}
    return ChatArchive(chat, root.object("pictures").files(), originals)


def _write_files(files: Mapping[str, bytes]) -> dict[str, str]:
    return {image_id: base64.b64encode(data).decode() for image_id, data in files.items()}


def _read_json(source: str | bytes) -> Any:
    if not isinstance(source, str | bytes | bytearray):
        raise ArchiveError(f"An exported chat is text or bytes, not {type(source).__name__}.")
    try:
        text = source if isinstance(source, str) else source.decode("utf-8-sig")
        return json.loads(text)
    except UnicodeDecodeError:
        raise ArchiveError("This is no exported chat: it is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ArchiveError(f"This is no exported chat: it is not JSON ({where}).") from None
    except (ValueError, RecursionError):
        raise ArchiveError("This is no exported chat: its JSON can not be read.") from None


def _read_turn(turn: "_Object") -> Turn:
    return Turn(
        id=turn.text("id"),
        parent_turn_id=turn.optional_text("parent_turn_id"),
        prompt=turn.text("prompt"),
        answer=turn.text("answer"),
        images=tuple(_read_image(image) for image in turn.objects("images")),
        state=turn.word("state", TurnState),
        finish_reason=turn.word("finish_reason", FinishReason),
        params=_read_params(turn.object("params")),
        usage=_read_usage(turn.object("usage")) if turn.has("usage") else None,
        timings=_read_timings(turn.object("timings")) if turn.has("timings") else None,
        model=_read_model(turn.object("model")),
        create_time=turn.time("create_time"),
        finish_time=turn.time("finish_time"),
        imported=turn.members.get("imported") is True,
    )


def _read_image(image: "_Object") -> ImageInfo:
    return ImageInfo(
        id=image.text("id"),
        width_pixels=image.whole("width_pixels"),
        height_pixels=image.whole("height_pixels"),
        num_tokens=image.whole("num_tokens"),
        media_type=image.text("media_type"),
        num_frames=image.whole("num_frames") if image.has("num_frames") else 0,
    )


def _read_params(params: "_Object") -> Params:
    def count(name: str, high: int = _INT32_MAX) -> int | None:
        return params.whole(name, high) if params.has(name) else None

    def number(name: str) -> float | None:
        return params.number(name) if params.has(name) else None

    return Params(
        max_tokens=count("max_tokens"),
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=count("top_k"),
        repetition_penalty=number("repetition_penalty"),
        seed=count("seed", _UINT64_MAX),
        stop=tuple(params.list_texts("stop")),
    )


def _read_usage(usage: "_Object") -> Usage:
    return Usage(
        text_tokens=usage.whole("text_tokens"),
        image_tokens=usage.whole("image_tokens"),
        cached_tokens=usage.whole("cached_tokens"),
        completion_tokens=usage.whole("completion_tokens"),
        context_left_tokens=usage.whole("context_left_tokens"),
    )


def _read_timings(timings: "_Object") -> Timings:
    return Timings(
        queue_seconds=timings.seconds("queue_seconds"),
        vision_seconds=timings.seconds("vision_seconds"),
        prefill_seconds=timings.seconds("prefill_seconds"),
        first_token_seconds=timings.seconds("first_token_seconds"),
        decode_seconds=timings.seconds("decode_seconds"),
    )


def _read_model(model: "_Object") -> ModelInfo:
    return ModelInfo(
        profile=model.text("profile"),
        name=model.text("name"),
        revision=model.text("revision"),
        quantization=model.text("quantization"),
        weights_sha256=model.text("weights_sha256"),
    )


class _Object:
    """A JSON object of a file, and where it lies in it: its members, each as what it must be."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _refuse(path, "an object")
        self.members: dict[str, Any] = value
        self._path = path

    def has(self, name: str) -> bool:
        """Whether the member is there, and not null."""
        return self.members.get(name) is not None

    def object(self, name: str) -> "_Object":
        """An object."""
        return _Object(self.members.get(name), self._at(name))

    def objects(self, name: str) -> "Iterator[_Object]":
        """A list of objects."""
        for index, item in enumerate(self._list(name)):
            yield _Object(item, f"{self._at(name)}[{index}]")

    def list_texts(self, name: str) -> Iterator[str]:
        """A list of texts."""
        for index, item in enumerate(self._list(name)):
            yield _check_text(item, f"{self._at(name)}[{index}]")

    def texts(self) -> dict[str, str]:
        """All members, as texts by their names."""
        return {
            _check_text(name, self._at("...")): _check_text(value, self._at(name))
            for name, value in self.members.items()
        }

    def text(self, name: str) -> str:
        """A text."""
        return _check_text(self.members.get(name), self._at(name))

    def optional_text(self, name: str) -> str | None:
        """A text, or null."""
        return self.text(name) if self.has(name) else None

    def whole(self, name: str, high: int = _INT32_MAX) -> int:
        """A whole number from 0 to `high`."""
        value = self.members.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
            raise _refuse(self._at(name), f"a whole number, 0 to {high}")
        return value

    def number(self, name: str) -> float:
        """A number that single precision holds."""
        value = self.members.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
            raise _refuse(self._at(name), "a number")
        return float(value)

    def seconds(self, name: str) -> float:
        """A duration."""
        value = self.number(name)
        if not (math.isfinite(value) and 0 <= value < _MAX_SECONDS):
            raise _refuse(self._at(name), f"seconds, 0 to {_MAX_SECONDS}")
        return value

    def time(self, name: str) -> datetime | None:
        """A time of day in ISO 8601 with its time zone, or null."""
        if not self.has(name):
            return None
        try:
            time = datetime.fromisoformat(self.text(name))
            if time.tzinfo is not None:
                return time.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise _refuse(self._at(name), "a time with its time zone, as in 2026-01-31T12:00:00+00:00")

    def word(self, name: str, words: type[E]) -> E:
        """One of an enum's words."""
        told = self.members.get(name)
        found = next((word for word in words if word.value == told), None)
        if found is None:
            allowed = ", ".join(word.value for word in words if word.value != "unspecified")
            raise _refuse(self._at(name), f"one of {allowed}")
        return found

    def files(self) -> dict[str, bytes]:
        """All members, as files in Base64 by their names."""
        return {name: self._base64(name) for name in self.members}

    def _base64(self, name: str) -> bytes:
        try:
            return base64.b64decode(self.text(name), validate=True)
        except ValueError:
            raise _refuse(self._at(name), "a file in Base64") from None

    def _list(self, name: str) -> list[Any]:
        value = self.members.get(name)
        if not isinstance(value, list):
            raise _refuse(self._at(name), "a list")
        return value

    def _at(self, name: str) -> str:
        shown = name if name.isascii() and name.isprintable() and len(name) <= 80 else "..."
        return f"{self._path}.{shown}" if self._path else shown


def _check_text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _refuse(path, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refuse(path, "whole Unicode characters, without lone surrogates") from None
    return value


def _refuse(path: str, expected: str) -> ArchiveError:
    return ArchiveError(
        f"The exported chat is damaged: {path} must be {expected}."
        if path
        else f"This is no exported chat: it must be {expected}."
    )
