"""Ids that are no words, and stand for something all the same.

Ids below the vocabulary's size are words. From `first_alias_id` on, ids are aliases of the
beginning-of-sequence token: one for each tenant, so that tenants never share a cached prefix.
From `first_image_id` on, ids stand for rows of picture features.
"""

from dataclasses import dataclass

MAX_ALIASES = 2**20
"""Tenants that one engine can tell apart."""


@dataclass(frozen=True, slots=True)
class VirtualIds:
    """Which ids are whose.

    Args:
        vocab_size: words of the model.
    """

    vocab_size: int

    @property
    def first_alias_id(self) -> int:
        """Of the first tenant."""
        return self.vocab_size

    @property
    def first_image_id(self) -> int:
        """Of the first row of the first picture."""
        return self.vocab_size + MAX_ALIASES
