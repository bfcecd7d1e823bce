"""Connections to PostgreSQL: none waits for ever for a database that has fallen silent.

Contract: a statement that gets no answer fails as one whose connection broke. It must not know
what is asked.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Ready
from sqlalchemy import Engine, event
from sqlalchemy.engine import URL

T = TypeVar("T")

CONNECT_SECONDS = 5

SILENCE_SECONDS = 10.0
"""Beyond any statement of the store: those that take longest take under one second."""

STATEMENT_SECONDS = 8.0
"""The database itself ends what takes longer, such as what waits for somebody else's lock; earlier
than its silence is given up, because then the connection stays good."""

_ARGUMENTS: Mapping[str, int] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": round(SILENCE_SECONDS * 1000),
}
"""For hosts that vanish without a word; libpq's own are the system's, hours.

Source: PostgreSQL's manual, section 34.1.2; the last two are in milliseconds and tries.
"""


class Links:
    """Makes the connections of a database.

    Args:
        url: as it was given; what it says of times holds.
    """

    def __init__(self, url: URL) -> None:
        self._arguments = choose_arguments(url)
        self._is_patient = False

    def serve(self, engine: Engine) -> None:
        """Make all connections of an engine."""
        event.listen(engine, "do_connect", self._connect)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Inside, statements may take as long as they do; those that change a whole table."""
        self._is_patient = True
        try:
            yield
        finally:
            self._is_patient = False

    def _connect(
        self, _dialect: object, _record: object, words: list[Any], arguments: dict[str, Any]
    ) -> "_Link":
        link = _Link.connect(*words, **{**self._arguments, **arguments})
        link.links = self
        try:
            link.autocommit = True
            link.execute(f"SET statement_timeout = {round(STATEMENT_SECONDS * 1000)}")
            link.autocommit = False
        except BaseException:
            link.close()
            raise
        return link

    def find_silence_seconds(self) -> float | None:
        """How long a connection may say nothing while it is asked; None: for ever."""
        return None if self._is_patient else SILENCE_SECONDS


class _Link(psycopg.Connection[Any]):
    """A connection that gives up where the socket lives and the database says nothing.

    As when its process is stopped, or what stands before it goes on: there no setting of libpq's
    ends the waiting.
    """

    links: Links | None = None

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """See psycopg."""
        return super().wait(self._hear(gen), *args, **options)

    def _hear(self, gen: PQGen[T]) -> PQGen[T]:
        heard_at = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                # It is resumed without anything ready ten times a second.
                if ready != Ready.NONE:
                    heard_at = time.monotonic()
                elif self._is_given_up(time.monotonic() - heard_at):
                    self.close()
                    raise psycopg.OperationalError("the database does not answer")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _is_given_up(self, silent_seconds: float) -> bool:
        bound = SILENCE_SECONDS if self.links is None else self.links.find_silence_seconds()
        return bound is not None and silent_seconds > bound


def choose_arguments(url: URL) -> dict[str, int]:
    """What libpq is told of times, but for what the address itself says."""
    return {name: value for name, value in _ARGUMENTS.items() if name not in url.query}
