"""Words cut in other pieces than the tokenizer's own, so that a model learns what the pieces say.

A mistyped word falls into pieces that the model has hardly met ("hree" for "three"). Where training
now and then undoes a merge, it meets them, and every question looks a little different each time.

Source: the idea of BPE-dropout (Provilkov et al., 2020, https://arxiv.org/abs/1910.13267), with
finished tokens taken apart instead of merges left out: that needs no second tokenizer, and its
chance can be drawn from a seed.
"""

import json
import random
from collections.abc import Sequence

from tokenizers import Tokenizer


class WordSplitter:
    """Undoes merges of a byte-pair tokenizer.

    Args:
        tokenizer: its merges are read once.
        rate: the chance for a token to be split in two, and for each part again; 0 to 1.
    """

    def __init__(self, tokenizer: Tokenizer, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must be between 0 and 1, not {rate}")
        self._rate = rate
        model = json.loads(tokenizer.to_str())["model"]
        ids: dict[str, int] = model["vocab"]
        self._parts: dict[int, tuple[int, int]] = {}
        for left, right in model["merges"]:
            self._parts.setdefault(ids[left + right], (ids[left], ids[right]))

    def split(self, rng: random.Random, token_ids: Sequence[int]) -> list[int]:
        """Other ids of the same text; those that no merge made are left alone."""
        result: list[int] = []
        waiting = list(reversed(token_ids))
        while waiting:
            token = waiting.pop()
            if token in self._parts and rng.random() < self._rate:
                left, right = self._parts[token]
                waiting += (right, left)
            else:
                result.append(token)
        return result
