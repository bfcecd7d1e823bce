"""The store that fits a device, and how much room there is on it."""

import torch

from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.sizing import Shape, count_built_in_bytes
from llavachat_server.engine.tensors.attention import MAX_PIECES, PieceAttention
from llavachat_server.engine.tensors.paged import PagedAttention


def count_free_bytes(device: torch.device) -> int:
    """Memory that a cache could take: free on a GPU, built in on a CPU."""
    if device.type == "cuda":
        # What torch keeps of memory that was freed, after quantising or of an earlier cache, is
        # not free to the driver.
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return count_built_in_bytes()


def make_cache(
    kind: str,
    shape: Shape,
    num_blocks: int,
    block_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    exact: bool = False,
) -> tuple[PieceAttention | PagedAttention, BlockPool]:
    """A store, and the books for its blocks.

    Args:
        kind: "paged" or "pieces", see `Placement.attention`.
        shape: of the model.
        num_blocks: see `size_cache`.
        block_tokens: tokens of a block.
        dtype: of keys and values.
        device: where they lie.
        exact: results do not depend on where blocks lie, see `exact`.
    """
    pool = BlockPool(num_blocks, block_tokens)
    if kind == "paged":
        # Its kernel goes through the table of pages, wherever they are.
        return PagedAttention(shape, num_blocks, dtype, device, block_tokens), pool
    max_pieces = 0 if exact else MAX_PIECES
    attention = PieceAttention(
        shape, num_blocks, dtype, device, block_tokens, max_pieces=max_pieces
    )
    return attention, pool
