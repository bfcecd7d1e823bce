"""The model's input embedding, widened by virtual ids.

Ids below the vocabulary are words. From `first_alias_id` on, ids are aliases of the
beginning-of-sequence token: one for each tenant, so that tenants never share a cached prefix.
From `first_image_id` on, ids stand for rows of picture features.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MAX_ALIASES = 2**20
"""Tenants that one engine can tell apart."""


class VirtualEmbedding(nn.Module):
    """Looks words up in the model's own table and pictures up in a bank beside it.

    Args:
        words: the model's embedding, (vocabulary, hidden).
        bos_token_id: the word that aliases stand for.
        num_slots: pictures that the bank holds.
        tokens_per_image: rows of one picture.
    """

    bank: Tensor

    def __init__(
        self, words: nn.Module, bos_token_id: int, num_slots: int, tokens_per_image: int
    ) -> None:
        super().__init__()
        weight = words.weight
        if not isinstance(weight, Tensor):
            raise TypeError("the model's input embedding has no weight")
        self.words = words
        self.vocab_size = int(weight.shape[0])
        self.first_alias_id = self.vocab_size
        self.first_image_id = self.vocab_size + MAX_ALIASES
        self._bos_token_id = bos_token_id
        self._tokens_per_image = tokens_per_image
        rows = torch.zeros(
            num_slots * tokens_per_image, weight.shape[1], dtype=weight.dtype, device=weight.device
        )  # (slots * tokens, hidden)
        self.register_buffer("bank", rows, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The table of words, for code that looks at an embedding's size or type."""
        weight = self.words.weight
        assert isinstance(weight, Tensor)
        return weight

    def write(self, slot: int, features: Tensor) -> None:
        """Put a picture into a slot, and wait until it is there.

        Args:
            slot: which.
            features: (tokens, hidden).
        """
        start = slot * self._tokens_per_image
        self.bank[start : start + self._tokens_per_image].copy_(features)
        if self.bank.is_cuda:
            torch.cuda.current_stream().synchronize()

    def forward(self, token_ids: Tensor) -> Tensor:
        """(batch, tokens) ids to (batch, tokens, hidden) embeddings."""
        word_ids = torch.where(token_ids < self.vocab_size, token_ids, self._bos_token_id)
        embeddings: Tensor = self.words(word_ids)
        is_image = token_ids >= self.first_image_id
        # On a GPU, asking would make the host wait.
        if not token_ids.is_cuda and not bool(is_image.any()):
            return embeddings
        rows = (token_ids - self.first_image_id).clamp(min=0) % self.bank.shape[0]
        return torch.where(is_image.unsqueeze(-1), self.bank[rows], embeddings)

    def fill_rows(self, token_ids: Sequence[int], rows: NDArray[np.float32]) -> None:
        """What `forward` returns for float32 on a CPU, in a fifth of the time.

        Args:
            token_ids: of one request or of several.
            rows: takes their embeddings, (tokens, hidden).
        """
        ids = np.asarray(token_ids)
        words, bank = self.weight.detach().numpy(), self.bank.numpy()
        np.take(words, np.where(ids < self.vocab_size, ids, self._bos_token_id), 0, rows, "clip")
        is_image = ids >= self.first_image_id
        rows[is_image] = bank[(ids[is_image] - self.first_image_id) % len(bank)]
