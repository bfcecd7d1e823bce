"""Which blocks continue a prefix, and with which tokens.

For prompts that go on like a block only up to some token: what a chat's last block holds, or a
picture's end with another question behind it. Pure bookkeeping: it knows no holder and no tensor.
"""

from array import array
from collections.abc import Sequence
from itertools import islice

MAX_LOOKS = 1024
"""Blocks of one prefix that `Beginnings.find` looks at, the last ones noted: a common system prompt
may have as many as the cache."""


class Beginnings:
    """Blocks by the prefix that they continue, each with its first tokens."""

    def __init__(self) -> None:
        self._contents: dict[int, tuple[bytes, array[int]]] = {}
        self._by_parent: dict[bytes, dict[int, None]] = {}

    def __contains__(self, block: int) -> bool:
        return block in self._contents

    def count_tokens(self, block: int) -> int:
        """Tokens that are known of a block; 0 of one that is not."""
        return len(self._contents[block][1]) if block in self._contents else 0

    def note(self, block: int, parent: bytes, token_ids: Sequence[int]) -> None:
        """A block holds these tokens after the prefix `parent`, and perhaps more."""
        self.forget(block)
        self._contents[block] = parent, array("q", token_ids)
        self._by_parent.setdefault(parent, {})[block] = None

    def forget(self, block: int) -> None:
        """Find a block no more; nothing happens if it is unknown."""
        parent, _ = self._contents.pop(block, (None, None))
        if parent is not None:
            siblings = self._by_parent[parent]
            del siblings[block]
            if not siblings:
                del self._by_parent[parent]

    def clear(self) -> None:
        """Find nothing more."""
        self._contents.clear()
        self._by_parent.clear()

    def find(self, parent: bytes, token_ids: Sequence[int]) -> tuple[int, int] | None:
        """The block after the prefix `parent` that begins with most of `token_ids`.

        Returns:
            The block and how many tokens it shares, 1 or more; None where there is none.
        """
        wanted = array("q", token_ids)
        best, length = -1, 0
        siblings = self._by_parent.get(parent, {})
        for block in islice(reversed(siblings), MAX_LOOKS):
            if length == len(wanted):
                break
            known = self._contents[block][1]
            if len(known) > length and known[length] == wanted[length]:
                shared = _count_shared(known, wanted)
                if shared > length:
                    best, length = block, shared
        return (best, length) if length else None


def _count_shared(one: "array[int]", other: "array[int]") -> int:
    """How many tokens two beginnings share."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
