"""Whether the database answers, for the log: told when that changes, not by each who asks.

Contract: reading and writing may cease to work one without the other, as with a standby; the
database is back once all that failed has worked again. Any thread may tell. What it says holds no
statement's parameters.
"""

import logging
import threading

from sqlalchemy.exc import DBAPIError

log = logging.getLogger("llavachat.store")


class Outage:
    """One database's."""

    def __init__(self) -> None:
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def note_failure(self, what: str, error: DBAPIError) -> None:
        """The database did not answer to `what`, "reading" or "writing"."""
        with self._lock:
            is_news = not self._failing
            self._failing.add(what)
        fields = {"what": what, "why": _say_why(error)}
        if is_news:
            log.error("the store does not answer", exc_info=error, extra={"fields": fields})
        else:
            # Each caller's stack would be the same one, by the hundred.
            log.debug("the store does not answer", extra={"fields": fields})

    def note_answer(self, what: str) -> None:
        """The database has done it."""
        if what not in self._failing:
            return
        with self._lock:
            if what not in self._failing:
                # Another one was first, and has told it.
                return
            self._failing.remove(what)
            is_over = not self._failing
        if is_over:
            log.info("the store answers again")


def _say_why(error: DBAPIError) -> str:
    """The driver's own words. Its first line alone: below it PostgreSQL shows a row's values."""
    return next(iter(str(error.orig).splitlines()), "")
