"""How large a cache is. Pure but for one look at the machine's memory."""

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of a model's shape that a cache must know."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int


def read_shape(config: Any) -> Shape:
    """The shape of a Llama or Llava model's decoder.

    Args:
        config: ours or transformers', whose fields have the same names.
    """
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        num_layers=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        num_kv_heads=text.num_key_value_heads,
        head_dim=head_dim,
    )


def count_token_bytes(shape: Shape, element_bytes: int) -> int:
    """Bytes of one token's keys and values in all layers."""
    return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * element_bytes


def count_built_in_bytes() -> int:
    """The machine's memory, which a cache on a CPU could take."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def size_cache(
    cache_tokens: int | None, fraction: float, *, free_bytes: int, token_bytes: int, block: int
) -> int:
    """Blocks of a cache.

    Args:
        cache_tokens: room that was asked for; None for what `fraction` leaves.
        fraction: of `free_bytes` at most.
        free_bytes: memory that a cache could take.
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
