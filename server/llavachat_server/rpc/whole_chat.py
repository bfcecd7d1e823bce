"""A chat with all its turns as one message, which may be a large one.

Contract: the event loop goes on meanwhile; what is too large to be sent is refused in our words,
where gRPC would say that a message of so many bytes is over a limit.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from llavachat.v1 import chat_pb2 as pb

from llavachat_server.chats.errors import OtherTokenizer, PromptNeverSeen
from llavachat_server.chats.record import Chat, Turn
from llavachat_server.rpc import messages
from llavachat_server.rpc.limits import MAX_REPLY_BYTES
from llavachat_server.values import InvalidField

TellPrompt = Callable[[Chat, Turn, Mapping[str, Turn]], str]
"""The raw prompt of a turn of a chat; gets its turns by their ids."""

_BATCH_TURNS = 16
"""So many are told at a time; whoever leaves does not have the rest told."""


async def tell_chat(
    chat: Chat, num_image_tokens: int, tell_prompt: TellPrompt | None = None
) -> pb.GetChatResponse:
    """See ``GetChatResponse``.

    Args:
        chat: as it is kept.
        num_image_tokens: how wide one picture is.
        tell_prompt: called in a thread. None: no raw prompts are wanted. A turn that it refuses is
            told without: the others' prompts are wanted all the same.

    Raises:
        InvalidField: the message would be larger than may be sent.
    """
    response = pb.GetChatResponse(chat=messages.chat_summary(chat.summarise()))
    by_id = chat.index_turns()

    def tell_raw(turn: Turn) -> str | None:
        if tell_prompt is None:
            return None
        try:
            return tell_prompt(chat, turn, by_id)
        except (OtherTokenizer, PromptNeverSeen):
            return None

    def tell(turns: Sequence[Turn]) -> tuple[list[pb.Turn], int]:
        told = [messages.turn(turn, num_image_tokens, tell_raw(turn)) for turn in turns]
        return told, sum(turn.ByteSize() for turn in told)

    num_bytes = 0
    for begin in range(0, len(chat.turns), _BATCH_TURNS):
        told, told_bytes = await asyncio.to_thread(tell, chat.turns[begin : begin + _BATCH_TURNS])
        num_bytes += told_bytes
        if num_bytes > MAX_REPLY_BYTES:
            raise _too_large(chat, has_prompts=tell_prompt is not None)
        response.chat.turns.extend(told)
    if response.ByteSize() > MAX_REPLY_BYTES:
        raise _too_large(chat, has_prompts=tell_prompt is not None)
    return response


def _too_large(chat: Chat, *, has_prompts: bool) -> InvalidField:
    what = f"its {len(chat.turns):,} turns"
    if has_prompts:
        what += " with the whole prompt of each"
    return InvalidField(
        "include_raw_prompts" if has_prompts else "chat_id",
        f"{what} take more than the {MAX_REPLY_BYTES:,} bytes of one reply; ask for one turn at a "
        "time by GetTurn",
    )
