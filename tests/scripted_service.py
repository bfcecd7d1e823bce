# ruff: noqa: N802 - the methods are named by the contract
"""A ChatService that says what a test tells it to say, over a real socket.

For the client's own tests: dropped connections, error details, slow streams. By default it
answers every question with three words and keeps chats in a dictionary.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from llavachat.v1 import chat_pb2, chat_pb2_grpc, error_details_pb2

Events = Iterator[chat_pb2.ChatEvent]

MODEL = chat_pb2.ModelInfo(profile="scripted", name="scripted-model", quantization="none")


def started(chat_id: str = "chat-1", turn_id: str = "turn-1", **fields: Any) -> chat_pb2.ChatEvent:
    """The first event of an answer."""
    event = chat_pb2.TurnStarted(
        chat_id=chat_id,
        turn_id=turn_id,
        model=MODEL,
        params=chat_pb2.GenerationParams(
            max_tokens=64,
            temperature=0.2,
            top_p=1.0,
            top_k=0,
            repetition_penalty=1.0,
            seed=7,
        ),
        **fields,
    )
    return chat_pb2.ChatEvent(started=event)


def queued(position: int) -> chat_pb2.ChatEvent:
    """The turn waits."""
    return chat_pb2.ChatEvent(queued=chat_pb2.Queued(position=position))


def deltas(*texts: str) -> Events:
    """Parts of an answer, offsets counted."""
    offset = 0
    for text in texts:
        yield chat_pb2.ChatEvent(delta=chat_pb2.TextDelta(text=text, char_offset=offset))
        offset += len(text)


def finished(
    reason: int = chat_pb2.FINISH_REASON_EOS, matched_stop: str | None = None
) -> chat_pb2.ChatEvent:
    """The last event of an answer."""
    return chat_pb2.ChatEvent(
        finished=chat_pb2.TurnFinished(
            finish_reason=reason,
            matched_stop=matched_stop,
            usage=chat_pb2.Usage(
                text_tokens=40,
                image_tokens=64,
                cached_tokens=8,
                completion_tokens=11,
                context_left_tokens=397,
            ),
            timings=chat_pb2.Timings(
                queue=Duration(nanos=1_000_000),
                vision=Duration(nanos=20_000_000),
                prefill=Duration(nanos=30_000_000),
                first_token=Duration(nanos=51_000_000),
                decode=Duration(seconds=2),
            ),
        )
    )


def abort(
    context: grpc.ServicerContext, code: grpc.StatusCode, message: str, *details: Any
) -> None:
    """End a call with a status and google.rpc details, as a server does."""
    status = error_details_pb2.ErrorStatus(code=code.value[0], message=message)
    for detail in details:
        name = type(detail).__name__
        status.details.append(
            AnyMessage(
                type_url=f"type.googleapis.com/google.rpc.{name}",
                value=detail.SerializeToString(),
            )
        )
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


def refuse_field(context: grpc.ServicerContext, field: str, expected: str) -> None:
    """End a call for a field of its request, in a server's words."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=expected)
    details = error_details_pb2.BadRequest(field_violations=[violation])
    abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {expected}", details)


def answer_until_cancelled(service: "ScriptedService") -> Callable[[Any, Any], Events]:
    """An answer without end, and a flag on the service once the call is cancelled."""

    def answer(request: Any, context: grpc.ServicerContext) -> Events:
        context.add_callback(service.cancelled.set)
        yield started()
        offset = 0
        while not service.cancelled.wait(0.01):
            yield chat_pb2.ChatEvent(delta=chat_pb2.TextDelta(text="more ", char_offset=offset))
            offset += 5

    return answer


class ScriptedService(chat_pb2_grpc.ChatServiceServicer):
    """Answers as `answer` says; tests replace it. Everything that came is kept."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.chats: dict[str, chat_pb2.Chat] = {}
        self.pictures: dict[str, bytes] = {}
        self.words: tuple[str, ...] = ("A ", "red ", "circle.")
        self.answer: Callable[[Any, grpc.ServicerContext], Events] = self.tell
        self.follow: Callable[[Any, grpc.ServicerContext], Events] = self.refuse
        self.take_in: Callable[[Iterator[Any], grpc.ServicerContext], Any] = self.take
        self.is_serving = True
        self.cancelled = threading.Event()
        self.stopped: list[chat_pb2.CancelTurnRequest] = []
        self.is_older = False
        self.media_types: tuple[str, ...] = ("image/png",)

    def tell(self, request: Any, context: grpc.ServicerContext) -> Events:
        """The default answer: `words`, in a chat that is kept."""
        chat_id = getattr(request, "chat_id", "") or f"chat-{len(self.chats) + 1}"
        if isinstance(request, chat_pb2.StartChatRequest):
            self.chats[chat_id] = chat_pb2.Chat(id=chat_id, title=request.prompt[:80])
        if chat_id not in self.chats:
            abort(context, grpc.StatusCode.NOT_FOUND, "there is no such chat")
        chat = self.chats[chat_id]
        turn_id = f"turn-{len(chat.turns) + 1}"
        parent = getattr(request, "parent_turn_id", "") or None
        if parent is None and chat.turns and not _names_the_root(request):
            parent = chat.turns[-1].id
        images = [
            chat_pb2.ImageInfo(id=image.image_id or f"{index:064x}", num_tokens=64)
            for index, image in enumerate(request.images)
        ]
        self.pictures |= {
            info.id: image.data for info, image in zip(images, request.images, strict=True)
        }
        yield started(chat_id, turn_id, parent_turn_id=parent, images=images)
        yield from deltas(*self.words)
        end = finished()
        chat.turns.append(
            chat_pb2.Turn(
                id=turn_id,
                parent_turn_id=parent,
                prompt=request.prompt,
                answer="".join(self.words),
                state=chat_pb2.TURN_STATE_FINISHED,
                finish_reason=end.finished.finish_reason,
                usage=end.finished.usage,
                timings=end.finished.timings,
                model=MODEL,
                images=images,
            )
        )
        chat.num_turns = len(chat.turns)
        yield end

    def keep_chats(self, number: int) -> None:
        """Keep some chats, of a question each."""
        for each in range(number):
            list(self.tell(chat_pb2.StartChatRequest(prompt=f"Question {each}"), None))

    def refuse(self, request: Any, context: grpc.ServicerContext) -> Events:
        """What an older server says to ResumeTurn."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "this method is not in this release")
        yield from ()

    def StartChat(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """See the contract."""
        self._keep(request, context)
        for event in self.answer(request, context):
            yield chat_pb2.StartChatResponse(event=event)

    def ContinueChat(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """See the contract."""
        self._keep(request, context)
        for event in self.answer(request, context):
            yield chat_pb2.ContinueChatResponse(event=event)

    def ResumeTurn(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """See the contract."""
        self._keep(request, context)
        for event in self.follow(request, context):
            yield chat_pb2.ResumeTurnResponse(event=event)

    def CancelTurn(self, request: Any, context: grpc.ServicerContext) -> Any:
        """See the contract; an older server does not know it. Kept in `stopped` alone."""
        if self.is_older:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "this method is not in this release")
        self.stopped.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        turn = chat_pb2.Turn(
            id=request.turn_id,
            answer="more ",
            state=chat_pb2.TURN_STATE_CANCELLED,
            finish_reason=chat_pb2.FINISH_REASON_CANCELLED,
        )
        return chat_pb2.CancelTurnResponse(turn=turn)

    def GetChat(self, request: Any, context: grpc.ServicerContext) -> Any:
        """See the contract."""
        self._keep(request, context)
        chat = chat_pb2.Chat()
        chat.CopyFrom(self._find(request.chat_id, context))
        for turn in chat.turns:
            if request.include_raw_prompts:
                turn.raw_prompt = f"<s>USER: {turn.prompt} ASSISTANT:"
        return chat_pb2.GetChatResponse(chat=chat)

    def GetTurn(self, request: Any, context: grpc.ServicerContext) -> Any:
        """See the contract."""
        self._keep(request, context)
        turns = self._find(request.chat_id, context).turns
        found = [turn for turn in turns if turn.id == request.turn_id]
        if not found:
            abort(context, grpc.StatusCode.NOT_FOUND, "there is no such turn")
        turn = chat_pb2.Turn()
        turn.CopyFrom(found[0])
        if request.include_raw_prompt:
            turn.raw_prompt = f"<s>USER: {turn.prompt} ASSISTANT:"
        return chat_pb2.GetTurnResponse(turn=turn)

    def ListChats(self, request: Any, context: grpc.ServicerContext) -> Any:
        """See the contract. The page token is the ids of the chats told before; of the conditions
        `updated_before` alone is heeded, where the chat has a time."""
        self._keep(request, context)
        told = request.page_token.split()
        before = request.updated_before.ToNanoseconds()
        chats = [
            chat_pb2.Chat(id=chat.id, title=chat.title, num_turns=chat.num_turns)
            for chat in self.chats.values()
            if chat.id not in told and not (before and chat.update_time.ToNanoseconds() >= before)
        ]
        page = chats[: request.page_size or 50]
        told += [chat.id for chat in page]
        return chat_pb2.ListChatsResponse(
            chats=page, next_page_token=" ".join(told) if len(page) < len(chats) else ""
        )

    def DeleteChat(self, request: Any, context: grpc.ServicerContext) -> Any:
        """See the contract."""
        self._keep(request, context)
        self._find(request.chat_id, context)
        del self.chats[request.chat_id]
        return chat_pb2.DeleteChatResponse()

    def GetImage(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """See the contract; in parts of 16 bytes."""
        self._keep(request, context)
        if request.image_id not in self.pictures:
            abort(context, grpc.StatusCode.NOT_FOUND, "there is no such image")
        data = self.pictures[request.image_id]
        for begin in range(0, len(data), 16):
            image = None if begin else chat_pb2.ImageInfo(id=request.image_id)
            yield chat_pb2.GetImageResponse(image=image, data=data[begin : begin + 16])

    def ImportChat(self, parts: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """See the contract."""
        return self.take_in(parts, context)

    def take(self, parts: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """The default answer to an import: it is kept under the next id."""
        first, *pictures = parts
        self._keep(first, context)
        self.requests += pictures
        chat_id = f"chat-{len(self.chats) + 1}"
        chat = self.chats[chat_id] = chat_pb2.Chat()
        chat.CopyFrom(first.chat)
        chat.id = chat_id
        return chat_pb2.ImportChatResponse(chat=chat)

    def CountTokens(self, request: Any, context: grpc.ServicerContext) -> Any:
        """See the contract."""
        self._keep(request, context)
        num_images = len(request.images)
        return chat_pb2.CountTokensResponse(
            text_tokens=10,
            image_tokens=64 * num_images,
            total_tokens=10 + 64 * num_images,
            context_tokens=512,
            context_left_tokens=502 - 64 * num_images,
        )

    def GetServerInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        """See the contract."""
        self._keep(request, context)
        return chat_pb2.GetServerInfoResponse(
            model=MODEL,
            limits=chat_pb2.Limits(
                context_tokens=512,
                max_turn_duration=Duration(seconds=90),
                media_types=self.media_types,
            ),
            default_params=chat_pb2.GenerationParams(max_tokens=64, temperature=0.2),
            server_version="0.1.0",
            device="cpu",
            library_versions={"torch": "0"},
        )

    def _keep(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))

    def _find(self, chat_id: str, context: grpc.ServicerContext) -> Any:
        if chat_id not in self.chats:
            abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                "there is no such chat",
                error_details_pb2.ResourceInfo(resource_type="chat", resource_name=chat_id),
            )
        return self.chats[chat_id]


def _names_the_root(request: Any) -> bool:
    is_later = isinstance(request, chat_pb2.ContinueChatRequest)
    return is_later and request.HasField("parent_turn_id") and not request.parent_turn_id


class _Health(grpc.GenericRpcHandler):
    """grpc.health.v1, two bytes at a time."""

    def __init__(self, service: ScriptedService) -> None:
        self._service = service

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Answer Check and nothing else."""
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: b"\x08\x01" if self._service.is_serving else b"\x08\x02"
        )


class ScriptedServer:
    """A `ScriptedService` on a port of its own."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None, port: int = 0) -> None:
        self.service = ScriptedService()
        self._server = grpc.server(
            ThreadPoolExecutor(8),
            options=[
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.so_reuseport", 0),
            ],
        )
        chat_pb2_grpc.add_ChatServiceServicer_to_server(self.service, self._server)
        self._server.add_generic_rpc_handlers((_Health(self.service),))
        target = f"127.0.0.1:{port}"
        self.port = (
            self._server.add_secure_port(target, credentials)
            if credentials
            else self._server.add_insecure_port(target)
        )
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        """Close the port and cut what runs."""
        self._server.stop(None).wait()
