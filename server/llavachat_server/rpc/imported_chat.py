"""The chat of an ImportChat to a value: every field is checked as where it first came in.

A chat that another server told must hold what this one holds its own callers to: lengths, labels,
pictures of a turn, and a tree in order. What is told of models, parameters, usage and times is
history: it must have the contract's ranges, not this profile's limits.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from llavachat.v1 import chat_pb2 as pb

from llavachat_server.chats.aside import give_way
from llavachat_server.chats.importer import PictureFile
from llavachat_server.chats.record import WHOLE, Chat, Turn, TurnState
from llavachat_server.images.picture import HEIC_MEDIA_TYPE, MAX_FRAMES, MEDIA_TYPES, ImageInfo
from llavachat_server.rpc import requests
from llavachat_server.rpc.messages import FINISH_REASONS, TURN_STATES
from llavachat_server.rpc.requests import RequestLimits
from llavachat_server.values import InvalidField, ModelInfo, Quantization, Sampling, Timings, Usage

T = TypeVar("T")

CHARS_PER_TOKEN = 16
"""The most characters of one token. Source: ``max_sentencepiece_length`` of SentencePiece, with
which Llama's tokenizer was trained."""

MAX_MODEL_CHARS = 256
MAX_TOLD_SECONDS = 1_000_000
_INT32_MAX = 2**31 - 1

_MEDIA_TYPES = sorted((*MEDIA_TYPES.values(), HEIC_MEDIA_TYPE))
_STATES = {number: state for state, number in TURN_STATES.items() if state is not TurnState.RUNNING}
_REASONS = {number: reason for reason, number in FINISH_REASONS.items()}
_PARAMS = ("max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
_TIMINGS = ("queue", "vision", "prefill", "first_token", "decode")
_USAGE = (
    "text_tokens",
    "image_tokens",
    "cached_tokens",
    "completion_tokens",
    "context_left_tokens",
)


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """What a chat that is taken in may hold.

    Args:
        requests: the limits that hold for questions.
        max_turns: the most turns.
        max_side_pixels: the longest side of a picture as it was sent.
    """

    requests: RequestLimits
    max_turns: int
    max_side_pixels: int


async def receive_chat(parts: AsyncIterator[pb.ImportChatRequest]) -> pb.Chat:
    """Read the first part of an ImportChat, for `read_chat`.

    Raises:
        InvalidField: it is not a chat.
    """
    first = await anext(parts, None)
    if first is None or first.WhichOneof("part") != "chat":
        raise InvalidField("chat", "comes first, before its pictures")
    return first.chat


async def receive_images(
    parts: AsyncIterator[pb.ImportChatRequest],
) -> AsyncGenerator[PictureFile, None]:
    """Read the other parts.

    Raises:
        InvalidField: one of them is no picture.
    """
    index = 0
    async for part in parts:
        match part.WhichOneof("part"):
            case "image":
                yield PictureFile(part.image)
            case "original":
                yield PictureFile(part.original, is_original=True)
            case _:
                raise InvalidField(f"image[{index}]", "after the chat come its pictures alone")
        index += 1


def read_chat(message: pb.Chat, tenant: str, limits: ChatLimits) -> Chat:
    """Check the chat of an ImportChat, in a thread: ten thousand turns take a second.

    Returns:
        The chat with the sender's ids and without token ids, used now.

    Raises:
        InvalidField: a field is wrong.
    """
    if not message.turns:
        raise InvalidField("chat.turns", "is empty; a chat has one turn or more")
    if len(message.turns) > limits.max_turns:
        raise InvalidField(
            "chat.turns", f"{len(message.turns):,} turns; at most {limits.max_turns:,} in a chat"
        )
    now = datetime.now(UTC)
    system = message.system_prompt if message.HasField("system_prompt") else None
    with_path = _Path("chat")
    return Chat(
        id=message.id,
        tenant=tenant,
        system_prompt=with_path.read(requests.system_text, system, limits.requests),
        labels=with_path.read(requests.label_map, message.labels),
        created_at=_time(message, "create_time", "chat") or now,
        updated_at=now,
        turns=_read_turns(message, limits, now),
    )


def _read_turns(message: pb.Chat, limits: ChatLimits, now: datetime) -> tuple[Turn, ...]:
    known: dict[str, Turn] = {}
    opening = len(message.turns[0].images)
    for index, told in enumerate(message.turns):
        path = f"chat.turns[{index}]"
        turn = _read_turn(told, path, limits, now)
        _check_place(turn, path, known)
        # A first question that is asked again has its chat's opening pictures besides its own.
        max_images = limits.requests.max_images_per_turn
        if turn.parent_id is None and known:
            max_images += min(opening, max_images)
        if len(turn.images) > max_images:
            raise InvalidField(
                f"{path}.images", f"{len(turn.images)} pictures; at most {max_images} in this turn"
            )
        known[turn.id] = turn
        give_way(len(known))
    return tuple(known.values())


def _check_place(turn: Turn, path: str, known: Mapping[str, Turn]) -> None:
    """Parents come before children, which leaves no room for cycles."""
    if turn.id in known:
        raise InvalidField(f"{path}.id", "an earlier turn has this id; each has its own")
    if turn.parent_id is None:
        return
    parent = known.get(turn.parent_id)
    if parent is None:
        raise InvalidField(
            f"{path}.parent_turn_id", "no turn before this one has that id; parents come first"
        )
    if parent.state is not TurnState.FINISHED:
        raise InvalidField(
            f"{path}.parent_turn_id", "that turn was cut short, and nothing goes on from it"
        )


def _read_turn(message: pb.Turn, path: str, limits: ChatLimits, now: datetime) -> Turn:
    with_path = _Path(path)
    max_answer_chars = limits.requests.max_tokens * CHARS_PER_TOKEN
    if len(message.answer) > max_answer_chars:
        raise InvalidField(
            f"{path}.answer",
            f"has {len(message.answer):,} characters; at most {max_answer_chars:,}",
        )
    state = _STATES.get(message.state)
    if state is None:
        raise InvalidField(
            f"{path}.state", "TURN_STATE_FINISHED, TURN_STATE_CANCELLED or TURN_STATE_FAILED"
        )
    reason = _REASONS.get(message.finish_reason)
    if reason is None or (reason in WHOLE) is not (state is TurnState.FINISHED):
        names = sorted(
            pb.FinishReason.Name(number)
            for number, known in _REASONS.items()
            if (known in WHOLE) is (state is TurnState.FINISHED)
        )
        raise InvalidField(f"{path}.finish_reason", f"with this state one of {', '.join(names)}")
    created_at = _time(message, "create_time", path) or now
    return Turn(
        id=with_path.read(requests.required_id, "id", message.id),
        parent_id=message.parent_turn_id if message.HasField("parent_turn_id") else None,
        prompt=with_path.read(requests.prompt_text, "prompt", message.prompt, limits.requests),
        images=tuple(
            _read_image(image, f"{path}.images[{index}]", limits)
            for index, image in enumerate(message.images)
        ),
        question_ids=(),
        num_trimmed_turns=0,
        num_untrimmed_tokens=0,
        sampling=_read_sampling(message, with_path, limits.requests),
        model=_read_model(message.model, f"{path}.model"),
        created_at=created_at,
        state=state,
        answer=message.answer,
        finish_reason=reason,
        usage=_read_usage(message.usage, f"{path}.usage") if message.HasField("usage") else None,
        timings=(
            _read_timings(message.timings, f"{path}.timings")
            if message.HasField("timings")
            else None
        ),
        finished_at=_time(message, "finish_time", path) or created_at,
        imported=True,
    )


def _read_image(message: pb.ImageInfo, path: str, limits: ChatLimits) -> ImageInfo:
    _Path(path).read(requests.known_image_id, "id", message.id)
    for name in ("width_pixels", "height_pixels"):
        side = getattr(message, name)
        if not 1 <= side <= limits.max_side_pixels:
            raise InvalidField(f"{path}.{name}", f"is {side}; 1 to {limits.max_side_pixels:,}")
    if message.media_type not in ("", *_MEDIA_TYPES):
        raise InvalidField(f"{path}.media_type", f"one of {', '.join(_MEDIA_TYPES)}, or empty")
    if not 0 <= message.num_frames <= MAX_FRAMES:
        raise InvalidField(f"{path}.num_frames", f"is {message.num_frames}; 0 to {MAX_FRAMES:,}")
    return ImageInfo(
        message.id,
        message.width_pixels,
        message.height_pixels,
        message.media_type,
        message.num_frames,
    )


def _read_sampling(message: pb.Turn, with_path: "_Path", limits: RequestLimits) -> Sampling:
    for name in _PARAMS:
        if not message.params.HasField(name):  # type: ignore[arg-type]
            raise InvalidField(
                f"{with_path.prefix}.params.{name}", "is required: it is told what was used"
            )
    history = replace(limits, max_tokens=_INT32_MAX, vocab_size=_INT32_MAX)
    wishes = with_path.read(requests.sampling_wishes, message.params, history)
    # Every wish is set, but for the texts to stop at, which may be none.
    return wishes.resolve(Sampling(max_tokens=1))


def _read_model(message: pb.ModelInfo, path: str) -> ModelInfo:
    for name in ("profile", "name", "revision"):
        text = getattr(message, name)
        if len(text) > MAX_MODEL_CHARS or "\0" in text:
            raise InvalidField(
                f"{path}.{name}", f"at most {MAX_MODEL_CHARS} characters, none of them NUL"
            )
    forms = [form.value for form in Quantization]
    if message.quantization not in forms:
        raise InvalidField(f"{path}.quantization", f"one of {', '.join(forms)}")
    digest = message.weights_sha256
    if digest and not requests.is_sha256(digest):
        raise InvalidField(f"{path}.weights_sha256", "64 lower-case hexadecimal digits, or empty")
    return ModelInfo(
        message.profile, message.name, message.revision, Quantization(message.quantization), digest
    )


def _read_usage(message: pb.Usage, path: str) -> Usage:
    for name in _USAGE:
        if getattr(message, name) < 0:
            raise InvalidField(f"{path}.{name}", f"is {getattr(message, name)}; 0 or more")
    return Usage(*(getattr(message, name) for name in _USAGE))


def _read_timings(message: pb.Timings, path: str) -> Timings:
    return Timings(*(_seconds(getattr(message, name), f"{path}.{name}") for name in _TIMINGS))


def _seconds(message: Duration, field: str) -> float:
    if not (0 <= message.seconds < MAX_TOLD_SECONDS and 0 <= message.nanos < 1_000_000_000):
        raise InvalidField(field, f"0 to {MAX_TOLD_SECONDS:,} seconds")
    return message.seconds + message.nanos / 1e9


def _time(message: Message, name: str, path: str) -> datetime | None:
    return (
        requests.utc_time(f"{path}.{name}", getattr(message, name))
        if message.HasField(name)
        else None
    )


@dataclass(frozen=True, slots=True)
class _Path:
    """Where a field of a question lies in an imported chat."""

    prefix: str

    def read(self, read: Callable[..., T], *arguments: Any) -> T:
        """Read by a question's check; what it refuses is named from the request's root."""
        try:
            return read(*arguments)
        except InvalidField as error:
            raise InvalidField(f"{self.prefix}.{error.field}", error.expected) from None
