"""SIGINT, Ctrl-C, until `app` takes it up: it ends the process, and nothing needs to be put away.

Python's own way would show a stack of whatever is being imported at that moment.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_process() -> Iterator[None]:
    """Meanwhile a SIGINT ends this process as it does any other, where Python would take it."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # Ignored, as where a shell began this in the background; or the embedding program's.
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
