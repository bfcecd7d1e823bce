"""Rows of words and pictures by their ids, by torch and without it."""

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.engine.native.embedding import RowTable
from llavachat_server.engine.tensors.embedding import VirtualEmbedding
from llavachat_server.engine.virtual_ids import VirtualIds

WORDS, SLOTS, TOKENS, HIDDEN, BOS = 7, 2, 3, 5, 1
VIRTUAL = VirtualIds(WORDS)


def make_both() -> tuple[VirtualEmbedding, RowTable]:
    """Seven words, and two pictures of three rows in the bank."""
    words = torch.nn.Embedding(WORDS, HIDDEN).requires_grad_(False)
    embedding = VirtualEmbedding(words, VIRTUAL, BOS, SLOTS, TOKENS)
    table = RowTable(words.weight.numpy(), VIRTUAL, BOS, SLOTS, TOKENS)
    for slot in range(SLOTS):
        features = torch.randn(TOKENS, HIDDEN)
        embedding.write(slot, features)
        table.write(slot, features.numpy())
    return embedding, table


EMBEDDING, TABLE = make_both()
IDS = st.one_of(
    st.integers(0, WORDS - 1),
    st.integers(VIRTUAL.first_alias_id, VIRTUAL.first_image_id - 1),
    # Numbers of pictures go on growing, and a slot is found by the remainder.
    st.integers(VIRTUAL.first_image_id, VIRTUAL.first_image_id + 10**6),
)


def look_up(token_id: int) -> Any:
    """What an id stands for, by the module's own words."""
    if token_id < WORDS:
        return EMBEDDING.weight[token_id]
    if token_id < VIRTUAL.first_image_id:
        return EMBEDDING.weight[BOS]
    return EMBEDDING.bank[(token_id - VIRTUAL.first_image_id) % (SLOTS * TOKENS)]


@given(st.lists(IDS, min_size=1, max_size=20))
def test_every_id_is_its_row(token_ids: list[int]) -> None:
    """A word, a beginning or a picture's row, in any order, whoever looks it up."""
    expected = torch.stack([look_up(token_id) for token_id in token_ids])
    rows = np.full((len(token_ids), HIDDEN), np.nan, np.float32)

    TABLE.fill_rows(token_ids, rows)

    assert torch.equal(expected, torch.from_numpy(rows))
    assert torch.equal(expected, EMBEDDING(torch.tensor(token_ids).unsqueeze(0))[0])
