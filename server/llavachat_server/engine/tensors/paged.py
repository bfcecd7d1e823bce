"""The cache on a GPU: pages that FlashAttention reads through a block table.

torch carries the kernel (``varlen_attn`` with a block table), so nothing else is installed.
A step's indices are a `Pages` value; a recorded graph has a fixed one whose tensors are
written anew before each replay.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llavachat_server.engine.batching.sizing import Shape
from llavachat_server.engine.tensors.attention import Rows


@dataclass(frozen=True, slots=True)
class Pages:
    """Where a step's tokens go and what they read.

    Args:
        slots: (tokens,), int64; where each key and value is stored.
        row_ends: (requests + 1,), int32; the cumulated numbers of rows, 0 first.
        lengths: (requests,), int32; tokens in the cache, this step's included.
        blocks: (requests, blocks), int32; padded with any valid block.
        max_rows: of one request.
        max_length: of one request.
    """

    slots: Tensor
    row_ends: Tensor
    lengths: Tensor
    blocks: Tensor
    max_rows: int
    max_length: int


_TAKEN = {"window_size", "enable_gqa", "seqused_k", "block_table", "num_splits"}
"""What `PagedAttention` names to the kernel. torch 2.9 has none, that of 2.10 and 2.11 reads no
pages. Source: their documentation of ``torch.nn.attention.varlen``."""


def has_paged_kernel() -> bool:
    """Whether this torch's kernel takes a block table."""
    try:
        # It brings torch's compiler and sympy along, a second's import that no processor needs.
        from torch.nn.attention import varlen
    except ImportError:
        return False
    return inspect.signature(varlen.varlen_attn).parameters.keys() >= _TAKEN


def list_slots(rows: Rows, block_tokens: int) -> list[int]:
    """The slot of each row."""
    positions = range(rows.start, rows.start + rows.num_rows)
    return [rows.blocks[p // block_tokens] * block_tokens + p % block_tokens for p in positions]


def build_pages(batch: Sequence[Rows], block_tokens: int, device: torch.device) -> Pages:
    """The indices of a step."""
    lengths = [rows.start + rows.num_rows for rows in batch]
    counts = [-(-length // block_tokens) for length in lengths]
    width = max(counts)
    table = [
        [*rows.blocks[:count], *[rows.blocks[0]] * (width - count)]
        for rows, count in zip(batch, counts, strict=True)
    ]
    ends = [0]
    for rows in batch:
        ends.append(ends[-1] + rows.num_rows)
    slots = [slot for rows in batch for slot in list_slots(rows, block_tokens)]
    return Pages(
        slots=torch.tensor(slots, device=device),
        row_ends=torch.tensor(ends, dtype=torch.int32, device=device),
        lengths=torch.tensor(lengths, dtype=torch.int32, device=device),
        blocks=torch.tensor(table, dtype=torch.int32, device=device),
        max_rows=max(rows.num_rows for rows in batch),
        max_length=max(lengths),
    )


class PagedAttention:
    """See `attention.Attention`.

    Args:
        shape: of the model.
        num_blocks: of the cache; one more is made, for the padding of recorded graphs.
        dtype: of keys and values, 16 bits.
        device: a GPU.
        block_tokens: tokens of a block, a multiple of 256.
    """

    def __init__(
        self,
        shape: Shape,
        num_blocks: int,
        dtype: torch.dtype,
        device: torch.device,
        block_tokens: int,
    ) -> None:
        self.block_tokens = block_tokens
        self.spare_block = num_blocks
        from torch.nn.attention.varlen import varlen_attn  # see `has_paged_kernel`

        self._attend = varlen_attn
        self._num_kv_heads = shape.num_kv_heads
        self._is_grouped = shape.num_heads != shape.num_kv_heads
        self._device = device
        size = (2, num_blocks + 1, block_tokens, shape.num_kv_heads, shape.head_dim)
        self._stores = [
            torch.empty(size, dtype=dtype, device=device) for _ in range(shape.num_layers)
        ]
        self._pages: Pages

    def begin(self, batch: Sequence[Rows]) -> None:
        """See `attention.Attention`."""
        self.use_pages(build_pages(batch, self.block_tokens, self._device))

    def use_pages(self, pages: Pages) -> None:
        """Take a step's indices as they are."""
        self._pages = pages

    def attend(self, layer: int, query: Tensor, keys_values: Tensor) -> Tensor:
        """See `attention.Attention`."""
        pages, store = self._pages, self._stores[layer]
        heads = self._num_kv_heads
        store[0].flatten(0, 1).index_copy_(0, pages.slots, keys_values[:, :heads])
        store[1].flatten(0, 1).index_copy_(0, pages.slots, keys_values[:, heads:])
        output = self._attend(
            query.contiguous(),
            store[0],
            store[1],
            pages.row_ends,
            # The kernel wants a tensor of this shape and reads `seqused_k` instead.
            pages.row_ends,
            pages.max_rows,
            pages.max_length,
            window_size=(-1, 0),
            enable_gqa=self._is_grouped,
            seqused_k=pages.lengths,
            block_table=pages.blocks,
            # Where keys are split for more parallel work, parts of all requests but the first are
            # joined in the wrong place (pytorch#194167), and sums depend on who else is there.
            num_splits=1,
        )
        assert isinstance(output, Tensor)
        return output.flatten(1)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See `attention.Attention`."""
        for store in self._stores:
            store[:, target, :num_tokens].copy_(store[:, source, :num_tokens])
