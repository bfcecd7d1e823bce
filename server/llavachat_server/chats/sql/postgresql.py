"""Connections to PostgreSQL: none waits for ever for a database that has fallen silent, and none
writes to a database that is another server's.

Contract: a statement that gets no answer fails as one whose connection broke. Whoever writes holds
the owner's lock in that very session, so that it can not outlive the lock. It must not know what is
asked.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Ready
from sqlalchemy import Engine, event
from sqlalchemy.engine import URL

from llavachat_server.chats.sql.database import NotOwned

T = TypeVar("T")

CONNECT_SECONDS = 5

SILENCE_SECONDS = 10.0
"""Beyond any statement of the store: those that take longest take under one second."""

STATEMENT_SECONDS = 8.0
"""The database itself ends what takes longer, such as what waits for somebody else's lock; earlier
than its silence is given up, because then the connection stays good."""

OWNER_SECONDS = 5.0
"""PostgreSQL notices within this time that the server before this one has died."""

_OWNER_PAUSE_SECONDS = 0.1

_OWNER_LOCK = 0x6C6C617661636861
"""Number of the advisory lock: "llavacha" in ASCII."""

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

    def serve(self, engine: Engine, prepare: "Callable[[Link], None] | None" = None) -> None:
        """Make all connections of an engine.

        Args:
            engine: of this database.
            prepare: gets each new connection; what it raises makes it none.
        """

        def connect(_: object, __: object, words: list[Any], arguments: dict[str, Any]) -> Link:
            return self._connect(words, arguments, prepare)

        event.listen(engine, "do_connect", connect)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Inside, statements may take as long as they do; those that change a whole table."""
        self._is_patient = True
        try:
            yield
        finally:
            self._is_patient = False

    def _connect(
        self,
        words: list[Any],
        arguments: dict[str, Any],
        prepare: "Callable[[Link], None] | None",
    ) -> "Link":
        link = Link.connect(*words, **{**self._arguments, **arguments})
        link.links = self
        try:
            link.autocommit = True
            link.execute(f"SET statement_timeout = {round(STATEMENT_SECONDS * 1000)}")
            if prepare is not None:
                prepare(link)
            link.autocommit = False
        except BaseException:
            link.close()
            raise
        return link

    def find_silence_seconds(self) -> float | None:
        """How long a connection may say nothing while it is asked; None: for ever."""
        return None if self._is_patient else SILENCE_SECONDS


class Link(psycopg.Connection[Any]):
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


class Owner:
    """Who owns a database: whose connection that writes has its lock.

    A session that is lost loses the lock, as by a restart of PostgreSQL; the next one takes it
    again, or learns that another server was faster.

    Args:
        lost: gets a sentence for the log when that has happened.
    """

    def __init__(self, lost: "Future[str]") -> None:
        self._lost = lost
        self._session: tuple[Any, ...] | None = None

    def take(self, link: Link) -> None:
        """Take the lock for a connection's lifetime.

        Raises:
            NotOwned: another server has it, or has had it.
        """
        deadline = time.monotonic() + OWNER_SECONDS
        while self._lost.done() or not self._try(link):
            if self._lost.done() or time.monotonic() > deadline:
                if self._session is not None and not self._lost.done():
                    self._lost.set_result("another server has taken this one's database over")
                raise NotOwned
            time.sleep(_OWNER_PAUSE_SECONDS)
        mine = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        self._session = link.execute(mine).fetchone()

    def _try(self, link: Link) -> bool:
        if self._session is not None:
            # Its own session of before, which PostgreSQL may not know yet to be lost. The time
            # tells it from another one with its number.
            link.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE (pid, backend_start) = (%s, %s)",
                self._session,
            )
        row = link.execute("SELECT pg_try_advisory_lock(%s)", [_OWNER_LOCK]).fetchone()
        return bool(row and row[0])


def choose_arguments(url: URL) -> dict[str, int]:
    """What libpq is told of times, but for what the address itself says."""
    return {name: value for name, value in _ARGUMENTS.items() if name not in url.query}
