"""One thread that writes, and commits what has gathered at once.

Contract: a future is done when its work is durable, or undone altogether. Works run in the order
in which they were given. However many wait, one flush to the disk serves them all; one that
fails spoils no other.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from llavachat_server.chats.errors import ChatError

T = TypeVar("T")

MAX_BATCH = 64
"""Works in one commit; bounds how long the first of them waits for the last."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[Connection], Any]
    done: "Future[Any]" = field(default_factory=Future)


class Writer:
    """The one who writes.

    Args:
        engine: begins a transaction that may write.
        translate: what a database's error means to a caller.
    """

    def __init__(self, engine: Engine, translate: Callable[[DBAPIError], Exception]) -> None:
        self._engine = engine
        self._translate = translate
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], T]) -> "Future[T]":
        """Have `work` done in a transaction.

        Args:
            work: gets the connection; may raise a `ChatError` to undo itself. It may run more
                than once, each time from the same state but the last.
        """
        job = _Job(work)
        self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Do what was given so far, and end."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            gathered = [self._jobs.get()]
            while len(gathered) < MAX_BATCH:
                try:
                    gathered.append(self._jobs.get_nowait())
                except Empty:
                    break
            jobs = [job for job in gathered if job is not None]
            is_open = len(jobs) == len(gathered)
            self._commit([job for job in jobs if job.done.set_running_or_notify_cancel()])

    def _commit(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            with self._engine.begin() as connection:
                results = [_try(connection, job) for job in jobs]
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._commit([job])
                return
            meaning = self._translate(error) if isinstance(error, DBAPIError) else error
            jobs[0].done.set_exception(meaning)
            return
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, ChatError):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)


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
