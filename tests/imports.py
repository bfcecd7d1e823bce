"""Chats on their way out of a server and into one, part by part, over the contract."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from app_in_process import RunningApp
from llavachat.v1 import chat_pb2 as pb


async def ask(app: RunningApp, prompt: str, **fields: Any) -> pb.TurnStarted:
    """Ask in a chat, to the end of the answer."""
    request = pb.ContinueChatRequest(prompt=prompt, **fields)
    events = [reply.event async for reply in app.chat.ContinueChat(request)]
    assert "finished" == events[-1].WhichOneof("event")
    return events[0].started


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


async def endless(chat: pb.Chat) -> AsyncIterator[pb.ImportChatRequest]:
    """The parts of an ImportChat that never ends."""
    yield pb.ImportChatRequest(chat=chat)
    await asyncio.Event().wait()


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
