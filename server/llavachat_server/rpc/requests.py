"""Messages to values: every field of every request is checked here, and named when it is wrong.

Pure; it must not know chats' contents, only the contract's limits.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from llavachat.v1 import chat_pb2 as pb

from llavachat_server.chats.question import (
    ImageSource,
    NewChat,
    OverflowPolicy,
    Place,
    Question,
    SamplingWishes,
)
from llavachat_server.chats.store import ChatQuery, PageMark
from llavachat_server.images.intake import ADDRESSES_ARE_OFF
from llavachat_server.images.picture import MAX_FRAMES
from llavachat_server.values import (
    MAX_REPETITION_PENALTY,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TEMPERATURE,
    InvalidField,
)

MAX_REQUEST_ID_CHARS = 128
MAX_LABELS = 16
MAX_LABEL_CHARS = 64
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50
LEAST_TEMPERATURE = 9.999999e-7
"""0.000001, as a message's 32 bits round it. Less counts as 0: scores that are divided by it would
pass the largest number there is."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_OVERFLOW = {
    pb.OVERFLOW_POLICY_UNSPECIFIED: OverflowPolicy.ERROR,
    pb.OVERFLOW_POLICY_ERROR: OverflowPolicy.ERROR,
    pb.OVERFLOW_POLICY_DROP_OLDEST_TURNS: OverflowPolicy.DROP_OLDEST_TURNS,
}

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits of requests that a profile sets; see ``Limits`` in the contract."""

    max_prompt_chars: int
    max_images_per_turn: int
    max_tokens: int
    vocab_size: int
    takes_urls: bool = False


def start_question(request: pb.StartChatRequest, limits: RequestLimits) -> Question:
    """Check a StartChat.

    Raises:
        InvalidField: a field is wrong.
    """
    system = request.system_prompt if request.HasField("system_prompt") else None
    return _question(
        request, NewChat(system_text(system, limits), label_map(request.labels)), limits
    )


def continue_question(request: pb.ContinueChatRequest, limits: RequestLimits) -> Question:
    """Check a ContinueChat.

    Raises:
        InvalidField: a field is wrong.
    """
    parent = _parent_turn_id(request)
    return _question(request, Place(required_id("chat_id", request.chat_id), parent), limits)


def count_question(request: pb.CountTokensRequest, limits: RequestLimits) -> Question:
    """Check a CountTokens.

    Raises:
        InvalidField: a field is wrong.
    """
    parent = _parent_turn_id(request)
    system = request.system_prompt if request.HasField("system_prompt") else None
    where: NewChat | Place
    if request.HasField("chat_id"):
        if system is not None:
            raise InvalidField("system_prompt", "is for a new chat; leave it out with chat_id")
        where = Place(required_id("chat_id", request.chat_id), parent)
    elif parent is not None:
        raise InvalidField("parent_turn_id", "needs chat_id")
    else:
        where = NewChat(system_text(system, limits))
    return Question(
        where=where,
        prompt=prompt_text("prompt", request.prompt, limits),
        images=_images(request.images, limits),
    )


def required_id(field: str, value: str) -> str:
    """Check an id of a chat or a turn: its form is the server's own business, its length is not.

    Raises:
        InvalidField: it is empty or far too long.
    """
    if not value:
        raise InvalidField(field, "is required")
    if len(value) > MAX_REQUEST_ID_CHARS:
        raise InvalidField(field, f"at most {MAX_REQUEST_ID_CHARS} characters")
    return value


def _parent_turn_id(request: pb.ContinueChatRequest | pb.CountTokensRequest) -> str | None:
    """Check where a question goes on. None: it is not said; "": at the chat's beginning."""
    if not request.HasField("parent_turn_id"):
        return None
    return request.parent_turn_id and required_id("parent_turn_id", request.parent_turn_id)


def char_offset(request: pb.ResumeTurnRequest) -> int:
    """Check where a ResumeTurn begins.

    Raises:
        InvalidField: it is negative.
    """
    if request.char_offset < 0:
        raise InvalidField("char_offset", f"is {request.char_offset}; 0 or more")
    return request.char_offset


def chat_query(request: pb.ListChatsRequest) -> ChatQuery:
    """Check a ListChats.

    Raises:
        InvalidField: a field is wrong.
    """
    if not 0 <= request.page_size <= MAX_PAGE_SIZE:
        raise InvalidField(
            "page_size", f"is {request.page_size}; 0 (for {DEFAULT_PAGE_SIZE}) to {MAX_PAGE_SIZE}"
        )
    since = request.updated_since if request.HasField("updated_since") else None
    before = request.updated_before if request.HasField("updated_before") else None
    return ChatQuery(
        limit=request.page_size or DEFAULT_PAGE_SIZE,
        after=_read_page_token(request.page_token) if request.page_token else None,
        labels=label_map(request.labels),
        updated_since=utc_time("updated_since", since),
        updated_before=utc_time("updated_before", before),
    )


def page_token(mark: PageMark | None) -> str:
    """Write where a page ended; callers take it as it is."""
    if mark is None:
        return ""
    microseconds = (mark.updated_at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{microseconds}:{mark.chat_id}".encode()).decode()


def _read_page_token(token: str) -> PageMark:
    try:
        microseconds, chat_id = base64.urlsafe_b64decode(token.encode()).decode().split(":", 1)
        if "\0" in chat_id:
            raise ValueError
        return PageMark(_EPOCH + timedelta(microseconds=int(microseconds)), chat_id)
    except (ValueError, OverflowError):
        raise InvalidField("page_token", "take next_page_token of the page before") from None


def _question(
    request: pb.StartChatRequest | pb.ContinueChatRequest,
    where: NewChat | Place,
    limits: RequestLimits,
) -> Question:
    if request.overflow_policy not in _OVERFLOW:
        raise InvalidField("overflow_policy", "take one of OverflowPolicy's values")
    request_id = _request_id(request.request_id)
    return Question(
        where=where,
        prompt=prompt_text("prompt", request.prompt, limits),
        images=_images(request.images, limits),
        wishes=_cool(sampling_wishes(request.params, limits)),
        overflow=_OVERFLOW[request.overflow_policy],
        request_id=request_id,
        body_sha256=_body_sha256(request) if request_id else "",
    )


def _body_sha256(request: pb.StartChatRequest | pb.ContinueChatRequest) -> str:
    # Cleared and put back, because a copy would double the pictures in memory.
    request_id = request.request_id
    request.ClearField("request_id")
    digest = hashlib.sha256(request.DESCRIPTOR.full_name.encode() + b"\0")
    digest.update(request.SerializeToString(deterministic=True))
    request.request_id = request_id
    return digest.hexdigest()


def _request_id(value: str) -> str:
    if len(value) > MAX_REQUEST_ID_CHARS or not (value.isascii() and (value.isprintable())):
        raise InvalidField(
            "request_id", f"at most {MAX_REQUEST_ID_CHARS} printable ASCII characters"
        )
    return value


def prompt_text(field: str, value: str, limits: RequestLimits) -> str:
    """Check a question.

    Raises:
        InvalidField: it is blank, too long, or holds a NUL.
    """
    if not value.strip():
        raise InvalidField(field, "is required, and not blank")
    return _text(field, value, limits)


def _text(field: str, value: str, limits: RequestLimits) -> str:
    if len(value) > limits.max_prompt_chars:
        raise InvalidField(
            field, f"has {len(value):,} characters; at most {limits.max_prompt_chars:,}"
        )
    if "\0" in value:
        raise InvalidField(field, "must not contain the character NUL")
    return value


def system_text(value: str | None, limits: RequestLimits) -> str | None:
    """Check a system prompt.

    Raises:
        InvalidField: it is too long, or holds a NUL.
    """
    return None if value is None else _text("system_prompt", value, limits)


def _images(images: Sequence[pb.Image], limits: RequestLimits) -> tuple[ImageSource, ...]:
    if len(images) > limits.max_images_per_turn:
        raise InvalidField(
            "images", f"{len(images)} pictures; at most {limits.max_images_per_turn} in one turn"
        )
    return tuple(_image(f"images[{index}]", image, limits) for index, image in enumerate(images))


def _image(path: str, image: pb.Image, limits: RequestLimits) -> ImageSource:
    if not 0 <= image.num_frames <= MAX_FRAMES:
        raise InvalidField(f"{path}.num_frames", f"is {image.num_frames}; 0 to {MAX_FRAMES:,}")
    match image.WhichOneof("source"):
        case "data":
            return ImageSource(data=image.data, num_frames=image.num_frames)
        case "image_id":
            return ImageSource(image_id=known_image_id(f"{path}.image_id", image.image_id))
        case "url":
            if not limits.takes_urls:
                raise InvalidField(f"{path}.url", ADDRESSES_ARE_OFF)
            return ImageSource(url=image.url, num_frames=image.num_frames)
        case _:
            raise InvalidField(path, "is empty; set data or image_id")


def known_image_id(field: str, value: str) -> str:
    """Check the id of a picture.

    Raises:
        InvalidField: it has not the form of one.
    """
    if not is_sha256(value):
        raise InvalidField(field, "64 lower-case hexadecimal digits, as in ImageInfo.id")
    return value


def is_sha256(value: str) -> bool:
    """Whether it has the form of a SHA-256 as the contract writes them."""
    return len(value) == 64 and set(value) <= set("0123456789abcdef")


def label_map(labels: Mapping[str, str]) -> dict[str, str]:
    """Check labels.

    Raises:
        InvalidField: they are too many, or one is empty or too long.
    """
    if len(labels) > MAX_LABELS:
        raise InvalidField("labels", f"{len(labels)} labels; at most {MAX_LABELS}")
    for key, value in labels.items():
        for text in (key, value):
            if not 1 <= len(text) <= MAX_LABEL_CHARS:
                raise InvalidField(
                    "labels", f"keys and values have 1 to {MAX_LABEL_CHARS} characters"
                )
    return dict(labels)


def sampling_wishes(params: pb.GenerationParams, limits: RequestLimits) -> SamplingWishes:
    """Check how an answer is to be drawn.

    Raises:
        InvalidField: a parameter is out of its range.
    """

    def read(name: str, low: N, high: N, *, is_low_excluded: bool = False) -> N | None:
        if not params.HasField(name):  # type: ignore[arg-type]
            return None
        value: N = getattr(params, name)
        is_in = low < value <= high if is_low_excluded else low <= value <= high
        if not is_in or not math.isfinite(value):
            lower = f"over {low}" if is_low_excluded else f"{low}"
            raise InvalidField(f"params.{name}", f"is {value}; allowed: {lower} to {high}")
        return value

    return SamplingWishes(
        max_tokens=read("max_tokens", 1, limits.max_tokens),
        temperature=read("temperature", 0.0, MAX_TEMPERATURE),
        top_p=read("top_p", 0.0, 1.0, is_low_excluded=True),
        top_k=read("top_k", 0, limits.vocab_size),
        repetition_penalty=read(
            "repetition_penalty", 0.0, MAX_REPETITION_PENALTY, is_low_excluded=True
        ),
        seed=params.seed if params.HasField("seed") else None,
        stop=_stops(tuple(params.stop)) if params.stop else None,
    )


def _cool(wishes: SamplingWishes) -> SamplingWishes:
    """With 0 for a temperature that is too small to draw by.

    Not for what an import tells: that is history, and nothing is drawn by it any more.
    """
    is_tiny = wishes.temperature is not None and wishes.temperature < LEAST_TEMPERATURE
    return replace(wishes, temperature=0.0) if is_tiny else wishes


def _stops(stops: tuple[str, ...]) -> tuple[str, ...]:
    if len(stops) > MAX_STOPS:
        raise InvalidField("params.stop", f"{len(stops)} texts; at most {MAX_STOPS}")
    for index, stop in enumerate(stops):
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise InvalidField(f"params.stop[{index}]", f"1 to {MAX_STOP_CHARS} characters")
    return stops


def utc_time(field: str, value: Timestamp | None) -> datetime | None:
    """Check a time.

    Raises:
        InvalidField: it is not between the years 1 and 9999.
    """
    if value is None:
        return None
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidField(field, "a time between the years 1 and 9999") from None
