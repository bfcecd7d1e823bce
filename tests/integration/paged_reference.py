"""What a GPU does for the paged cache, in plain operations: its kernel, and recorded steps.

So that everything around them (indices, block tables, padding, spare blocks) is run as it is.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from llavachat_server.engine.tensors.graphs import DecodeGraphs
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


class RepeatedSteps(DecodeGraphs):
    """Steps that are computed anew where a graph is replayed, into the same tensor."""

    @torch.inference_mode()
    def record(self) -> None:
        """See `DecodeGraphs.record`."""
        for size in reversed(self._sizes):
            logits = self._compute(size)
            graph: Any = SimpleNamespace(replay=partial(self._replay, size, logits))
            self._graphs[size] = (graph, logits)

    def _replay(self, size: int, logits: Tensor) -> None:
        logits.copy_(self._compute(size))
