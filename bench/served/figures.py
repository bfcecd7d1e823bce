"""Medians, spreads and ratios over rounds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over rounds: the middle, and how far it went to each side."""

    median: float
    low: float
    high: float


def median(values: Sequence[float]) -> float:
    """The middle one; of an even number, the mean of the two in the middle."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed (nearest rank).

    Args:
        values: at least one.
        percent: over 0, at most 100.
    """
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def summarise(values: Sequence[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    return Spread(median(values), min(values), max(values))


def compare(
    ours: Sequence[float | None], theirs: Sequence[float | None], *, is_rate: bool
) -> Spread | None:
    """How many times better ours is, round by round.

    Args:
        ours, theirs: one figure a round, None where it is missing.
        is_rate: more is better; otherwise less is.

    Returns:
        Over 1 where ours is better. None: no round has both.
    """
    ratios = [
        our / their if is_rate else their / our
        for our, their in zip(ours, theirs, strict=False)
        if our and their
    ]
    return summarise(ratios) if ratios else None
