"""Threads that take part in what one thread begins.

`concurrent.futures` promises a result and keeps books for it, which takes as long as a small
model's row; here nobody asks what became of a call.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias

_log = logging.getLogger(__name__)

_Work: TypeAlias = "tuple[Callable[..., None], tuple[Any, ...]] | None"


def count_cores() -> int:
    """Threads that compute side by side: one for each core that this process may use.

    Two threads of one core would share its multipliers. ``OMP_NUM_THREADS`` is heeded, as torch
    does.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    allowed = os.sched_getaffinity(0)
    siblings = (
        Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        for number in allowed
    )
    try:
        return len({path.read_text() for path in siblings})
    except OSError:
        return len(allowed)


class Helpers:
    """Some threads that wait for work, and end with this object.

    Args:
        name: of the threads.
        num_threads: 0 or more.
    """

    def __init__(self, name: str, num_threads: int) -> None:
        self._inboxes: list[SimpleQueue[_Work]] = []
        for number in range(num_threads):
            inbox: SimpleQueue[_Work] = SimpleQueue()
            self._inboxes.append(inbox)
            threading.Thread(
                target=_work, args=(inbox,), name=f"{name}_{number}", daemon=True
            ).start()
        weakref.finalize(self, _dismiss, self._inboxes)

    def call(self, function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        """Call a function on as many threads as there are tuples of arguments; wait for none.

        Args:
            function: what it raises is logged, and its thread goes on.
            arguments: at most as many as there are threads. One that has not come back yet takes
                its part later.
        """
        for inbox, own in zip(self._inboxes, arguments, strict=False):
            inbox.put((function, own))


def _work(inbox: "SimpleQueue[_Work]") -> None:
    while True:
        work = inbox.get()
        if work is None:
            return
        function, arguments = work
        try:
            function(*arguments)
        except Exception:
            _log.exception("a helping thread has failed at its part")
        # What it was called with may be large, and the next call far away.
        del work, function, arguments


def _dismiss(inboxes: "list[SimpleQueue[_Work]]") -> None:
    for inbox in inboxes:
        inbox.put(None)
