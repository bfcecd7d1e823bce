"""The contract's methods: check, ask the chats, answer. Nothing is decided here.

It knows messages and statuses; it must not know torch, files or settings.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import monotonic
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc

from llavachat_server.chats.errors import NotFound, StoreUnavailable
from llavachat_server.chats.importer import Importer
from llavachat_server.chats.live import LiveTurn, Started
from llavachat_server.chats.question import Place, Question
from llavachat_server.chats.store import ChatStore
from llavachat_server.chats.turns import Turns
from llavachat_server.rpc import messages, replies, requests
from llavachat_server.rpc.auth import TENANT
from llavachat_server.rpc.call import Refused, abort
from llavachat_server.rpc.imported_chat import (
    ChatLimits,
    read_chat,
    receive_chat,
    receive_images,
)
from llavachat_server.rpc.quota import QUOTA
from llavachat_server.rpc.requests import RequestLimits
from llavachat_server.rpc.status import INTERNAL, refusal, unread
from llavachat_server.rpc.whole_chat import tell_chat
from llavachat_server.values import EngineInfo

log = logging.getLogger("llavachat.rpc")

WAITED_SECONDS = 3.0
"""So long a client's gRPC goes on trying by itself. Whoever waited longer for a store that does not
answer is told not to: four tries at a silent database took a minute and a half."""

Context = grpc.aio.ServicerContext[Any, Any]
"""What gRPC knows of a call."""


_OF_GRPC = (grpc.aio.AbortError, grpc.aio.InternalError)
"""A call that is refused already, a write for a caller who has gone: `call` knows what to do."""


@dataclass(frozen=True, slots=True)
class Desk:
    """All that the service speaks with; there once the model is loaded."""

    engine: EngineInfo
    turns: Turns
    store: ChatStore
    importer: Importer
    request_limits: RequestLimits
    chat_limits: ChatLimits
    server_info: pb.GetServerInfoResponse
    ends_with_chats: bool
    """Whether chats are kept in this process' memory alone."""


class ChatService(chat_pb2_grpc.ChatServiceServicer):
    """See ``ChatService`` in the contract; what is not here answers UNIMPLEMENTED.

    `desk` is set before the gate opens. Streams are written by `context.write` (the stubs' types
    know only generators): a generator that gRPC drops half-way is closed at no certain time.
    """

    desk: Desk

    def __init__(self) -> None:
        self._pictures = replies.Replies("pictures")
        self._messages = replies.Replies("chats and lists of chats")

    async def StartChat(  # type: ignore[override] # noqa: N802
        self, request: pb.StartChatRequest, context: Context
    ) -> None:
        """See the contract."""
        async with answering(context):
            question = requests.start_question(request, self.desk.request_limits)
            await self._stream(self._ask(question), context, pb.StartChatResponse)

    async def ContinueChat(  # type: ignore[override] # noqa: N802
        self, request: pb.ContinueChatRequest, context: Context
    ) -> None:
        """See the contract."""
        async with answering(context):
            question = requests.continue_question(request, self.desk.request_limits)
            await self._stream(self._ask(question), context, pb.ContinueChatResponse)

    async def GetChat(  # noqa: N802
        self, request: pb.GetChatRequest, context: Context
    ) -> pb.GetChatResponse:
        """See the contract."""
        async with answering(context):
            chat_id = requests.required_id("chat_id", request.chat_id)
            tell_prompt = self.desk.turns.raw_prompt if request.include_raw_prompts else None
            async with self._messages.place(TENANT.get()) as place:
                chat = await self.desk.turns.get_chat(TENANT.get(), chat_id)
                response = await tell_chat(chat, self._image_tokens, tell_prompt)
                place.keep(response.ByteSize())
            return response

    async def GetTurn(  # noqa: N802
        self, request: pb.GetTurnRequest, context: Context
    ) -> pb.GetTurnResponse:
        """See the contract."""
        async with answering(context):
            chat_id = requests.required_id("chat_id", request.chat_id)
            turn_id = requests.required_id("turn_id", request.turn_id)
            tenant, turns = TENANT.get(), self.desk.turns
            raw = None
            if request.include_raw_prompt:
                chat = await turns.get_branch(tenant, chat_id, turn_id)
                turn = chat.turns[-1]
                raw = await asyncio.to_thread(turns.raw_prompt, chat, turn)
            else:
                turn = await turns.get_turn(tenant, chat_id, turn_id)
            return pb.GetTurnResponse(turn=messages.turn(turn, self._image_tokens, raw))

    async def ListChats(  # noqa: N802
        self, request: pb.ListChatsRequest, context: Context
    ) -> pb.ListChatsResponse:
        """See the contract."""
        async with answering(context):
            query = requests.chat_query(request)
            page = await self.desk.store.list_chats(TENANT.get(), query)
            response = pb.ListChatsResponse(
                chats=[messages.chat_summary(chat) for chat in page.chats],
                next_page_token=requests.page_token(page.next),
            )
            # A page is small enough to wait for its place in memory; a chat may not be.
            await self._messages.hold(TENANT.get(), response.ByteSize())
            return response

    async def GetImage(  # type: ignore[override] # noqa: N802
        self, request: pb.GetImageRequest, context: Context
    ) -> None:
        """See the contract."""
        async with answering(context):
            image_id = requests.known_image_id("image_id", request.image_id)
            if not await self._send_picture(image_id, request.original, context):
                raise Refused(unread(replies.WRITE_SECONDS))

    async def ImportChat(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ImportChatRequest], context: Context
    ) -> pb.ImportChatResponse:
        """See the contract."""
        async with answering(context):
            parts = aiter(request_iterator)
            told, tenant, limits = await receive_chat(parts), TENANT.get(), self.desk.chat_limits
            async with self._messages.place(tenant) as place:
                async with aclosing(receive_images(parts)) as images:
                    taken = await self.desk.importer.take(
                        tenant, lambda: read_chat(told, tenant, limits), images
                    )
                response = pb.ImportChatResponse(chat=messages.chat(taken, self._image_tokens))
                place.keep(response.ByteSize())
            return response

    async def DeleteChat(  # noqa: N802
        self, request: pb.DeleteChatRequest, context: Context
    ) -> pb.DeleteChatResponse:
        """See the contract."""
        async with answering(context):
            chat_id = requests.required_id("chat_id", request.chat_id)
            await self.desk.turns.delete_chat(TENANT.get(), chat_id)
            return pb.DeleteChatResponse()

    async def CountTokens(  # noqa: N802
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        """See the contract."""
        async with answering(context):
            question = requests.count_question(request, self.desk.request_limits)
            count = await self.desk.turns.count(TENANT.get(), question)
            context_tokens = self.desk.engine.context_tokens
            return pb.CountTokensResponse(
                text_tokens=count.text_tokens,
                image_tokens=count.image_tokens,
                history_tokens=count.history_tokens,
                total_tokens=count.total,
                context_tokens=context_tokens,
                context_left_tokens=max(0, context_tokens - count.total),
            )

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """See the contract."""
        async with answering(context):
            return self.desk.server_info

    async def ResumeTurn(  # type: ignore[override] # noqa: N802
        self, request: pb.ResumeTurnRequest, context: Context
    ) -> None:
        """See the contract."""
        async with answering(context):
            chat_id = requests.required_id("chat_id", request.chat_id)
            turn_id = requests.required_id("turn_id", request.turn_id)
            offset = requests.char_offset(request)
            try:
                live = await self.desk.turns.resume(TENANT.get(), chat_id, turn_id, offset)
            except NotFound as error:
                error.with_server = self._began_elsewhere(request)
                raise
            await self._stream(live, context, pb.ResumeTurnResponse, offset)

    async def ReplayTurn(  # type: ignore[override] # noqa: N802
        self, request: pb.ReplayTurnRequest, context: Context
    ) -> None:
        """See the contract."""
        async with answering(context):
            chat_id = requests.required_id("chat_id", request.chat_id)
            turn_id = requests.required_id("turn_id", request.turn_id)
            _admit_turn()
            replay = self.desk.turns.replay(TENANT.get(), chat_id, turn_id)
            async with aclosing(replay) as events:
                async for event in events:
                    await context.write(messages.replay_event(event))

    async def CancelTurn(  # noqa: N802
        self, request: pb.CancelTurnRequest, context: Context
    ) -> pb.CancelTurnResponse:
        """See the contract."""
        async with answering(context):
            chat_id = requests.required_id("chat_id", request.chat_id)
            turn_id = requests.required_id("turn_id", request.turn_id)
            turn = await self.desk.turns.cancel_turn(TENANT.get(), chat_id, turn_id)
            return pb.CancelTurnResponse(turn=messages.turn(turn, self._image_tokens))

    @property
    def _image_tokens(self) -> int:
        return self.desk.engine.num_image_tokens

    def _began_elsewhere(self, request: pb.ResumeTurnRequest) -> bool:
        """Whether the turn was begun by a server that had its chats in its memory, and is gone."""
        start_time = self.desk.server_info.start_time
        return request.HasField("server_start_time") and request.server_start_time != start_time

    def _ask(self, question: Question) -> LiveTurn:
        is_new = False

        def admit() -> None:
            nonlocal is_new
            _admit_turn(question.where.chat_id if isinstance(question.where, Place) else None)
            is_new = True

        live = self.desk.turns.ask(TENANT.get(), question, admit)
        if is_new and (quota := QUOTA.get()) is not None:
            quota.note_turn(live)
        return live

    async def _send_picture(self, image_id: str, is_original: bool, context: Context) -> bool:
        """Whether it was read. Who ends the call has nothing of the file any more."""
        store, tenant = self.desk.store, TENANT.get()
        async with self._pictures.place(tenant) as place:
            read = store.get_original if is_original else store.get_png
            image, file = await read(tenant, image_id)
            parts = messages.image_parts(image, self._image_tokens, file)
            return await replies.write_all(context.write, parts, place.note_part)

    async def _stream(
        self,
        live: LiveTurn,
        context: Context,
        make: Callable[[], Any],
        char_offset: int = 0,
    ) -> None:
        num_image_tokens = self._image_tokens
        async with aclosing(live.follow(char_offset)) as events:
            async for event in events:
                response = make()
                messages.write_event(response.event, event, num_image_tokens)
                if isinstance(event, Started) and self.desk.ends_with_chats:
                    start_time = self.desk.server_info.start_time
                    response.event.started.server_start_time.CopyFrom(start_time)
                await context.write(response)


def _admit_turn(chat_id: str | None = None) -> None:
    """See to it that the caller's key may begin a turn, in a chat that there is, or a replay.

    Raises:
        Refused: as many of its turns go on without a reader as may.
    """
    quota = QUOTA.get()
    if quota is not None and (answer := quota.admit_turn(chat_id)) is not None:
        raise Refused(answer)


class answering:  # noqa: N801
    """Turns an error inside its block into the status that the contract names for it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._began_at = 0.0

    async def __aenter__(self) -> None:
        """Note the time."""
        self._began_at = monotonic()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the call, if there was an error of ours."""
        if not isinstance(error, Exception) or isinstance(error, _OF_GRPC):
            return
        answer = error.answer if isinstance(error, Refused) else refusal(error)
        if answer is None:
            log.error("a call failed", exc_info=error)
            answer = INTERNAL
        if isinstance(error, StoreUnavailable):
            answer = replace(answer, is_waited=monotonic() - self._began_at >= WAITED_SECONDS)
        await abort(self._context, answer)
