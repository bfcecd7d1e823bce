"""What gRPC keeps of a streamed call that has ended, and how it is let go of; for threads.

A call that its caller's thread reads has a queue of its own. gRPC lets go of the call once all of
its events were taken from there, and nobody takes those of a call that is cancelled or forgotten:
it stays, with its request and so with its pictures, until the process ends (grpcio 1.78 to 1.85).
So they are taken here, by gRPC's own way of doing it, which has no public name. A release that has
nothing of that name keeps its calls as before.
"""

import contextlib
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
                # then, and to ask for another event would end the process. Who reads on is told
                # that the call is cancelled.
                self.is_empty = True
                self._call.cancel()
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
        end = getattr(getattr(self._call, "_call", None), "cancel", None)
        if state is None or take is None or end is None:
            return
        if state.due:
            # A message that gRPC can not read ends the call in its own books alone, and what is
            # left would come when the server ends it, or at the deadline.
            end(grpc.StatusCode.CANCELLED.value[0], "Ended by the client.")
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
        # Only such threads wait for it: a finalizer may run on the one that has it.
        self._taking = threading.Lock()
        self._taker: int | None = None

    def add(self, reader: CallReader) -> None:
        """One was cancelled; from any thread, and from a finalizer."""
        if not reader.is_empty:
            self._readers.append(reader)

    def release(self) -> None:
        """Begin to have gRPC let go of them. Two at once, as within a signal's handler, do no
        harm: one takes what is left after the other."""
        # Who takes looks once more when it has let go of the lock, so nothing is passed over.
        if self._readers and not self._taking.locked():
            thread = threading.Thread(target=self._empty, name="ended calls", daemon=True)
            # Python starts no more threads once it ends (3.12), nor a system that has too many.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def close(self) -> None:
        """Have gRPC let go of them, and wait for it, but not for ever."""
        self.release()
        # The garbage collection may run a finalizer on the very thread that takes, or has just
        # taken; it goes on when the finalizer is done.
        if self._thread is None or threading.get_ident() in (self._taker, self._thread.ident):
            return
        self._thread.join(CLOSE_SECONDS)

    def _empty(self) -> None:
        has_taken = False
        while self._readers or not has_taken:
            with self._taking:
                self._taker = threading.get_ident()
                self._take_all()
                self._taker = None
            has_taken = True

    def _take_all(self) -> None:
        while True:
            try:
                reader = self._readers.popleft()
            except IndexError:
                return
            reader.empty()
