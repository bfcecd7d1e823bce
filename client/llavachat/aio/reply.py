"""An answer that streams, for asyncio; the twin of `llavachat.reply`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from llavachat._reply import CANCEL_TIMEOUT_SECONDS, ReplyRecord
from llavachat._resuming import AsyncResumingStream
from llavachat._wire import requests
from llavachat.errors import NotSupported
from llavachat.types import Delta, Event, Turn

if TYPE_CHECKING:
    from llavachat.aio.chat import AsyncChat
    from llavachat.aio.client import AsyncClient


class AsyncReply(ReplyRecord):
    """An answer as it comes: iterate over it for its text, or `read` it whole.

    Nothing happens before it is entered or read: pictures are then loaded in a thread, and the
    call begins::

        async with client.start("cat.jpg", "What is this?") as reply:
            async for text in reply:
                print(text, end="", flush=True)
        print(reply.usage)

    Cancelling the task that reads it stops the answer.
    """

    def __init__(
        self,
        client: "AsyncClient",
        open_stream: Callable[[], Awaitable[AsyncResumingStream]],
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        super().__init__()
        self._client = client
        self._metadata = metadata
        self._open_stream = open_stream
        self._stream: AsyncResumingStream | None = None
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telling: asyncio.Task[None] | None = None
        self._is_stopped = False

    @property
    def chat(self) -> "AsyncChat":
        """The chat, to ask the next question in.

        Raises:
            NotStartedYet: read some of the answer first.
        """
        return self._client.chat(self.chat_id)

    async def __aiter__(self) -> AsyncIterator[str]:
        """The text, piece by piece as it comes; each piece comes once.

        Raises:
            ImageError, InvalidRequest: the question can not be sent.
            StatusError: the server refused the question, or failed on the way; what came is
                in `text`.
            IncompleteReply: the stream ended without its last event.
        """
        async for event in self.events():
            if isinstance(event, Delta):
                yield event.text

    async def events(self) -> AsyncIterator[Event]:
        """Everything that comes, waiting in the queue included; raises as iteration does."""
        while not self._closed:
            try:
                event = await anext(self._stream or await self._open())
            except StopAsyncIteration:
                self._check_end()
                return
            except Exception as error:
                # Once the answer is whole, or was given up, how the call ends is no news.
                if self._is_over:
                    return
                self._note_failure(error)
                raise
            except BaseException:
                # The task is cancelled, also where the answer was closed before: it must end.
                self.close()
                raise
            self._take(event)
            yield event

    async def read(self) -> str:
        """Wait for the end, and return the whole answer.

        Raises:
            ImageError, StatusError, IncompleteReply: as iteration does.
        """
        async for _ in self.events():
            pass
        return self.text

    def close(self) -> None:
        """Stop the answer where it is; `text` keeps what came. Does nothing at its end.

        The server is told in the background, before the client closes, and stops generating at
        once; one that can not be reached stops after its grace period. May be called from
        another task; the iteration there then ends.
        """
        self._end_stream()
        if self._is_running_on and not self._is_stopped:
            # Outside an event loop there is nobody who could tell it.
            with contextlib.suppress(RuntimeError):
                self._telling = self._client._spawn(self._stop)
                self._is_stopped = True

    async def cancel(self, *, timeout_seconds: float | None = None) -> Turn | None:
        """`close`, and tell what the server keeps of the turn.

        Args:
            timeout_seconds: the deadline of the server's word on it. None: the client's.

        Returns:
            The turn: cancelled, or as it had ended before. None when the answer had not begun,
            or where the server's release can not be told: it stops after its grace period.

        Raises:
            StatusError: the server could not be told; the answer is closed all the same.
        """
        self._end_stream()
        if not self.is_started:
            return None
        self._is_stopped = True
        return await self._tell(timeout_seconds)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if self._telling is not None:
            await asyncio.wait({self._telling})

    def _end_stream(self) -> None:
        if not self._is_over:
            self._closed = True
        if self._stream is not None:
            self._stream.cancel()

    async def _stop(self) -> None:
        with contextlib.suppress(Exception):
            await self._tell(CANCEL_TIMEOUT_SECONDS)

    async def _tell(self, timeout_seconds: float | None) -> Turn | None:
        operation = requests.cancel_turn(self.chat_id, self.turn_id)
        try:
            return await self._client._call(operation, timeout_seconds, self._metadata)
        except NotSupported:
            return None

    async def _open(self) -> AsyncResumingStream:
        # Several tasks may begin to read: the question is asked once.
        async with self._opening:
            if self._stream is None:
                self._loop = asyncio.get_running_loop()
                self._stream = await self._open_stream()
                if self._closed:
                    # In the meantime; the call has begun all the same.
                    self._stream.cancel()
            return self._stream

    def __del__(self) -> None:
        # In any thread, and perhaps after its event loop, with which the call has ended.
        with contextlib.suppress(Exception):
            if self._loop is not None and self._stream is not None:
                self._loop.call_soon_threadsafe(self._stream.cancel)
