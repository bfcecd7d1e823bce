"""The generation loop: the batching core on a thread of its own, behind a narrow door.

In: numbered jobs that have passed the engine's gate, and cancellations, from any thread. Out:
reports, in batches, handed to one callable on the loop's own thread. An idle loop sleeps, and
its end is always told.

It knows no asyncio, no text and no pictures; an id is an id.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from queue import SimpleQueue

from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.sequence import Job, Output

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a job in one step of the loop.

    Args:
        output: of the core.
        reported_at_seconds: now, by ``time.perf_counter``.
    """

    output: Output
    reported_at_seconds: float


Deliver = Callable[[list[Report]], None]
"""Takes reports; or none at all, after a step from which nobody got a token: it tells that the
loop lives."""


@dataclass(frozen=True, slots=True)
class _Cancellation:
    number: int


@dataclass(frozen=True, slots=True)
class _Forgetting:
    owner: Hashable


class _Flush:
    """Forget cached prefixes."""


class _End:
    """Leave."""


class GenerationLoop:
    """The loop's thread and its door.

    Args:
        core: belongs to the loop's thread from `start` on.
        prepare: called first on that thread.
        deliver: takes reports, on the loop's thread; it must not raise.
        on_end: called on the loop's thread as the last thing, with or without `stop`.
    """

    def __init__(
        self,
        core: Core,
        prepare: Callable[[], None],
        deliver: Deliver,
        on_end: Callable[[], None],
    ) -> None:
        self.core = core
        self.thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._prepare = prepare
        self._deliver = deliver
        self._on_end = on_end
        self._inbox: SimpleQueue[Job | _Cancellation | _Forgetting | type[_Flush] | type[_End]] = (
            SimpleQueue()
        )
        self._must_end = False
        # Who is told wakes other threads: while the step after it computes, they hold nobody up.
        self._untold: list[Report] = []

    def start(self) -> None:
        """Begin, on a thread that does not keep the process alive."""
        self.thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """End after the step that is under way; unfinished jobs get no report.

        Args:
            timeout_seconds: how long to wait for it.
        """
        self._inbox.put(_End)
        self.thread.join(timeout_seconds)

    def submit(self, job: Job) -> bool:
        """Hand a job in. False: the loop is not running and the job is not taken."""
        if not self.is_accepting:
            return False
        self._inbox.put(job)
        return True

    def cancel(self, number: int) -> None:
        """Drop a job before the next step; its last report follows unless it is over already."""
        self._inbox.put(_Cancellation(number))

    def flush_prefixes(self) -> None:
        """Forget cached prefixes before any later job is scheduled."""
        self._inbox.put(_Flush)

    def forget_owner(self, owner: Hashable) -> None:
        """Forget what is cached for one owner alone, before any later job is scheduled."""
        self._inbox.put(_Forgetting(owner))

    @property
    def is_accepting(self) -> bool:
        """False from the moment on at which the loop begins to end."""
        return self.thread.is_alive() and not self._must_end

    def _run(self) -> None:
        try:
            self._prepare()
            self._work()
        except BaseException:
            _log.exception("the generation loop ended")
        finally:
            self._must_end = True
            self._tell()
            # The loop that comes after this one makes a cache as large.
            self.core.close()
            self._on_end()

    def _work(self) -> None:
        while True:
            self._take_in()
            if self._must_end:
                return
            num_steps = self.core.num_steps
            outputs = self.core.step(self._tell)
            # Where there was nothing to compute, or it failed before it began.
            self._tell()
            self._keep(outputs)
            if not outputs and self.core.num_steps > num_steps:
                # A part of a prompt: many may follow it before anybody gets a token.
                self._deliver([])

    def _take_in(self) -> None:
        # Sleeps while there is nothing to compute.
        while not self._must_end:
            if self._inbox.empty():
                if self.core.has_work:
                    return
                self._tell()
            entry = self._inbox.get()
            if entry is _End:
                self._must_end = True
            elif entry is _Flush:
                self.core.forget_prefixes()
            elif isinstance(entry, _Cancellation):
                output = self.core.cancel(entry.number)
                self._keep([output] if output is not None else [])
            elif isinstance(entry, _Forgetting):
                self.core.forget_owner(entry.owner)
            elif isinstance(entry, Job):
                self._add(entry)
            else:
                raise TypeError(f"the loop takes no {type(entry).__name__}")

    def _add(self, job: Job) -> None:
        try:
            self.core.add(job)
        except Exception:
            # Such as one for which a cache that was made anew, with less memory left, is too small.
            _log.exception("a job was not taken in")
            failed = Output(
                number=job.number,
                token_id=None,
                is_over=True,
                has_failed=True,
                cached_tokens=0,
                scheduled_at_seconds=time.perf_counter(),
            )
            self._keep([failed])

    def _keep(self, outputs: list[Output]) -> None:
        """To be told when the next step computes, or when there is none."""
        now = time.perf_counter()
        self._untold += [Report(output, now) for output in outputs]

    def _tell(self) -> None:
        if self._untold:
            reports, self._untold = self._untold, []
            self._deliver(reports)
