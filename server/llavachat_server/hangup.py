"""SIGHUP: at a terminal, that it was closed, which ends a server; else, to read settings again.

A server takes it up by `app`, once it runs. Until then it has just read its settings, or is about
to, and a manager that tells it to reload must not end it.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def has_terminal() -> bool:
    """Whether a SIGHUP would mean that this process' terminal was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextmanager
def ignored() -> Iterator[None]:
    """Meanwhile a SIGHUP does nothing, where no terminal sends it and nobody takes it up."""
    if has_terminal():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before or signal.SIG_DFL)
