"""How long a first boot may take: less than CloudFormation waits, by what stepping back takes.

CloudFormation counts from when it asks for the machine, and asks nobody when its time is up: it
deletes the machine, whatever that holds. So the first boot has to give up, and give back, before.
"""

from __future__ import annotations

import signal
import time
from datetime import datetime
from types import FrameType, TracebackType

from firstboot.account import CallFailed, call

SPARE_SECONDS = 300
"""Kept back for stepping back: a service that stops takes up to 50 s, a volume that leaves one
machine and comes to another a minute or two, and the log's last lines must be sent."""

SIGNAL_SECONDS = 30
"""Kept back of that, so that the signal of the failure comes even if stepping back hangs."""

TAKEOVER_SECONDS = 120
"""Kept back of the work's time for what comes once the machine before is stopped: with less than
that, stopping it would be an outage for nothing."""

MIN_SECONDS = 60
MAX_START_SECONDS = 600
"""A machine that seems to have booted for longer than this has a clock that is not set yet."""

UNKNOWN_START_SECONDS = 180


class TimeIsUp(Exception):
    """What was to be done took longer than it may. No OSError, which much code gets over."""


class Limit:
    """Raises `TimeIsUp` in what runs within it for longer than it may; main thread only.

    Args:
        seconds: how long.
        message: the error's text.
    """

    def __init__(self, seconds: float, message: str) -> None:
        self.seconds = seconds
        self.message = message
        self.is_over = False

    def __enter__(self) -> Limit:
        signal.signal(signal.SIGALRM, self.ring)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # First: an alarm that is on its way already must not break what comes after.
        self.is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def ring(self, signum: int, frame: FrameType | None) -> None:
        """The alarm's handler: what hangs becomes an error with a name."""
        if not self.is_over:
            raise TimeIsUp(self.message)


def find_launch(instance: str) -> float | None:
    """When EC2 launched a machine, in seconds since the epoch; None if it does not say."""
    try:
        wanted = ("--instance-ids", instance)
        answer = call("ec2", "describe-instances", *wanted, attempts=2, seconds=20)
        text = str(answer["Reservations"][0]["Instances"][0]["LaunchTime"])
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (CallFailed, LookupError, TypeError, ValueError):
        return None


def reckon(install_minutes: int, launched: float | None, now: float | None = None) -> float:
    """Seconds that are left for the first boot's work.

    Args:
        install_minutes: what the deployment allows for, see `Options.install_minutes`.
        launched: when the machine was launched; None if unknown.
        now: seconds since the epoch; the clock's if left out.
    """
    gone: float = UNKNOWN_START_SECONDS
    if launched is not None:
        gone = min(max((time.time() if now is None else now) - launched, 0), MAX_START_SECONDS)
    return max(install_minutes * 60 - SPARE_SECONDS - gone, MIN_SECONDS)


def reckon_preparation(seconds: float) -> float:
    """Seconds of the work's that it may take to prepare, before anybody is stopped."""
    return max(seconds - TAKEOVER_SECONDS, seconds / 2)
