"""Values into messages: every call of the contract as an operation that either twin can run."""

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from llavachat._wire import responses
from llavachat._wire.checks import (
    check_each,
    check_id,
    check_labels,
    check_prompt,
    check_text,
    is_int,
    is_number,
    refuse,
)
from llavachat.errors import IncompleteReply, NotFound
from llavachat.images import Picture
from llavachat.types import (
    ChatPage,
    ChatRecord,
    Delta,
    Event,
    ImageInfo,
    OverflowPolicy,
    Params,
    ReplayVerdict,
    ServerInfo,
    Started,
    TokenCount,
    Turn,
    TurnState,
)
from llavachat.v1 import chat_pb2

T = TypeVar("T")

_OVERFLOW = {
    None: chat_pb2.OVERFLOW_POLICY_UNSPECIFIED,
    OverflowPolicy.ERROR: chat_pb2.OVERFLOW_POLICY_ERROR,
    OverflowPolicy.DROP_OLDEST_TURNS: chat_pb2.OVERFLOW_POLICY_DROP_OLDEST_TURNS,
}

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """A call: the method's name in the contract, its message, and how to read the answer."""

    method: str
    request: Any
    read: Callable[[Any], T]


def collect_params(
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    repetition_penalty: float | None,
    seed: int | None,
    stop: Sequence[str] | None,
) -> Params:
    """The keyword arguments of a question as one value; a single stop text may stand alone.

    Raises:
        InvalidRequest: `stop` is no texts.
    """
    texts = (stop,) if isinstance(stop, str) else () if stop is None else stop
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise refuse("stop", "must be a text or several", stop)
    return Params(max_tokens, temperature, top_p, top_k, repetition_penalty, seed, tuple(texts))


def pick_latest_turn(record: ChatRecord) -> str:
    """The id of the latest turn, however it ended.

    Raises:
        NotFound: there is none.
    """
    if not record.turns:
        raise NotFound("The chat has no turns yet.")
    return record.turns[-1].id


def read_raw_prompt(turn: Turn) -> str:
    """The raw prompt of a turn that was fetched with it.

    Raises:
        IncompleteReply: it came without.
    """
    if turn.raw_prompt is None:
        raise IncompleteReply("The server sent the turn without its raw prompt.")
    return turn.raw_prompt


def pick_ended_turn(record: ChatRecord) -> str:
    """The id of the latest turn that is whole.

    Raises:
        NotFound: there is none.
    """
    ended = [turn.id for turn in record.turns if turn.state is TurnState.FINISHED]
    if not ended:
        raise NotFound("The chat has no finished turn.")
    return ended[-1]


def start_chat(
    images: Iterable[Picture | ImageInfo],
    prompt: str,
    *,
    system_prompt: str | None,
    labels: Mapping[str, str] | None,
    params: Params,
    overflow: OverflowPolicy | None,
    request_id: str | None,
) -> Operation[Event | None]:
    """StartChat, with a request_id of its own making where none is given."""
    request = chat_pb2.StartChatRequest(
        images=[_write_image(image) for image in images],
        prompt=check_prompt(prompt),
        system_prompt=check_text("system_prompt", system_prompt),
        params=write_params(params),
        request_id=check_text("request_id", request_id) or str(uuid.uuid4()),
        overflow_policy=_write_policy(overflow),
        labels=check_labels(labels),
    )
    return Operation("StartChat", request, lambda response: responses.read_event(response.event))


def continue_chat(
    chat_id: str,
    images: Iterable[Picture | ImageInfo],
    prompt: str,
    *,
    parent_turn_id: str | None,
    params: Params,
    overflow: OverflowPolicy | None,
    request_id: str | None,
) -> Operation[Event | None]:
    """ContinueChat, with a request_id of its own making where none is given."""
    request = chat_pb2.ContinueChatRequest(
        chat_id=check_id("chat_id", chat_id),
        images=[_write_image(image) for image in images],
        prompt=check_prompt(prompt),
        parent_turn_id=check_text("parent_turn_id", parent_turn_id),
        params=write_params(params),
        request_id=check_text("request_id", request_id) or str(uuid.uuid4()),
        overflow_policy=_write_policy(overflow),
    )
    return Operation("ContinueChat", request, lambda response: responses.read_event(response.event))


def resume_turn(turn: Started, char_offset: int) -> Operation[Event | None]:
    """ResumeTurn."""
    request = chat_pb2.ResumeTurnRequest(
        chat_id=turn.chat_id,
        turn_id=turn.turn_id,
        char_offset=char_offset,
        server_start_time=write_time("server_start_time", turn.server_start_time),
    )
    return Operation("ResumeTurn", request, lambda response: responses.read_event(response.event))


def replay_turn(chat_id: str, turn_id: str) -> Operation[Delta | ReplayVerdict | None]:
    """ReplayTurn."""
    request = chat_pb2.ReplayTurnRequest(
        chat_id=check_id("chat_id", chat_id), turn_id=check_id("turn_id", turn_id)
    )
    return Operation("ReplayTurn", request, responses.read_replay_event)


def get_chat(chat_id: str, *, include_raw_prompts: bool = False) -> Operation[ChatRecord]:
    """GetChat."""
    request = chat_pb2.GetChatRequest(
        chat_id=check_id("chat_id", chat_id), include_raw_prompts=include_raw_prompts
    )
    return Operation("GetChat", request, lambda response: responses.read_chat(response.chat))


def get_turn(chat_id: str, turn_id: str, *, include_raw_prompt: bool = False) -> Operation[Turn]:
    """GetTurn."""
    request = chat_pb2.GetTurnRequest(
        chat_id=check_id("chat_id", chat_id),
        turn_id=check_id("turn_id", turn_id),
        include_raw_prompt=include_raw_prompt,
    )
    return Operation("GetTurn", request, lambda response: responses.read_turn(response.turn))


def cancel_turn(chat_id: str, turn_id: str) -> Operation[Turn]:
    """CancelTurn."""
    request = chat_pb2.CancelTurnRequest(
        chat_id=check_id("chat_id", chat_id), turn_id=check_id("turn_id", turn_id)
    )
    return Operation("CancelTurn", request, lambda response: responses.read_turn(response.turn))


def list_chats(
    *,
    page_size: int,
    page_token: str,
    labels: Mapping[str, str] | None,
    updated_since: datetime | None,
    updated_before: datetime | None,
) -> Operation[ChatPage]:
    """ListChats: one page."""
    if not (is_int(page_size) and 0 <= page_size <= 1000):
        expected = "must be a whole number, 1 to 1000 (0 asks for the server's own size)"
        raise refuse("page_size", expected, page_size)
    request = chat_pb2.ListChatsRequest(
        page_size=page_size,
        page_token=page_token,
        labels=check_labels(labels),
        updated_since=write_time("updated_since", updated_since),
        updated_before=write_time("updated_before", updated_before),
    )
    return Operation("ListChats", request, responses.read_chat_page)


def delete_chat(chat_id: str) -> Operation[None]:
    """DeleteChat."""
    request = chat_pb2.DeleteChatRequest(chat_id=check_id("chat_id", chat_id))
    return Operation("DeleteChat", request, lambda _: None)


def count_tokens(
    images: Iterable[Picture | ImageInfo],
    prompt: str,
    *,
    system_prompt: str | None = None,
    chat_id: str | None = None,
    parent_turn_id: str | None = None,
) -> Operation[TokenCount]:
    """CountTokens."""
    request = chat_pb2.CountTokensRequest(
        images=[_write_image(image) for image in images],
        prompt=check_prompt(prompt),
        system_prompt=check_text("system_prompt", system_prompt),
        chat_id=check_text("chat_id", chat_id),
        parent_turn_id=check_text("parent_turn_id", parent_turn_id),
    )
    return Operation("CountTokens", request, responses.read_token_count)


def get_server_info() -> Operation[ServerInfo]:
    """GetServerInfo."""
    request = chat_pb2.GetServerInfoRequest()
    return Operation("GetServerInfo", request, responses.read_server_info)


def _write_image(image: Picture | ImageInfo) -> chat_pb2.Image:
    if isinstance(image, ImageInfo):
        return chat_pb2.Image(image_id=check_text("image_id", image.id))
    num_frames = image.num_frames if image.num_frames > 1 else 0
    return chat_pb2.Image(data=image.data, num_frames=num_frames)


def write_params(params: Params) -> chat_pb2.GenerationParams:
    """Only what protobuf could not carry is refused here; ranges are the server's to judge."""
    for name in ("max_tokens", "top_k"):
        value = getattr(params, name)
        if value is not None and not (is_int(value) and 0 <= value <= _INT32_MAX):
            raise refuse(name, f"must be a whole number, 0 to {_INT32_MAX}", value)
    for name in ("temperature", "top_p", "repetition_penalty"):
        value = getattr(params, name)
        if value is not None and not (is_number(value) and math.isfinite(value)):
            raise refuse(name, "must be a number", value)
    if params.seed is not None and not (is_int(params.seed) and 0 <= params.seed < 2**64):
        raise refuse("seed", "must be a whole number, 0 to 2**64 - 1", params.seed)
    return chat_pb2.GenerationParams(
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        repetition_penalty=params.repetition_penalty,
        seed=params.seed,
        stop=[check_each("stop", text) for text in params.stop],
    )


def _write_policy(overflow: OverflowPolicy | None) -> chat_pb2.OverflowPolicy.ValueType:
    if overflow is not None and not isinstance(overflow, OverflowPolicy):
        raise refuse("overflow", "must be an OverflowPolicy", overflow)
    return _OVERFLOW[overflow]


def write_time(name: str, time: datetime | None) -> Timestamp | None:
    """A time of day; it must have its time zone."""
    if time is None:
        return None
    if not isinstance(time, datetime):
        raise refuse(name, "must be a datetime", time)
    if time.tzinfo is None:
        raise refuse(name, "must have a time zone, such as datetime.now(UTC)")
    stamp = Timestamp()
    try:
        stamp.FromDatetime(time.astimezone(UTC))
    except OverflowError:
        raise refuse(name, "must be in the years 1 to 9999 of UTC") from None
    return stamp
