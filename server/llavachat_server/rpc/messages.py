"""Values to messages. Pure; nothing here decides or checks anything."""

from collections.abc import Iterator
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from llavachat.v1 import chat_pb2 as pb

from llavachat_server.chats.live import Ended, Started, Trimmed, TurnEvent
from llavachat_server.chats.record import Chat, ChatSummary, Turn, TurnState
from llavachat_server.chats.replay import Verdict
from llavachat_server.images.intake import ImageInfo
from llavachat_server.values import Delta, FinishReason, ModelInfo, Queued, Sampling, Timings, Usage

TITLE_CHARS = 80
IMAGE_PART_BYTES = 256 * 1024
"""Of the contract's 1 MiB: gRPC keeps a part that is not read as long as the call is there."""

FINISH_REASONS = {
    FinishReason.EOS: pb.FINISH_REASON_EOS,
    FinishReason.STOP_SEQUENCE: pb.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.MAX_TOKENS: pb.FINISH_REASON_MAX_TOKENS,
    FinishReason.MAX_CONTEXT: pb.FINISH_REASON_MAX_CONTEXT,
    FinishReason.TIME_LIMIT: pb.FINISH_REASON_TIME_LIMIT,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
    FinishReason.SHUTDOWN: pb.FINISH_REASON_SHUTDOWN,
    FinishReason.ERROR: pb.FINISH_REASON_ERROR,
}

TURN_STATES = {
    TurnState.RUNNING: pb.TURN_STATE_RUNNING,
    TurnState.FINISHED: pb.TURN_STATE_FINISHED,
    TurnState.CANCELLED: pb.TURN_STATE_CANCELLED,
    TurnState.FAILED: pb.TURN_STATE_FAILED,
}


def duration(seconds: float) -> Duration:
    """Seconds as a protobuf duration."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def timestamp(time: datetime) -> Timestamp:
    """A UTC time as a protobuf timestamp."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def model_info(model: ModelInfo) -> pb.ModelInfo:
    """See ``ModelInfo``."""
    return pb.ModelInfo(
        profile=model.profile,
        name=model.name,
        revision=model.revision,
        quantization=model.quantization.value,
        weights_sha256=model.weights_sha256,
    )


def params(sampling: Sampling) -> pb.GenerationParams:
    """See ``GenerationParams``; every field set."""
    return pb.GenerationParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        stop=sampling.stop,
    )


def image_info(image: ImageInfo, num_image_tokens: int) -> pb.ImageInfo:
    """See ``ImageInfo``."""
    return pb.ImageInfo(
        id=image.id,
        width_pixels=image.width_pixels,
        height_pixels=image.height_pixels,
        num_tokens=num_image_tokens,
        media_type=image.media_type,
        num_frames=image.num_frames,
    )


def usage(value: Usage) -> pb.Usage:
    """See ``Usage``."""
    return pb.Usage(
        text_tokens=value.text_tokens,
        image_tokens=value.image_tokens,
        cached_tokens=value.cached_tokens,
        completion_tokens=value.completion_tokens,
        context_left_tokens=value.context_left_tokens,
    )


def timings(value: Timings) -> pb.Timings:
    """See ``Timings``."""
    return pb.Timings(
        queue=duration(value.queue_seconds),
        vision=duration(value.vision_seconds),
        prefill=duration(value.prefill_seconds),
        first_token=duration(value.first_token_seconds),
        decode=duration(value.decode_seconds),
    )


def write_event(target: pb.ChatEvent, event: TurnEvent, num_image_tokens: int) -> None:
    """See ``ChatEvent``; into an empty one, since there is one for each token."""
    match event:
        case Delta():
            delta = target.delta
            delta.text = event.text
            delta.char_offset = event.char_offset
        case Queued():
            target.queued.CopyFrom(pb.Queued(position=event.position))
        case Started():
            target.started.CopyFrom(
                pb.TurnStarted(
                    chat_id=event.chat_id,
                    turn_id=event.turn_id,
                    parent_turn_id=event.parent_turn_id,
                    model=model_info(event.model),
                    params=params(event.sampling),
                    images=[image_info(image, num_image_tokens) for image in event.images],
                )
            )
        case Trimmed():
            target.trimmed.CopyFrom(
                pb.ContextTrimmed(
                    turn_ids=event.turn_ids,
                    num_tokens_before=event.num_tokens_before,
                    num_tokens_after=event.num_tokens_after,
                )
            )
        case Ended():
            target.finished.CopyFrom(
                pb.TurnFinished(
                    finish_reason=FINISH_REASONS[event.finish_reason],
                    matched_stop=event.matched_stop,
                    usage=usage(event.usage),
                    timings=timings(event.timings),
                )
            )


def turn(value: Turn, num_image_tokens: int, raw_prompt: str | None = None) -> pb.Turn:
    """See ``Turn``."""
    reason = value.finish_reason
    return pb.Turn(
        id=value.id,
        parent_turn_id=value.parent_id,
        prompt=value.prompt,
        answer=value.answer,
        images=[image_info(image, num_image_tokens) for image in value.images],
        state=TURN_STATES[value.state],
        finish_reason=FINISH_REASONS[reason] if reason else pb.FINISH_REASON_UNSPECIFIED,
        params=params(value.sampling),
        usage=usage(value.usage) if value.usage else None,
        timings=timings(value.timings) if value.timings else None,
        model=model_info(value.model),
        create_time=timestamp(value.created_at),
        finish_time=timestamp(value.finished_at) if value.finished_at else None,
        raw_prompt=raw_prompt,
        imported=value.imported,
    )


def image_parts(
    image: ImageInfo, num_image_tokens: int, file: bytes
) -> Iterator[pb.GetImageResponse]:
    """See ``GetImageResponse``; the first part tells what is known of the picture."""
    for begin in range(0, len(file), IMAGE_PART_BYTES):
        yield pb.GetImageResponse(
            image=None if begin else image_info(image, num_image_tokens),
            data=file[begin : begin + IMAGE_PART_BYTES],
        )


def chat(value: Chat, num_image_tokens: int) -> pb.Chat:
    """See ``Chat``; with its turns, without raw prompts."""
    message = chat_summary(value.summarise())
    message.turns.extend(turn(each, num_image_tokens) for each in value.turns)
    return message


def chat_summary(value: ChatSummary) -> pb.Chat:
    """See ``Chat``; without its turns."""
    title = " ".join(value.opening.split())
    if len(title) > TITLE_CHARS:
        title = title[: TITLE_CHARS - 1].rstrip() + "…"
    return pb.Chat(
        id=value.id,
        system_prompt=value.system_prompt,
        labels=value.labels,
        create_time=timestamp(value.created_at),
        update_time=timestamp(value.updated_at),
        num_turns=value.num_turns,
        title=title,
    )


def replay_event(event: Delta | Verdict) -> pb.ReplayTurnResponse:
    """See ``ReplayTurnResponse``."""
    if isinstance(event, Delta):
        delta = pb.TextDelta(text=event.text, char_offset=event.char_offset)
        return pb.ReplayTurnResponse(delta=delta)
    changes = [
        pb.ReplayChange(name=change.name, recorded=change.recorded, current=change.current)
        for change in event.changes
    ]
    return pb.ReplayTurnResponse(
        verdict=pb.ReplayVerdict(
            identical=event.first_difference_token is None,
            first_difference_token=event.first_difference_token,
            changes=changes,
        )
    )
