"""When to ask again for a chat, a list or a picture that was refused for others of the same user.

A server sends few large replies to one user at a time. Whoever is refused for the others did no
wrong, and to read again does no harm. Decisions only, nothing is sent here.
"""

import time

from llavachat.errors import LimitReached

_SUBJECTS = frozenset({"reads", "replies"})
"""Not what is limited by the minute: that is the caller's to spread."""


class Line:
    """One call that reads, and its tries.

    Args:
        timeout_seconds: the deadline of all of them.
        patience_seconds: how long to ask again after the first refusal; 0 does not.
    """

    def __init__(self, timeout_seconds: float, patience_seconds: float) -> None:
        self._deadline = time.monotonic() + timeout_seconds
        self._patience_seconds = patience_seconds
        self._give_up_at: float | None = None

    @property
    def left_seconds(self) -> float:
        """What is left of the deadline."""
        return max(0.001, self._deadline - time.monotonic())

    def plan(self, error: LimitReached) -> float:
        """How many seconds to wait before the next try.

        Raises:
            LimitReached: `error` itself, where another try would not help, or comes too late.
        """
        wait_seconds = error.retry_after_seconds
        if wait_seconds is None or not _SUBJECTS.issuperset(error.details.quota_subjects or ("",)):
            raise error
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + self._patience_seconds
        if now + wait_seconds >= min(self._give_up_at, self._deadline):
            raise error
        return wait_seconds
