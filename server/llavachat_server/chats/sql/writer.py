"""One thread that writes, and commits what has gathered at once.

Contract: a future is done when its work is durable, or undone altogether; where the database did
not answer to the commit, it says so (`StoreUnavailable.may_be_done`). Works run in the order in
which they were given. However many wait, one flush to the disk serves them all; one that fails
spoils no other, unless the database made it wait too long: then none of them waits once more. What
is owed is done at last: where it finds no room or no database, it is tried again by itself, and
everything else waits behind it, but for what makes room. Where it meets damage, or fails by a fault
of ours, it is told once and tried again as well, and nobody waits behind it.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from llavachat_server.chats.errors import ChatError, StoreDamaged, StoreFull, StoreUnavailable
from llavachat_server.chats.sql.database import has_waited

log = logging.getLogger("llavachat.store")

T = TypeVar("T")

MAX_BATCH = 64
"""Works in one commit; bounds how long the first of them waits for the last."""


OWED_RETRY_SECONDS = 5.0

NOT_NOW = (StoreFull, StoreUnavailable)


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[Connection], Any]
    is_owed: bool
    makes_room: bool
    done: "Future[Any]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Aside:
    """What is done between two transactions."""

    work: Callable[[], Any]
    done: "Future[Any]" = field(default_factory=Future)


@dataclass(slots=True)
class _Debt:
    """What is owed, and before when, by `time.monotonic`, it is not tried again.

    `is_told`: the log has it that this can not be written.
    """

    work: Callable[[Connection], Any]
    is_told: bool
    due_at_seconds: float = 0.0


class Writer:
    """The one who writes.

    Args:
        engine: begins a transaction that may write.
        translate: what an error means to a caller; what it does not know it gives back. It tells
            the log of damage, unless its second argument says that this is told.
        note_answer: called after each transaction that the database has committed.
    """

    def __init__(
        self,
        engine: Engine,
        translate: Callable[[Exception, bool], Exception],
        note_answer: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._translate = translate
        self._note_answer = note_answer
        self._jobs: SimpleQueue[_Job | _Aside | None] = SimpleQueue()
        self._owed: list[_Debt] = []
        self.owed_refusal: StoreFull | StoreUnavailable | StoreDamaged = StoreUnavailable(
            OWED_RETRY_SECONDS
        )
        """Why what is owed was not done when it was tried last."""
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Callable[[Connection], T],
        *,
        is_owed: bool = False,
        makes_room: bool = False,
    ) -> "Future[T]":
        """Have `work` done in a transaction.

        Args:
            work: gets the connection; may raise a `ChatError` to undo itself. It may run more
                than once, each time from the same state but the last.
            is_owed: where it fails, but by a refusal of its own, the future says so and the work
                is done later all the same.
            makes_room: it is done also where what is owed finds no room, and that is tried again
                after it.
        """
        job = _Job(work, is_owed, makes_room)
        self._jobs.put(job)
        return job.done

    def submit_aside(self, work: Callable[[], T]) -> "Future[T]":
        """Have something done between two transactions, after all that was submitted before."""
        aside = _Aside(work)
        self._jobs.put(aside)
        return aside.done

    def close(self, max_seconds: float | None = None) -> bool:
        """Do what was given so far, and end.

        Returns:
            Whether it did within the time; else the thread is left to itself.
        """
        self._jobs.put(None)
        self._thread.join(max_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        is_open = True
        while is_open:
            gathered = self._gather()
            is_open = None not in gathered
            jobs = [job for job in gathered if isinstance(job, _Job)]
            self._commit([job for job in jobs if _is_wanted(job)])
            for aside in gathered:
                if isinstance(aside, _Aside):
                    _do_aside(aside)
        for debt in self._owed:
            debt.due_at_seconds = 0.0
        with suppress(*NOT_NOW):
            self._pay()

    def _gather(self) -> list[_Job | _Aside | None]:
        """What waits; nothing when it is time to try again what is owed."""
        gathered: list[_Job | _Aside | None] = []
        with suppress(Empty):
            gathered.append(self._jobs.get(timeout=OWED_RETRY_SECONDS if self._owed else None))
            while len(gathered) < MAX_BATCH:
                gathered.append(self._jobs.get_nowait())
        return gathered

    def _commit(self, jobs: list[_Job]) -> None:
        """Do what is owed and then these."""
        try:
            self._pay()
        except StoreFull as refusal:
            makers = [job for job in jobs if job.makes_room]
            others = [job for job in jobs if not job.makes_room]
            if makers:
                self._do(makers)
                self._commit(others)
            else:
                self._refuse_all(others, refusal)
        except StoreUnavailable as refusal:
            self._refuse_all(jobs, refusal)
        else:
            self._do(jobs)

    def _do(self, jobs: list[_Job]) -> None:
        """Do these in one transaction; where it fails as a whole, each in its own."""
        if not jobs:
            return
        has_begun = is_whole = False
        try:
            with self._engine.begin() as connection:
                has_begun = True
                results = [_try(connection, job) for job in jobs]
                is_whole = True
        except Exception as error:
            meaning = self._translate(error, False)
            is_gone = not has_begun or is_whole or getattr(error, "connection_invalidated", False)
            if isinstance(meaning, StoreUnavailable) and (is_gone or has_waited(error)):
                # Each by itself would wait for the database once more; and what may be done must
                # not be done again.
                self._refuse_all(jobs, replace(meaning, may_be_done=is_whole))
            elif len(jobs) > 1:
                for job in jobs:
                    self._commit([job])
            else:
                self._refuse(jobs[0], meaning)
            return
        self._note_answer()
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, ChatError):
                self._refuse(job, result)
            elif not job.done.cancelled():
                job.done.set_result(result)

    def _refuse_all(self, jobs: list[_Job], error: Exception) -> None:
        for job in jobs:
            self._refuse(job, error)

    def _refuse(self, job: _Job, error: Exception) -> None:
        if job.is_owed and _may_pass(error):
            self._owed.append(_Debt(job.work, is_told=isinstance(error, StoreDamaged)))
            self._note_refusal(error)
        if not job.done.cancelled():
            job.done.set_exception(error)

    def _note_refusal(self, error: Exception) -> None:
        if isinstance(error, StoreDamaged):
            self.owed_refusal = StoreDamaged(error.what)
        else:
            kind = StoreFull if isinstance(error, StoreFull) else StoreUnavailable
            self.owed_refusal = kind(OWED_RETRY_SECONDS)

    def _pay(self) -> None:
        """Do what is owed, each in a transaction of its own.

        Raises:
            StoreFull, StoreUnavailable: the rest of it is still owed.
        """
        now = time.monotonic()
        for debt in [debt for debt in self._owed if debt.due_at_seconds <= now]:
            try:
                with self._engine.begin() as connection:
                    debt.work(connection)
                self._note_answer()
            except Exception as error:
                meaning = self._translate(error, debt.is_told)
                if _may_pass(meaning):
                    self._note_refusal(meaning)
                    if isinstance(meaning, NOT_NOW):
                        raise meaning from error
                    if not debt.is_told and not isinstance(meaning, StoreDamaged):
                        log.error("what was owed can not be written", exc_info=meaning)
                    debt.is_told = True
                    debt.due_at_seconds = now + OWED_RETRY_SECONDS
                    continue
            self._owed.remove(debt)


def _may_pass(error: Exception) -> bool:
    """Whether a work that failed so may be done later: all but what it refuses by itself.

    What nobody thought of may be the database's passing mood, and damage an index that is made
    anew; a turn that never ends would lock its chat for good.
    """
    return isinstance(error, (*NOT_NOW, StoreDamaged)) or not isinstance(error, ChatError)


def _is_wanted(job: _Job) -> bool:
    """Whether somebody waits for it; what is owed is done for its own sake."""
    return job.done.set_running_or_notify_cancel() or job.is_owed


def _do_aside(aside: _Aside) -> None:
    if not aside.done.set_running_or_notify_cancel():
        return
    try:
        aside.done.set_result(aside.work())
    except Exception as error:
        aside.done.set_exception(error)


def _try(connection: Connection, job: _Job) -> Any:
    """Do a work within the others' transaction; its refusal undoes it alone."""
    part = connection.begin_nested()
    try:
        result = job.work(connection)
    except ChatError as refusal:
        part.rollback()
        return refusal
    part.commit()
    return result
