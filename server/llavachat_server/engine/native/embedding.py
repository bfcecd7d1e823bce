"""The rows of words and of pictures, by their ids; see `virtual_ids`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llavachat_server.engine.virtual_ids import VirtualIds

Floats = NDArray[np.float32]


class RowTable:
    """Looks words up in the model's own table and pictures up in a bank beside it.

    Args:
        words: the model's input embedding, (vocabulary, hidden).
        ids: which ids are whose.
        bos_token_id: the word that aliases stand for.
        num_slots: pictures that the bank holds.
        tokens_per_image: rows of one picture.
    """

    def __init__(
        self,
        words: Floats,
        ids: VirtualIds,
        bos_token_id: int,
        num_slots: int,
        tokens_per_image: int,
    ) -> None:
        self.words = words
        self._ids = ids
        self._bos_token_id = bos_token_id
        self._tokens_per_image = tokens_per_image
        self.bank: Floats = np.zeros((num_slots * tokens_per_image, words.shape[1]), np.float32)

    def write(self, slot: int, features: Floats) -> None:
        """Put a picture into a slot.

        Args:
            slot: which.
            features: (tokens, hidden).
        """
        start = slot * self._tokens_per_image
        self.bank[start : start + self._tokens_per_image] = features

    def fill_rows(self, token_ids: Sequence[int], rows: Floats) -> None:
        """Write the rows of some ids, of one request or of several.

        Args:
            token_ids: words', aliases and pictures'.
            rows: takes them, (tokens, hidden).
        """
        if max(token_ids) < len(self.words):
            # Answers are nothing but words, a few rows each step.
            np.take(self.words, token_ids, 0, rows, "clip")
            return
        ids = np.asarray(token_ids)
        word_ids = np.where(ids < len(self.words), ids, self._bos_token_id)
        np.take(self.words, word_ids, 0, rows, "clip")
        is_image = ids >= self._ids.first_image_id
        rows[is_image] = self.bank[(ids[is_image] - self._ids.first_image_id) % len(self.bank)]
