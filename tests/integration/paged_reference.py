"""What a GPU does for the paged cache, in plain operations: its kernel, and recorded steps.

So that everything around them (indices, block tables, padding, spare blocks) is run as it is.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from llavachat_server.engine.tensors import graphs
from llavachat_server.engine.tensors.graphs import DecodeGraphs, DrawGraphs
from torch import Tensor


def attend_by_table(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: Tensor,
    block_table: Tensor,
    num_splits: int,
) -> Tensor:
    """`torch.nn.attention.varlen.varlen_attn`, as its documentation has it, for causal attention.

    The newest query of each request sees all its keys, the one before it all but the last one.
    """
    assert (-1, 0) == window_size
    assert 1 == num_splits
    assert {torch.int32} == {t.dtype for t in (cu_seq_q, cu_seq_k, seqused_k, block_table)}
    assert cu_seq_q.shape == cu_seq_k.shape == (len(seqused_k) + 1,)
    assert len(block_table) == len(seqused_k)
    assert query.is_contiguous()
    outputs = []
    for number, length in enumerate(seqused_k.tolist()):
        first, end = cu_seq_q[number : number + 2].tolist()
        assert end - first <= max_q
        assert length <= max_k
        keys, values = (
            store[block_table[number].long()].flatten(0, 1)[:length].transpose(0, 1)
            for store in (key, value)
        )  # (kv_heads, length, head_dim)
        mask = torch.ones(end - first, length, dtype=torch.bool).tril(length - (end - first))
        rows = query[first:end].transpose(0, 1)
        mixed = F.scaled_dot_product_attention(
            rows, keys, values, attn_mask=mask, enable_gqa=enable_gqa
        )
        outputs.append(mixed.transpose(0, 1))
    return torch.cat(outputs)


def repeat(compute: Callable[[], Tensor], pool: Any) -> tuple[Any, Tensor]:
    """`graphs.record`, with a computation that is made anew where a graph is replayed."""
    result = compute()
    return SimpleNamespace(replay=lambda: result.copy_(compute()), pool=lambda: pool), result


class RepeatedSteps(DecodeGraphs):
    """Steps by `repeat`."""

    def record(self) -> None:
        """See `DecodeGraphs.record`."""
        with patch.object(graphs, "record", repeat):
            super().record()


class RepeatedDraws(DrawGraphs):
    """Draws by `repeat`."""

    def record(self) -> None:
        """See `DrawGraphs.record`."""
        with patch.object(graphs, "record", repeat):
            super().record()
