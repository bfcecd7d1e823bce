"""How large the cache is, and making it where it fits."""

import os

import torch

from llavachat_server.engine.batching.attention import MAX_PIECES, PieceAttention, Shape
from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.paged import PagedAttention


def count_token_bytes(shape: Shape, dtype: torch.dtype) -> int:
    """Bytes of one token's keys and values in all layers."""
    return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * dtype.itemsize


def count_free_bytes(device: torch.device) -> int:
    """Memory that a cache could take: free on a GPU, built in on a CPU."""
    if device.type == "cuda":
        # What torch keeps of memory that was freed, after quantising or of an earlier cache, is
        # not free to the driver.
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def size_cache(
    cache_tokens: int | None, fraction: float, *, free_bytes: int, token_bytes: int, block: int
) -> int:
    """Blocks of a cache.

    Args:
        cache_tokens: room that was asked for; None for what `fraction` leaves.
        fraction: of `free_bytes` at most.
        free_bytes: see `count_free_bytes`.
        token_bytes: see `count_token_bytes`.
        block: tokens of a block.

    Raises:
        MemoryError: what was asked for does not fit, or nothing does.
    """
    most = int(free_bytes * fraction) // (token_bytes * block)
    num_blocks = most if cache_tokens is None else -(-cache_tokens // block)
    if not 1 <= num_blocks <= most:
        raise MemoryError(f"a cache of {num_blocks} blocks was asked for, {most} fit")
    return num_blocks


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
