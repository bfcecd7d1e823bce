"""Chats and pictures on their way out of a server and into one."""

import struct
from collections.abc import Iterable, Sequence

from google.protobuf.duration_pb2 import Duration

from llavachat._wire import responses
from llavachat._wire.checks import check_id
from llavachat._wire.requests import Operation, write_params, write_time
from llavachat.errors import IncompleteReply
from llavachat.images import Picture
from llavachat.types import ChatArchive, ChatRecord, Timings, Turn
from llavachat.v1 import chat_pb2

_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES = 24
"""Up to width and height. Source: PNG, third edition, 5.2 and 11.2.1."""


def get_image(image_id: str) -> Operation[bytes]:
    """GetImage: the next bytes of a PNG file."""
    request = chat_pb2.GetImageRequest(image_id=check_id("image_id", image_id))
    return Operation("GetImage", request, lambda response: bytes(response.data))


def join_image(parts: Iterable[bytes]) -> Picture:
    """The picture whose parts `get_image` told.

    Raises:
        IncompleteReply: they are no PNG file.
    """
    data = b"".join(parts)
    if not data.startswith(_PNG) or len(data) < _HEADER_BYTES:
        raise IncompleteReply("The server sent something else than a picture.")
    width, height = struct.unpack(">II", data[16:_HEADER_BYTES])
    return Picture(data, "image/png", width, height)


def get_original(image_id: str) -> Operation[chat_pb2.GetImageResponse]:
    """GetImage: the next bytes of the file as it came."""
    request = chat_pb2.GetImageRequest(image_id=check_id("image_id", image_id), original=True)
    return Operation("GetImage", request, lambda response: response)


def join_original(parts: Sequence[chat_pb2.GetImageResponse]) -> Picture:
    """The file whose parts `get_original` told.

    Raises:
        IncompleteReply: they do not begin with what is known of the picture.
    """
    if not parts or not parts[0].HasField("image"):
        raise IncompleteReply("The server sent something else than a picture.")
    image, data = parts[0].image, b"".join(part.data for part in parts)
    return Picture(
        data, image.media_type, image.width_pixels, image.height_pixels, max(1, image.num_frames)
    )


def import_chat(archive: ChatArchive) -> Operation[ChatRecord]:
    """ImportChat: the chat, then each picture once, in the file that it came in if there is one."""
    files = archive.originals
    parts = [chat_pb2.ImportChatRequest(chat=_write_chat(archive.chat))]
    parts += [chat_pb2.ImportChatRequest(original=data) for data in files.values()]
    parts += [
        chat_pb2.ImportChatRequest(image=data)
        for image_id, data in archive.pictures.items()
        if image_id not in files
    ]
    return Operation("ImportChat", iter(parts), lambda answer: responses.read_chat(answer.chat))


def _write_chat(chat: ChatRecord) -> chat_pb2.Chat:
    return chat_pb2.Chat(
        id=chat.id,
        system_prompt=chat.system_prompt,
        labels=chat.labels,
        create_time=write_time("create_time", chat.create_time),
        turns=[_write_turn(turn) for turn in chat.turns],
    )


def _write_turn(turn: Turn) -> chat_pb2.Turn:
    usage, model = turn.usage, turn.model
    return chat_pb2.Turn(
        id=turn.id,
        parent_turn_id=turn.parent_turn_id,
        prompt=turn.prompt,
        answer=turn.answer,
        images=[
            chat_pb2.ImageInfo(
                id=image.id,
                width_pixels=image.width_pixels,
                height_pixels=image.height_pixels,
                num_tokens=image.num_tokens,
                media_type=image.media_type,
                num_frames=image.num_frames,
            )
            for image in turn.images
        ],
        state=chat_pb2.TurnState.Value(f"TURN_STATE_{turn.state.name}"),
        finish_reason=chat_pb2.FinishReason.Value(f"FINISH_REASON_{turn.finish_reason.name}"),
        params=write_params(turn.params),
        usage=chat_pb2.Usage(
            text_tokens=usage.text_tokens,
            image_tokens=usage.image_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            context_left_tokens=usage.context_left_tokens,
        )
        if usage
        else None,
        timings=_write_timings(turn.timings) if turn.timings else None,
        model=chat_pb2.ModelInfo(
            profile=model.profile,
            name=model.name,
            revision=model.revision,
            quantization=model.quantization,
            weights_sha256=model.weights_sha256,
        ),
        create_time=write_time("create_time", turn.create_time),
        finish_time=write_time("finish_time", turn.finish_time),
    )


def _write_timings(timings: Timings) -> chat_pb2.Timings:
    return chat_pb2.Timings(
        queue=_write_seconds(timings.queue_seconds),
        vision=_write_seconds(timings.vision_seconds),
        prefill=_write_seconds(timings.prefill_seconds),
        first_token=_write_seconds(timings.first_token_seconds),
        decode=_write_seconds(timings.decode_seconds),
    )


def _write_seconds(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
