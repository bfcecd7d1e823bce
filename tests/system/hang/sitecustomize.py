"""Put on the server's path by the tests of its watchdog: makes it hang when it is told to.

SIGUSR1 hangs the event loop: Python's handler runs on the loop's own thread. SIGUSR2 hangs the
engine: the next call of any of the model's modules does not come back, while the loop goes on.
"""

import signal
import sys
import threading
from types import FrameType
from typing import Any


def hang_here(*_: Any, **__: Any) -> None:
    """Never come back."""
    threading.Event().wait()


def hang_loop(signum: int, frame: FrameType | None) -> None:
    """Hang the thread that this handler runs on."""
    hang_here()


def hang_engine(signum: int, frame: FrameType | None) -> None:
    """Hang whoever computes next."""
    sys.modules["torch"].nn.Module.__call__ = hang_here  # type: ignore[attr-defined]


signal.signal(signal.SIGUSR1, hang_loop)
signal.signal(signal.SIGUSR2, hang_engine)
