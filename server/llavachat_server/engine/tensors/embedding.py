"""The model's input embedding, widened by virtual ids; see `virtual_ids`."""

import torch
from torch import Tensor, nn

from llavachat_server.engine.virtual_ids import VirtualIds


class VirtualEmbedding(nn.Module):
    """Looks words up in the model's own table and pictures up in a bank beside it.

    Args:
        words: the model's embedding, (vocabulary, hidden).
        ids: which ids are whose.
        bos_token_id: the word that aliases stand for.
        num_slots: pictures that the bank holds.
        tokens_per_image: rows of one picture.
    """

    bank: Tensor

    def __init__(
        self,
        words: nn.Module,
        ids: VirtualIds,
        bos_token_id: int,
        num_slots: int,
        tokens_per_image: int,
    ) -> None:
        super().__init__()
        weight = words.weight
        if not isinstance(weight, Tensor):
            raise TypeError("the model's input embedding has no weight")
        self.words = words
        self._ids = ids
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
        word_ids = torch.where(token_ids < self._ids.vocab_size, token_ids, self._bos_token_id)
        embeddings: Tensor = self.words(word_ids)
        is_image = token_ids >= self._ids.first_image_id
        # On a GPU, asking would make the host wait.
        if not token_ids.is_cuda and not bool(is_image.any()):
            return embeddings
        rows = (token_ids - self._ids.first_image_id).clamp(min=0) % self.bank.shape[0]
        return torch.where(is_image.unsqueeze(-1), self.bank[rows], embeddings)
