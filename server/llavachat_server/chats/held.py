"""How many bytes of pictures the turns under way hold: who brings many leaves room for others.

Contract: a turn's pictures count from when they are decoded until the turn has ended, waiting
included, each with its pixels and its file. What is too much is refused at once, with a time to
come back. Belongs to one event loop.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from llavachat_server.images.intake import RETRY_SECONDS, IntakeBusy

MAX_HELD_BYTES = 2 * 1024**3
"""A picture's pixels take 49 MiB at most. Eighty turns with four of these each, as many as a server
lets run and wait by default, would take all of a machine with 16 GB."""

SHARE_OF_FREE = 4
"""A tenant holds at most so many times what is left, four fifths if it is alone. Source of the
rule: see `engine.admission`."""


class Hold:
    """What one turn holds."""

    def __init__(self, pictures: "HeldPictures", tenant: str) -> None:
        self._pictures = pictures
        self._tenant = tenant
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Hold more.

        Raises:
            IntakeBusy: it would be too much.
        """
        self._pictures.add(self._tenant, num_bytes)
        self.num_bytes += num_bytes


class HeldPictures:
    """Counts what all turns hold.

    Args:
        max_bytes: together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._num_free = max_bytes
        self._held: Counter[str] = Counter()

    @contextmanager
    def begin(self, tenant: str) -> Iterator[Hold]:
        """For one turn: what it takes is given back at the end.

        Args:
            tenant: whose it is. "" for everybody on a server without tenants, which may hold all.
        """
        hold = Hold(self, tenant)
        try:
            yield hold
        finally:
            self._num_free += hold.num_bytes
            self._held[tenant] -= hold.num_bytes
            if not self._held[tenant]:
                del self._held[tenant]

    def add(self, tenant: str, num_bytes: int) -> None:
        """Count what a tenant holds now; see `Hold.take`."""
        num_free = self._num_free - num_bytes
        num_held = self._held[tenant] + num_bytes
        if num_free < 0 or (tenant and num_held > SHARE_OF_FREE * num_free):
            raise IntakeBusy(RETRY_SECONDS)
        self._num_free = num_free
        self._held[tenant] = num_held
