"""Chats on their way out of a server and into one, part by part, over the contract."""

from collections.abc import Iterable
from typing import Any

from llavachat.v1 import chat_pb2 as pb


async def read_chat(stub: Any, chat_id: str, **call: Any) -> pb.Chat:
    """What GetChat tells."""
    return (await stub.GetChat(pb.GetChatRequest(chat_id=chat_id), **call)).chat


async def read_picture(stub: Any, image_id: str, **call: Any) -> bytes:
    """What GetImage tells, put together."""
    parts = stub.GetImage(pb.GetImageRequest(image_id=image_id), **call)
    return b"".join([part.data async for part in parts])


async def read_export(stub: Any, chat_id: str, **call: Any) -> tuple[pb.Chat, list[bytes]]:
    """A chat and its pictures."""
    chat = await read_chat(stub, chat_id, **call)
    ids = dict.fromkeys(image.id for turn in chat.turns for image in turn.images)
    return chat, [await read_picture(stub, image_id, **call) for image_id in ids]


def write_parts(chat: pb.Chat | None, pictures: Iterable[bytes]) -> list[pb.ImportChatRequest]:
    """The parts of an ImportChat."""
    first = [] if chat is None else [pb.ImportChatRequest(chat=chat)]
    return [*first, *(pb.ImportChatRequest(image=data) for data in pictures)]


async def import_chat(
    stub: Any, chat: pb.Chat | None, pictures: Iterable[bytes] = (), **call: Any
) -> pb.Chat:
    """What ImportChat answers."""
    return (await stub.ImportChat(iter(write_parts(chat, pictures)), **call)).chat


def strip_ids(chat: pb.Chat) -> pb.Chat:
    """The chat with its turns' places for ids, and without what an import changes on purpose."""
    stripped = pb.Chat()
    stripped.CopyFrom(chat)
    stripped.id = ""
    stripped.ClearField("update_time")
    places = {turn.id: str(place) for place, turn in enumerate(chat.turns)}
    for turn in stripped.turns:
        turn.id = places[turn.id]
        if turn.HasField("parent_turn_id"):
            turn.parent_turn_id = places[turn.parent_turn_id]
        turn.imported = False
    return stripped
