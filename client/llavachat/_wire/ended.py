"""What gRPC keeps of a streamed call that has ended, and how it is let go of; for threads.

A call that its caller's thread reads has a queue of its own. gRPC lets go of the call once all of
its events were taken from there, and nobody takes those of a call that is cancelled or forgotten:
it stays, with its request and so with its pictures, until the process ends (grpcio 1.78 to 1.85).
So they are taken here, by gRPC's own way of doing it, which has no public name. A release that has
nothing of that name keeps its calls as before.
"""

import threading
from collections import deque
from typing import Any

import grpc

CLOSE_SECONDS = 1.0
"""For the calls that are left when a channel closes. Their events are there at once."""


class CallReader:
    """Takes the events of one call, for one thread at a time.

    Args:
        call: as gRPC's stub gives it.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._turn = threading.Lock()
        self.is_empty = False
        """Nothing is left to be taken."""

    def read(self) -> Any:
        """The next message; None after the last.

        Raises:
            grpc.RpcError: the call failed.
        """
        with self._turn:
            try:
                message = next(self._call, None)
            except grpc.RpcError:
                self._empty()
                raise
            except BaseException:
                # A signal's handler has raised, as at Ctrl-C. gRPC lets go of the call by itself
                # then, and to ask for another event would end the process.
                self.is_empty = True
                raise
            if message is None:
                self._empty()
            return message

    def empty(self) -> None:
        """Take what is left of a call that has ended; it waits for who reads."""
        with self._turn:
            self._empty()

    def _empty(self) -> None:
        if self.is_empty:
            return
        # First: a signal's handler may raise here as well.
        self.is_empty = True
        state = getattr(self._call, "_state", None)
        take = getattr(self._call, "_consume_next_event", None)
        if state is not None and take is not None:
            while state.due:
                take()


class EndedCalls:
    """Calls of one channel that were ended here, until what is left of them is taken.

    That is begun with the channel's next call, since calls also end in finalizers, which run
    anywhere; and it is done on a thread of its own, so that nobody waits for gRPC.
    """

    def __init__(self) -> None:
        self._readers: deque[CallReader] = deque()
        self._thread: threading.Thread | None = None

    def add(self, reader: CallReader) -> None:
        """One was cancelled; from any thread, and from a finalizer."""
        if not reader.is_empty:
            self._readers.append(reader)

    def release(self) -> None:
        """Begin to have gRPC let go of them. Called by one thread at a time."""
        if self._readers and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._empty, name="ended calls", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Have gRPC let go of them, and wait for it, but not for ever."""
        self.release()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _empty(self) -> None:
        while self._readers:
            self._readers.popleft().empty()
