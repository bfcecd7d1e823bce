"""How much each key may ask for: requests and tokens a minute, and calls side by side.

Contract: what is over a limit is refused with the limit's name and the time after which to try
again; nobody's limit touches anybody else. Side by side are calls, and turns that go on without
one: those keep what would begin another from coming, and nothing else, so that their reader may
come back or end them. Belongs to one event loop; it must not know what is asked.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

from grpc import StatusCode

from llavachat_server.rpc.auth import Key, KeyRing
from llavachat_server.rpc.status import Refusal, over_limit

_MINUTE_SECONDS = 60.0
_BUSY_RETRY_SECONDS = 1.0
"""When to come back where as many calls run as may: about a short answer's time."""

Clock = Callable[[], float]


class RunningTurn(Protocol):
    """What is to be known of a turn that a key began."""

    chat_id: str

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        ...

    @property
    def is_followed(self) -> bool:
        """Whether a call reads it, which counts by itself."""
        ...


class Bucket:
    """An allowance that refills steadily: a minute's worth at most is there at once.

    Args:
        per_minute: how much comes back in a minute.
        clock: monotonic, in seconds.
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._seen_at = clock()

    def seconds_until(self, amount: float) -> float:
        """How long until `amount` is there; 0 when it is."""
        self._refill()
        return max(0.0, (amount - self._level) * _MINUTE_SECONDS / self.per_minute)

    def take(self, amount: float) -> None:
        """Use something up; what was not there is owed."""
        self._refill()
        self._level -= amount

    def _refill(self) -> None:
        now = self._clock()
        gained = (now - self._seen_at) * self.per_minute / _MINUTE_SECONDS
        self._level = min(float(self.per_minute), self._level + gained)
        self._seen_at = now


class Quota:
    """One key's use. A call that was admitted leaves the one that admitted it.

    Args:
        key: its limits.
        clock: monotonic, in seconds.
    """

    def __init__(self, key: Key, clock: Clock) -> None:
        self.num_running = 0
        self._turns: list[RunningTurn] = []
        self._clock = clock
        self.change(key)

    def change(self, key: Key) -> None:
        """Begin anew with other limits, the calls that run counted."""
        clock = self._clock
        self.key = key
        self._requests = Bucket(key.requests_per_minute, clock) if key.requests_per_minute else None
        self._tokens = Bucket(key.tokens_per_minute, clock) if key.tokens_per_minute else None

    def admit(self, *, generates: bool) -> Refusal | None:
        """Count a call in, or say why it may not come."""
        key, requests, tokens = self.key, self._requests, self._tokens
        if key.max_concurrent and self.num_running >= key.max_concurrent:
            return self._refuse_another(key.max_concurrent)
        if tokens is not None and generates and (wait := tokens.seconds_until(1)):
            limit = f"this key may use {tokens.per_minute} tokens a minute"
            return self._refuse("tokens_per_minute", limit, wait)
        if requests is not None:
            if wait := requests.seconds_until(1):
                limit = f"this key may call {requests.per_minute} times a minute"
                return self._refuse("requests_per_minute", limit, wait)
            requests.take(1)
        self.num_running += 1
        return None

    def admit_turn(self, chat_id: str | None = None) -> Refusal | None:
        """Say why a call that was admitted may not begin a turn or a replay, if it may not.

        Args:
            chat_id: a turn of this chat that nobody follows is ended by the new one; None: the new
                one ends no other.
        """
        self._turns = [turn for turn in self._turns if not turn.is_over]
        left = (turn for turn in self._turns if not turn.is_followed)
        # A turn whose pictures are not decoded yet has no chat: it is none that would be ended.
        num_left = sum(chat_id is None or turn.chat_id != chat_id for turn in left)
        most = self.key.max_concurrent
        return self._refuse_another(most) if most and self.num_running + num_left > most else None

    def note_turn(self, turn: RunningTurn) -> None:
        """A call of this key has begun a turn, which may go on without it."""
        if self.key.max_concurrent:
            self._turns.append(turn)

    def leave(self) -> None:
        """A call has ended."""
        self.num_running -= 1

    def charge(self, num_tokens: int) -> None:
        """So many tokens were used."""
        if self._tokens is not None:
            self._tokens.take(num_tokens)

    def _refuse_another(self, most: int) -> Refusal:
        sentence = f"at most {most} calls of this key run side by side"
        return self._refuse("max_concurrent", sentence, _BUSY_RETRY_SECONDS)

    def _refuse(self, limit: str, sentence: str, after_seconds: float) -> Refusal:
        subject = f"key:{self.key.tenant}/{limit}"
        code = StatusCode.RESOURCE_EXHAUSTED
        return over_limit(code, subject, sentence, after_seconds, reason=limit)


QUOTA: ContextVar[Quota | None] = ContextVar("quota", default=None)
"""Of the key whose call the present task answers; None where there is no key."""


class Quotas:
    """The use of all keys.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._quotas: dict[bytes, Quota] = {}

    def of(self, key: Key) -> Quota:
        """A key's use, by its present entry; an older one would bring back older limits.

        With other limits than before the key begins anew, its calls counted.
        """
        known = self._quotas.get(key.sha256)
        if known is None:
            known = self._quotas[key.sha256] = Quota(key, self._clock)
        elif known.key != key:
            known.change(key)
        return known

    def charge(self, key: Key, num_tokens: int) -> None:
        """A key has used so many tokens, whatever its limits were when its call came."""
        if (known := self._quotas.get(key.sha256)) is not None:
            known.charge(num_tokens)

    def forget(self, ring: KeyRing) -> None:
        """Drop what is known of keys that are no more."""
        for sha256 in [sha256 for sha256 in self._quotas if ring.get(sha256) is None]:
            del self._quotas[sha256]
