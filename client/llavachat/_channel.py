"""The gRPC channel in two forms, `Channel` and `AsyncChannel`, over the same options.

With `_wire`, the only modules that touch generated code or gRPC. What goes in is an
`Operation`; what comes out are values, or errors of `llavachat.errors`.
"""

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio
import grpc.experimental

from llavachat._deadline import Deadline
from llavachat._process import Home
from llavachat._wire.diagnosis import is_doubtful, look_closer, tell_key
from llavachat._wire.ended import EndedCalls
from llavachat._wire.options import (
    build_credentials,
    build_metadata,
    build_options,
    build_timeout,
)
from llavachat._wire.pin import PinnedServer, fetch_pinned
from llavachat._wire.requests import Operation
from llavachat._wire.status import read_rpc_error, tell_late
from llavachat._wire.streams import AsyncEventStream, EventStream
from llavachat.connection import Connection
from llavachat.errors import CallCancelled, StatusError
from llavachat.v1.chat_pb2_grpc import ChatServiceStub

T = TypeVar("T")

HEALTH_METHOD = "/grpc.health.v1.Health/Check"
"""Called by its path, with the messages spelt out: they are two bytes long, and the client is
spared a dependency. Source: grpc/health/v1/health.proto."""
_HEALTH_REQUEST = b""  # HealthCheckRequest(service="")
_SERVING = b"\x08\x01"  # HealthCheckResponse(status=SERVING)

_CLOSED = "The client is closed; make another."
_CANCELLED = "The call was cancelled."

_READ_BY_CALLER = ((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),)
"""Streams are read by the thread that asks for the next event, not by one that gRPC keeps. By that
one's way of calling, one stream in ten that was to be retried when its server was killed did not
end, not even at its deadline (grpcio 1.85.1); by this one none of 200 did. asyncio has neither."""


def _tell(error: grpc.RpcError, connection: Connection) -> StatusError:
    return tell_key(read_rpc_error(error, address=connection.address), connection)


class Channel:
    """A channel for threads. It connects at the first call and reconnects by itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opening = threading.Lock()
        self._home = Home()
        self._is_closed = False
        self.has_reached_server = False
        """True once a server has answered a call."""
        self._channel: grpc.Channel | None = None
        self._stub: Any = None
        # A signal's handler may close the client while its thread has this.
        self._listing = threading.RLock()
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self._ended = EndedCalls()
        # What is wrong with the files is told now, though a pinned server is asked later.
        build_credentials(connection)

    def stream(
        self,
        operation: Operation[T],
        timeout_seconds: float,
        metadata: Mapping[str, str | bytes] | None,
    ) -> EventStream:
        """Begin a streamed call; it runs at once.

        Raises:
            CallCancelled: the channel is closed.
            ConfigurationError: it was used in another process.
            InvalidRequest: the metadata can not be sent.
        """
        call = self._begin(operation, timeout_seconds, metadata)
        stream = EventStream(call, operation, self._hearing, self._home, self._ended)
        with self._listing:
            self._streams.add(stream)
        return stream

    def call(
        self,
        operation: Operation[T],
        timeout_seconds: float,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> T:
        """Make a call with one answer; raises as `stream` does, and as its events do."""
        answer = self._begin(operation, timeout_seconds, metadata)
        self.has_reached_server = True
        return operation.read(answer)

    def check_health(self, timeout_seconds: float) -> bool:
        """True when the server says SERVING."""
        deadline = Deadline(timeout_seconds)
        check: Any = self._open(deadline).unary_unary(HEALTH_METHOD)
        with self._hearing():
            response = check(_HEALTH_REQUEST, timeout=build_timeout(deadline.left_seconds))
        return bool(response == _SERVING)

    def close(self) -> None:
        """Close the connection for good; running calls end."""
        self._is_closed = True
        if self._channel is not None and self._home.is_here:
            # Before gRPC ends them, which would keep those that nobody reads to the end.
            with self._listing:
                streams = list(self._streams)
            for stream in streams:
                stream.cancel()
            self._ended.close()
            self._channel.close()

    def _begin(
        self,
        operation: Operation[T],
        timeout_seconds: float,
        metadata: Mapping[str, str | bytes] | None,
    ) -> Any:
        deadline = Deadline(timeout_seconds)
        self._open(deadline)
        with self._listing:
            self._ended.release()
        sent = build_metadata(self._connection, metadata)
        with self._telling_errors():
            return getattr(self._stub, operation.method)(
                operation.request, timeout=build_timeout(deadline.left_seconds), metadata=sent
            )

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        self._home.check()
        with self._telling_errors():
            yield
        self.has_reached_server = True

    @contextmanager
    def _telling_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            told = _tell(error, self._connection)
            if self._is_closed and isinstance(told, CallCancelled):
                raise CallCancelled(_CLOSED) from None
            if is_doubtful(told, self._connection):
                told = look_closer(told, self._connection)
            raise told from None
        except ValueError:
            # Another thread may have closed the channel since it was looked at.
            if self._is_closed:
                raise CallCancelled(_CLOSED) from None
            raise

    def _open(self, deadline: Deadline) -> grpc.Channel:
        """Open the channel, its server's certificate compared first where there is a pin."""
        # Before the lock: a thread that held it when the process was forked is not in this one.
        self._home.check()
        # A call that has longer may be asking a silent server for it.
        if not self._opening.acquire(timeout=min(deadline.left_seconds, threading.TIMEOUT_MAX)):
            raise tell_late()
        try:
            if self._is_closed:
                raise CallCancelled(_CLOSED)
            if self._channel is None:
                connection = self._connection
                server = fetch_pinned(connection, deadline) if connection.tls_pin else None
                credentials = build_credentials(connection, server)
                options = [*build_options(connection, server), *_READ_BY_CALLER]
                self._home.settle()
                self._channel = (
                    grpc.secure_channel(connection.address, credentials, options=options)
                    if credentials
                    else grpc.insecure_channel(connection.address, options=options)
                )
                self._stub = ChatServiceStub(self._channel)
            return self._channel
        finally:
            self._opening.release()


class _LateCall:
    """A call that begins once the pinned server is known to be the one."""

    def __init__(self, begin: Coroutine[Any, Any, Any]) -> None:
        self._task = asyncio.ensure_future(begin)

    async def read(self) -> Any:
        """The next message."""
        return await (await self._task).read()

    def cancel(self) -> None:
        """End the call, or do not begin it."""
        if not self._task.cancel() and not self._task.cancelled() and not self._task.exception():
            self._task.result().cancel()


class AsyncChannel:
    """`Channel` for asyncio. It belongs to the event loop in which it is first used."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opening = asyncio.Lock()
        self._home = Home()
        # What is wrong with the files is told now, though they are used at the first call.
        build_credentials(connection)
        self._is_closed = False
        self.has_reached_server = False
        """True once a server has answered a call."""
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    def stream(
        self,
        operation: Operation[T],
        timeout_seconds: float,
        metadata: Mapping[str, str | bytes] | None,
    ) -> AsyncEventStream:
        """Begin a streamed call; it runs at once.

        Raises:
            CallCancelled: the channel is closed.
            ConfigurationError: it was used in another process or event loop.
            InvalidRequest: the metadata can not be sent.
        """
        deadline = Deadline(timeout_seconds)

        def begin() -> Any:
            return getattr(self._stub, operation.method)(
                operation.request,
                timeout=build_timeout(deadline.left_seconds),
                metadata=build_metadata(self._connection, metadata),
            )

        async def begin_late() -> Any:
            await self._open_pinned(deadline)
            return begin()

        call: Any
        if self._channel is None and self._connection.tls_pin:
            call = _LateCall(begin_late())
        else:
            self._open(None)
            call = begin()
        return AsyncEventStream(call, operation, self._finish, self._home)

    async def call(
        self,
        operation: Operation[T],
        timeout_seconds: float,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> T:
        """Make a call with one answer; raises as `stream` does, and as its events do."""
        deadline = Deadline(timeout_seconds)
        await self._open_pinned(deadline)
        sent = build_metadata(self._connection, metadata)
        call = getattr(self._stub, operation.method)(
            operation.request, timeout=build_timeout(deadline.left_seconds), metadata=sent
        )
        return operation.read(await self._finish(lambda: call))

    async def check_health(self, timeout_seconds: float) -> bool:
        """True when the server says SERVING."""
        deadline = Deadline(timeout_seconds)
        check: Any = (await self._open_pinned(deadline)).unary_unary(HEALTH_METHOD)
        call = check(_HEALTH_REQUEST, timeout=build_timeout(deadline.left_seconds))
        return bool(await self._finish(lambda: call) == _SERVING)

    async def close(self) -> None:
        """Close the connection for good; running calls end."""
        self._is_closed = True
        if self._channel is not None and self._home.is_here:
            await self._channel.close()

    async def _finish(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Wait for what gRPC is asked; its errors become ours."""
        self._home.check()
        try:
            answer = await ask()
        except asyncio.CancelledError:
            # gRPC ends a call that is cancelled here as if it were the task that was.
            task = asyncio.current_task()
            if task is not None and task.cancelling() > 0:
                raise
            raise CallCancelled(_CLOSED if self._is_closed else _CANCELLED) from None
        except grpc.RpcError as error:
            told = _tell(error, self._connection)
            if is_doubtful(told, self._connection):
                told = await asyncio.to_thread(look_closer, told, self._connection)
            raise told from None
        self.has_reached_server = True
        return answer

    async def _open_pinned(self, deadline: Deadline) -> grpc.aio.Channel:
        """Open the channel, its server's certificate compared first where there is a pin."""
        if self._channel is not None or not self._connection.tls_pin:
            return self._open(None)
        try:
            async with asyncio.timeout(build_timeout(deadline.left_seconds)), self._opening:
                if self._channel is not None:
                    return self._channel
                server = await asyncio.to_thread(fetch_pinned, self._connection, deadline)
                return self._open(server)
        except TimeoutError:
            raise tell_late() from None

    def _open(self, server: PinnedServer | None) -> grpc.aio.Channel:
        self._home.check()
        if self._is_closed:
            raise CallCancelled(_CLOSED)
        if self._channel is None:
            self._home.settle(asyncio.get_running_loop())
            address, options = self._connection.address, build_options(self._connection, server)
            credentials = build_credentials(self._connection, server)
            self._channel = (
                grpc.aio.secure_channel(address, credentials, options=options)
                if credentials
                else grpc.aio.insecure_channel(address, options=options)
            )
            self._stub = ChatServiceStub(self._channel)
        return self._channel
