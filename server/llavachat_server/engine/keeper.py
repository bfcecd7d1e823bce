"""The generation loop's life: begun, watched, begun anew one time, and given up.

Belongs to one event loop. It knows no requests; who has jobs in the loop is told when they are
lost.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import Any, TypeAlias

from llavachat_server.engine.loop import Deliver, GenerationLoop, Report

_log = logging.getLogger(__name__)

MAX_RESTARTS = 1

MakeLoop: TypeAlias = Callable[[Deliver, Callable[[], None]], Awaitable[GenerationLoop]]
"""A loop that runs, see `Backend.make_loop`, made on a worker thread."""

Post = Callable[..., None]
"""Runs a call with its arguments on the event loop; from any thread."""


class EngineState(Enum):
    """Where the engine is in its life. Requests are taken in READY only."""

    NEW = auto()
    STARTING = auto()
    READY = auto()
    RESTARTING = auto()
    STOPPED = auto()
    DEAD = auto()


class LoopKeeper:
    """Keeps one generation loop at work.

    Args:
        make_loop: see `MakeLoop`.
        post: see `Post`.
        spawn: runs a coroutine to its end.
        on_reports: takes what a loop tells.
        on_loss: a loop has ended, and all jobs in it are lost.
        on_death: there will be no other; takes a sentence for the log.
    """

    def __init__(
        self,
        make_loop: MakeLoop,
        post: Post,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        *,
        on_reports: Callable[[list[Report]], None],
        on_loss: Callable[[], None],
        on_death: Callable[[str], None],
    ) -> None:
        self.state = EngineState.NEW
        self.num_restarts = 0
        self.silent_step_at_seconds = 0.0
        """See `EngineLoad`."""
        self._make_loop = make_loop
        self._post = post
        self._spawn = spawn
        self._on_reports = on_reports
        self._on_loss = on_loss
        self._on_death = on_death
        self._is_usable = asyncio.Event()
        # Of the loop that is being listened to; what an earlier one still says is passed over.
        self._epoch = 0
        # Set by `begin`.
        self.loop: GenerationLoop

    @property
    def is_accepting(self) -> bool:
        """Whether the loop takes jobs."""
        return self.state is EngineState.READY and self.loop.is_accepting

    async def begin(self) -> None:
        """Begin a loop; `open` comes after it, and one of a stopped engine ends at once.

        Raises:
            LoadingError: its cache does not fit.
        """
        self._epoch += 1
        epoch = self._epoch
        self.loop = await self._make_loop(
            lambda reports: self._post(self._take_reports, epoch, reports),
            lambda: self._post(self._take_end, epoch),
        )
        if self.state is EngineState.STOPPED:
            # While it was made, by who did not know of it.
            self.loop.stop(0.0)

    def open(self) -> None:
        """Take jobs from now on, unless the engine has been stopped meanwhile."""
        if self.state in (EngineState.STARTING, EngineState.RESTARTING):
            self.state = EngineState.READY
            self._is_usable.set()

    def note_end(self) -> None:
        """The loop has refused a job: it is ending and about to say so."""
        self._is_usable.clear()

    def stop(self) -> None:
        """Listen to no loop any more. Whoever waits goes on, and finds it stopped."""
        self.state = EngineState.STOPPED
        self._epoch += 1
        self._is_usable.set()

    async def wait(self) -> None:
        """Wait until jobs are taken, or never will be again; `state` says which."""
        await self._is_usable.wait()

    def _take_reports(self, epoch: int, reports: list[Report]) -> None:
        if epoch != self._epoch:
            return
        if reports:
            self._on_reports(reports)
        else:
            self.silent_step_at_seconds = time.monotonic()

    def _take_end(self, epoch: int) -> None:
        if epoch != self._epoch:
            return
        _log.error("the generation loop has ended; its requests fail")
        self._is_usable.clear()
        self._on_loss()
        if self._epoch > MAX_RESTARTS:
            self._die("the generation loop ended again after a restart")
            return
        self.state = EngineState.RESTARTING
        self.num_restarts += 1
        self._spawn(self._restart())

    async def _restart(self) -> None:
        try:
            await self.begin()
        except Exception:
            _log.exception("the generation loop can not be begun anew")
            self._die("the generation loop ended and could not be begun anew")
            return
        self.open()

    def _die(self, reason: str) -> None:
        self.state = EngineState.DEAD
        self._on_death(reason)
        self._is_usable.set()
