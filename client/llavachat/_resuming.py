"""A stream of events that outlives its connection, in two forms over one `Resumption`."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from llavachat._wire.requests import Operation
from llavachat._wire.resumption import Resumption
from llavachat._wire.streams import AsyncEventStream, EventStream
from llavachat.errors import StatusError

OpenStream = Callable[[Operation[Any], float], EventStream]
"""Begins a call with a deadline in seconds."""

OpenAsyncStream = Callable[[Operation[Any], float], AsyncEventStream]


class ResumingStream:
    """The events of one answer, from however many calls.

    Args:
        open_stream: begins a call.
        operation: the question; its call begins at once.
        resumption: decides what is called when one breaks.
    """

    def __init__(
        self, open_stream: OpenStream, operation: Operation[Any], resumption: Resumption
    ) -> None:
        self._open_stream = open_stream
        self._resumption = resumption
        self._closed = threading.Event()
        self._stream = open_stream(operation, resumption.timeout_seconds)

    def __iter__(self) -> "ResumingStream":
        return self

    def __next__(self) -> Any:
        """The next event.

        Raises:
            StatusError, IncompleteReply: the answer has ended so.
        """
        while True:
            try:
                event = self._resumption.take(next(self._stream))
            except StatusError as error:
                if self._closed.is_set():
                    raise
                operation, wait_seconds = self._resumption.plan(error)
                self._stream.cancel()
                if self._closed.wait(wait_seconds):
                    raise
                self._stream = self._open_stream(operation, self._resumption.timeout_seconds)
                continue
            if event is not None:
                return event

    def cancel(self) -> None:
        """End the call; what becomes of its turn is the server's to decide."""
        self._closed.set()
        self._stream.cancel()


class AsyncResumingStream:
    """`ResumingStream` for asyncio."""

    def __init__(
        self, open_stream: OpenAsyncStream, operation: Operation[Any], resumption: Resumption
    ) -> None:
        self._open_stream = open_stream
        self._resumption = resumption
        self._closed = asyncio.Event()
        self._stream = open_stream(operation, resumption.timeout_seconds)

    def __aiter__(self) -> "AsyncResumingStream":
        return self

    async def __anext__(self) -> Any:
        """The next event.

        Raises:
            StatusError, IncompleteReply: the answer has ended so.
        """
        while True:
            try:
                event = self._resumption.take(await anext(self._stream))
            except StatusError as error:
                if self._closed.is_set():
                    raise
                operation, wait_seconds = self._resumption.plan(error)
                self._stream.cancel()
                if await self._is_closed_within(wait_seconds):
                    raise
                self._stream = self._open_stream(operation, self._resumption.timeout_seconds)
                continue
            if event is not None:
                return event

    def cancel(self) -> None:
        """End the call; what becomes of its turn is the server's to decide."""
        self._closed.set()
        self._stream.cancel()

    async def _is_closed_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
        return self._closed.is_set()
