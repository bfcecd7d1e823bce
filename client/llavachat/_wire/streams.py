"""The events of one streamed call in two forms; what a channel begins, and a reply reads."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import grpc.aio

from llavachat._process import Home
from llavachat._wire.ended import CallReader, EndedCalls
from llavachat._wire.requests import Operation

T = TypeVar("T")

Guard = Callable[[], AbstractContextManager[None]]
"""What makes gRPC's errors ours, and knows whether the channel is closed."""

Finish = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""`Guard` for asyncio: asks gRPC, and waits."""


class EventStream:
    """The events of one answer; `Operation.read` has made them values."""

    def __init__(
        self, call: Any, operation: Operation[T], guard: Guard, home: Home, ended: EndedCalls
    ) -> None:
        self._call = call
        self._reader = CallReader(call)
        self._read = operation.read
        self._guard = guard
        self._home = home
        self._ended = ended

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next event that this client knows.

        Raises:
            StatusError: the call failed.
            ConfigurationError: it was begun in another process.
        """
        while True:
            with self._guard():
                response = self._reader.read()
            if response is None:
                raise StopIteration
            if (event := self._read(response)) is not None:
                return event

    def cancel(self) -> None:
        """End the call; what becomes of its turn is the server's to decide."""
        if self._home.is_here:
            self._call.cancel()
            self._ended.add(self._reader)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.cancel()


class AsyncEventStream:
    """`EventStream` for asyncio."""

    def __init__(self, call: Any, operation: Operation[T], finish: Finish, home: Home) -> None:
        self._call = call
        self._read = operation.read
        self._finish = finish
        self._home = home

    def __aiter__(self) -> "AsyncEventStream":
        return self

    async def __anext__(self) -> Any:
        """The next event that this client knows.

        Raises:
            StatusError: the call failed.
        """
        while True:
            response = await self._finish(self._call.read)
            if response is grpc.aio.EOF:
                raise StopAsyncIteration
            if (event := self._read(response)) is not None:
                return event

    def cancel(self) -> None:
        """End the call; what becomes of its turn is the server's to decide."""
        if self._home.is_here:
            self._call.cancel()
