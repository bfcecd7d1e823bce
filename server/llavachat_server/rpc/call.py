"""One call that was let in: its request read within limits, and ended when it must.

Every method is answered as a stream of requests, which looks the same on the wire: so the first
message is read here, within its time, and by `incoming`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio

from llavachat_server.frames import drop_frames
from llavachat_server.rpc.access import Rule
from llavachat_server.rpc.auth import Key
from llavachat_server.rpc.incoming import Context, Requests, make_walks
from llavachat_server.rpc.notes import NOTES
from llavachat_server.rpc.status import INTERNAL, Refusal, invalid, refusal, too_slow
from llavachat_server.turnstile import Turnstile
from llavachat_server.values import InvalidField

log = logging.getLogger("llavachat.rpc")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class Call:
    """See the module.

    Args:
        key: the caller's; None where no key is needed.
        rule: the method's.
        task: what gRPC answers the call in, from its arrival to its status.
        on_request: called when the request is there.
        on_spoilt: called with the caller's connection, as gRPC names it, when the call has ended
            without a request that can be read.
        walks: the line of all calls, see `incoming.make_walks`; None: this one's alone.
    """

    def __init__(
        self,
        key: Key | None,
        rule: Rule,
        task: "asyncio.Task[Any]",
        on_request: "Callable[[Call], None]" = lambda _: None,
        on_spoilt: Callable[[str], None] = lambda _: None,
        walks: Turnstile | None = None,
    ) -> None:
        self.key = key
        self.rule = rule
        self._task = task
        self._on_request = on_request
        self._on_spoilt = on_spoilt
        self._walks = walks or make_walks()
        self._has_request = False
        self._end: Refusal | None = None

    def end(self, answer: Refusal) -> None:
        """End the call with a status, wherever it is."""
        if self._end is None and not self._task.done():
            self._end = answer
            self._task.cancel()

    def wrap(self, handler: Handler) -> Handler:
        """A method's handler, guarded."""
        if handler is None:
            return None
        method: Any = handler
        write = method.response_serializer
        if method.response_streaming:
            answer = method.stream_stream if method.request_streaming else method.unary_stream

            async def stream(_: object, context: Context) -> None:
                with dropping_frames():
                    async with self._guard(context):
                        replies = answer(await self._take(method, context), context)
                        if not hasattr(replies, "__aiter__"):
                            await replies
                            return
                        async with aclosing(replies):
                            async for reply in replies:
                                await context.write(reply)

            return grpc.stream_stream_rpc_method_handler(stream, None, write)

        respond = method.stream_unary if method.request_streaming else method.unary_unary

        async def unary(_: object, context: Context) -> Any:
            with dropping_frames():
                async with self._guard(context):
                    return await respond(await self._take(method, context), context)

        return grpc.stream_unary_rpc_method_handler(unary, None, write)

    async def _take(self, method: Any, context: Context) -> Any:
        """The request, or all of them as they come."""
        requests = Requests(context, method.request_deserializer, self.rule, self._walks)
        try:
            async with asyncio.timeout(self.rule.max_request_seconds):
                first = await requests.take()
        except TimeoutError:
            raise Refused(too_slow(self.rule.max_request_seconds)) from None
        self._on_request(self)
        if first is None and not method.request_streaming:
            raise Refused(invalid("request", "there is none"))
        self._has_request = True
        if not method.request_streaming:
            return first
        if first is not None:
            requests.put_back(first)
        return requests

    def _guard(self, context: Context) -> "_Guard":
        return _Guard(self, context)

    def note_end(self, context: Context) -> None:
        """The call ends."""
        if not self._has_request:
            self._on_spoilt(context.peer())

    def take_end(self) -> Refusal | None:
        """What the call was ended with; from then on its task counts as not cancelled."""
        if self._end is not None:
            self._task.uncancel()
        return self._end


class Refused(Exception):
    """The request is refused before its method is asked, or before that does anything."""

    def __init__(self, answer: Refusal) -> None:
        super().__init__(answer.message)
        self.answer = answer


class _Guard:
    """Turns what ends a call from outside into a status."""

    def __init__(self, call: Call, context: Context) -> None:
        self._call = call
        self._context = context

    async def __aenter__(self) -> None:
        """Nothing to prepare."""

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the call, if it is for us to end."""
        self._call.note_end(self._context)
        answer: Refusal | None = None
        if isinstance(error, asyncio.CancelledError):
            answer = self._call.take_end()
            if answer is None:
                NOTES.get().is_left = True
        elif isinstance(error, Refused):
            answer = error.answer
        elif isinstance(error, InvalidField):
            answer = refusal(error)
        elif isinstance(error, grpc.aio.InternalError):
            # A write that gRPC could not do, nearly always because the caller has gone: a stack for
            # each would fill the log.
            log.debug("a write failed", exc_info=error)
            answer = INTERNAL
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            log.error("a call failed", exc_info=error)
            answer = INTERNAL
        if answer is not None:
            await abort(self._context, answer)
        # As the servicer of health does for a service that there is not.
        elif isinstance(code := self._context.code(), grpc.StatusCode):
            NOTES.get().code = code


async def abort(context: Context, answer: Refusal) -> None:
    """End a call with a status and its details.

    Raises:
        AbortError: gRPC's, once it is sent.
        CancelledError: the call had ended already.
    """
    notes = NOTES.get()
    try:
        # Noted first: the caller may have the status before this goes on.
        notes.refusal = answer
        await context.abort(answer.code, answer.message, answer.trailing_metadata())
    except grpc.aio.AbortError:
        raise
    except Exception:
        notes.is_left = True
        # The caller has gone, or gRPC itself has refused the call. gRPC would write a stack into
        # the log for each, and whoever resets calls by the thousand would fill the disk.
        log.debug("a call had ended before it was refused")
        raise asyncio.CancelledError from None


@contextmanager
def dropping_frames() -> Iterator[None]:
    """Around all of a call: let go of what its frames hold once it is aborted.

    gRPC keeps the AbortError as long as the call's context, which is in the frames of the error's
    stack: a ring, in which each refused request, with all its pictures, stayed in memory until the
    garbage collector came. So it is with a turn's error, which the turn keeps for those who follow
    it. gRPC raises the AbortError by itself when the call returns.
    """
    try:
        yield
    except grpc.aio.AbortError as aborted:
        drop_frames(aborted)
