"""What stops a process that does not serve.

SIGINT, Ctrl-C, until `app` or a command takes it up, ends the process, and nothing needs to be put
away: Python's own way would show a stack of whatever is being imported at that moment. A command
that has something to put away is stopped by SIGTERM and SIGHUP as by Ctrl-C: by an exception.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_process() -> Iterator[None]:
    """Meanwhile a SIGINT ends this process as it does any other, where Python would take it."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or not _is_main_thread():
        # Ignored, as where a shell began this in the background; or the embedding program's.
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_main_thread() -> bool:
    # No other may take signals.
    return threading.current_thread() is threading.main_thread()


class Stopped(BaseException):
    """A signal has come that ends this process.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


@contextmanager
def raises_stopped() -> Iterator[None]:
    """Meanwhile a SIGTERM or SIGHUP raises `Stopped`, where it would end this process."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    taken = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        # Else ignored, as by nohup; or the embedding program's.
        if signal.getsignal(number) is signal.SIG_DFL and _is_main_thread()
    ]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
