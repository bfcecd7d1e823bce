"""An answer that streams, for threads. Its twin for asyncio is `llavachat.aio.AsyncReply`."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from llavachat._reply import CANCEL_TIMEOUT_SECONDS, ReplyRecord
from llavachat._resuming import ResumingStream
from llavachat._wire import requests
from llavachat.errors import NotSupported
from llavachat.types import Delta, Event, Turn

if TYPE_CHECKING:
    from llavachat.chat import Chat
    from llavachat.client import Client


class Reply(ReplyRecord):
    """An answer as it comes: iterate over it for its text, or `read` it whole.

    As a context manager it stops the answer when its block ends, read to the end or not::

        with client.start("cat.jpg", "What is this?") as reply:
            for text in reply:
                print(text, end="", flush=True)
        print(reply.usage)
    """

    def __init__(
        self,
        client: "Client",
        stream: ResumingStream,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        super().__init__()
        self._client = client
        self._stream = stream
        self._metadata = metadata
        self._stopping = threading.Lock()
        self._is_stopped = False

    @property
    def chat(self) -> "Chat":
        """The chat, to ask the next question in.

        Raises:
            NotStartedYet: read some of the answer first.
        """
        return self._client.chat(self.chat_id)

    def __iter__(self) -> Iterator[str]:
        """The text, piece by piece as it comes; each piece comes once.

        Raises:
            StatusError: the server refused the question, or failed on the way; what came is
                in `text`.
            IncompleteReply: the stream ended without its last event.
        """
        for event in self.events():
            if isinstance(event, Delta):
                yield event.text

    def events(self) -> Iterator[Event]:
        """Everything that comes, waiting in the queue included; raises as iteration does."""
        while not self._closed:
            try:
                event = next(self._stream)
            except StopIteration:
                self._check_end()
                return
            except Exception as error:
                # Once the answer is whole, or was given up, how the call ends is no news.
                if self._is_over:
                    return
                self._note_failure(error)
                raise
            self._take(event)
            yield event

    def read(self) -> str:
        """Wait for the end, and return the whole answer.

        Raises:
            StatusError, IncompleteReply: as iteration does.
        """
        for _ in self.events():
            pass
        return self.text

    def close(self) -> None:
        """Stop the answer where it is; `text` keeps what came. Does nothing at its end.

        The server is told, and stops generating at once; one that can not be reached stops after
        its grace period. May be called from another thread; the iteration there then ends.
        """
        self._end_stream()
        if not self._is_running_on:
            return
        # One thread tells, and whoever else closes waits for it.
        with self._stopping, contextlib.suppress(Exception):
            if not self._is_stopped:
                self._is_stopped = True
                self._tell(CANCEL_TIMEOUT_SECONDS)

    def cancel(self, *, timeout_seconds: float | None = None) -> Turn | None:
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
        return self._tell(timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end_stream(self) -> None:
        if not self._is_over:
            self._closed = True
        self._stream.cancel()

    def _tell(self, timeout_seconds: float | None) -> Turn | None:
        operation = requests.cancel_turn(self.chat_id, self.turn_id)
        try:
            return self._client._call(operation, timeout_seconds, self._metadata)
        except NotSupported:
            return None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._stream.cancel()
