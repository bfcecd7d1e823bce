"""Messages into values. What a newer server adds is passed over: an unknown event is None, an
unknown enum value UNSPECIFIED."""

from datetime import UTC, datetime
from enum import Enum
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from llavachat.types import (
    ChatPage,
    ChatRecord,
    ContextTrimmed,
    Delta,
    Event,
    Finished,
    FinishReason,
    ImageInfo,
    Limits,
    ModelInfo,
    Params,
    Queued,
    ReplayChange,
    ReplayVerdict,
    ServerInfo,
    Started,
    Timings,
    TokenCount,
    Turn,
    TurnState,
    Usage,
)
from llavachat.v1 import chat_pb2

E = TypeVar("E", bound=Enum)


def read_event(event: chat_pb2.ChatEvent) -> Event | None:
    """One event of a stream. None: one that this client does not know."""
    match event.WhichOneof("event"):
        case "delta":
            delta = event.delta
            return Delta(delta.text, delta.char_offset)
        case "started":
            started = event.started
            return Started(
                chat_id=started.chat_id,
                turn_id=started.turn_id,
                parent_turn_id=started.parent_turn_id
                if started.HasField("parent_turn_id")
                else None,
                model=read_model(started.model),
                params=read_params(started.params),
                images=tuple(read_image(image) for image in started.images),
                server_start_time=_read_time(started, "server_start_time"),
            )
        case "queued":
            return Queued(event.queued.position)
        case "trimmed":
            trimmed = event.trimmed
            return ContextTrimmed(
                tuple(trimmed.turn_ids), trimmed.num_tokens_before, trimmed.num_tokens_after
            )
        case "finished":
            finished = event.finished
            return Finished(
                finish_reason=read_finish_reason(finished.finish_reason),
                matched_stop=finished.matched_stop if finished.HasField("matched_stop") else None,
                usage=read_usage(finished.usage),
                timings=read_timings(finished.timings),
            )
    return None


def read_replay_event(response: chat_pb2.ReplayTurnResponse) -> Delta | ReplayVerdict | None:
    """One event of a replay. None: one that this client does not know."""
    match response.WhichOneof("event"):
        case "delta":
            return Delta(response.delta.text, response.delta.char_offset)
        case "verdict":
            verdict = response.verdict
            difference = verdict.first_difference_token
            return ReplayVerdict(
                identical=verdict.identical,
                first_difference_token=(
                    difference if verdict.HasField("first_difference_token") else None
                ),
                changes=tuple(
                    ReplayChange(change.name, change.recorded, change.current)
                    for change in verdict.changes
                ),
            )
    return None


def read_params(params: chat_pb2.GenerationParams) -> Params:
    """Sampling parameters; what is not set is None. Floats lose what single precision added."""

    def number(name: str) -> float | None:
        return float(f"{getattr(params, name):.7g}") if params.HasField(name) else None  # type: ignore[arg-type]

    def count(name: str) -> int | None:
        return int(getattr(params, name)) if params.HasField(name) else None  # type: ignore[arg-type]

    return Params(
        max_tokens=count("max_tokens"),
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=count("top_k"),
        repetition_penalty=number("repetition_penalty"),
        seed=count("seed"),
        stop=tuple(params.stop),
    )


def read_model(model: chat_pb2.ModelInfo) -> ModelInfo:
    """Which model answers."""
    return ModelInfo(
        model.profile, model.name, model.revision, model.quantization, model.weights_sha256
    )


def read_image(image: chat_pb2.ImageInfo) -> ImageInfo:
    """What the server knows of a picture."""
    return ImageInfo(
        image.id,
        image.width_pixels,
        image.height_pixels,
        image.num_tokens,
        image.media_type,
        image.num_frames,
    )


def read_usage(usage: chat_pb2.Usage) -> Usage:
    """Tokens of one turn."""
    return Usage(
        usage.text_tokens,
        usage.image_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        usage.context_left_tokens,
    )


def read_timings(timings: chat_pb2.Timings) -> Timings:
    """Where the time of one turn went."""
    return Timings(
        timings.queue.ToTimedelta().total_seconds(),
        timings.vision.ToTimedelta().total_seconds(),
        timings.prefill.ToTimedelta().total_seconds(),
        timings.first_token.ToTimedelta().total_seconds(),
        timings.decode.ToTimedelta().total_seconds(),
    )


def read_finish_reason(number: int) -> FinishReason:
    """Why an answer ended."""
    return _read_enum(FinishReason, chat_pb2.FinishReason, "FINISH_REASON_", number)


def read_turn(turn: chat_pb2.Turn) -> Turn:
    """One question and its answer."""
    return Turn(
        id=turn.id,
        parent_turn_id=turn.parent_turn_id if turn.HasField("parent_turn_id") else None,
        prompt=turn.prompt,
        answer=turn.answer,
        images=tuple(read_image(image) for image in turn.images),
        state=_read_enum(TurnState, chat_pb2.TurnState, "TURN_STATE_", turn.state),
        finish_reason=read_finish_reason(turn.finish_reason),
        params=read_params(turn.params),
        usage=read_usage(turn.usage) if turn.HasField("usage") else None,
        timings=read_timings(turn.timings) if turn.HasField("timings") else None,
        model=read_model(turn.model),
        create_time=_read_time(turn, "create_time"),
        finish_time=_read_time(turn, "finish_time"),
        raw_prompt=turn.raw_prompt if turn.HasField("raw_prompt") else None,
        imported=turn.imported,
    )


def read_chat(chat: chat_pb2.Chat) -> ChatRecord:
    """A chat with the turns that came along."""
    return ChatRecord(
        id=chat.id,
        title=chat.title,
        system_prompt=chat.system_prompt if chat.HasField("system_prompt") else None,
        labels=dict(chat.labels),
        create_time=_read_time(chat, "create_time"),
        update_time=_read_time(chat, "update_time"),
        num_turns=chat.num_turns,
        turns=tuple(read_turn(turn) for turn in chat.turns),
    )


def read_chat_page(response: chat_pb2.ListChatsResponse) -> ChatPage:
    """A page of chats."""
    return ChatPage(tuple(read_chat(chat) for chat in response.chats), response.next_page_token)


def read_token_count(response: chat_pb2.CountTokensResponse) -> TokenCount:
    """How many tokens a question would use."""
    return TokenCount(
        response.text_tokens,
        response.image_tokens,
        response.history_tokens,
        response.total_tokens,
        response.context_tokens,
        response.context_left_tokens,
    )


def read_server_info(response: chat_pb2.GetServerInfoResponse) -> ServerInfo:
    """Which model answers, and within which limits."""
    limits = response.limits
    return ServerInfo(
        model=read_model(response.model),
        limits=Limits(
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_image_side_pixels=limits.max_image_side_pixels,
            max_images_per_turn=limits.max_images_per_turn,
            max_prompt_chars=limits.max_prompt_chars,
            context_tokens=limits.context_tokens,
            max_tokens=limits.max_tokens,
            tokens_per_image=limits.tokens_per_image,
            max_running_turns=limits.max_running_turns,
            max_queued_turns=limits.max_queued_turns,
            max_turn_seconds=limits.max_turn_duration.ToTimedelta().total_seconds(),
            media_types=tuple(limits.media_types),
        ),
        default_params=read_params(response.default_params),
        server_version=response.server_version,
        device=response.device,
        start_time=_read_time(response, "start_time"),
        library_versions=dict(response.library_versions),
        keeps_originals=response.keeps_originals,
    )


def _read_enum(values: type[E], names: object, prefix: str, number: int) -> E:
    try:
        name: str = names.Name(number)  # type: ignore[attr-defined]
        return values[name.removeprefix(prefix)]
    except (KeyError, ValueError):
        return values["UNSPECIFIED"]


def _read_time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(UTC)
