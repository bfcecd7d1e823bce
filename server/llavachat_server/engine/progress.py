"""How loading tells what it is at."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float | None], None]
"""Called with a stage's name and None when it begins, and with its seconds when it is done."""


@contextmanager
def stage(name: str, progress: Progress) -> Iterator[None]:
    """What runs under this is a stage.

    Args:
        name: of it.
        progress: is told.
    """
    progress(name, None)
    start = time.perf_counter()
    yield
    progress(name, time.perf_counter() - start)
