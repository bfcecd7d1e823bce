"""What a step is told: sizes, arrays, and which rows belong to whom."""

from typing import Any, NamedTuple

from llavachat_server.engine.native.products import MAX_TILE_ROWS, TILE_WIDTH
from llavachat_server.engine.native.vectors import LANES

PHASES_PER_LAYER = 5
"""See `kernels.run_step`."""

TILE = MAX_TILE_ROWS * TILE_WIDTH
"""Elements of a product's result."""

MAX_ATTENDING_ROWS = 24
"""Rows of a prompt that read one head's keys and values together."""


class Sizes(NamedTuple):
    """What does not change between steps; counts of elements unless said otherwise."""

    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    inner: int
    """Width of the MLP."""
    vocabulary: int
    """Padded to whole panels."""
    block_tokens: int
    """Whole panels."""
    num_slots: int
    """Of the cache, in one layer."""
    num_threads: int
    """That share a step."""


class Buffers(NamedTuple):
    """float32 arrays of one dimension; `weights`, `cosines` and `sines` are only read."""

    weights: Any
    cosines: Any
    sines: Any
    """(positions, head_dim), the first of each pair negated."""
    cache: Any
    """(layers, 2 * kv_heads, slots, head_dim), keys first; every 16 slots of keys are a panel,
    (head_dim, 16)."""
    hidden: Any
    """(rows, hidden); the input, and at the end the wanted rows."""
    middle: Any
    query: Any
    mixed: Any
    gated: Any
    logits: Any
    """(wanted rows, vocabulary)"""


class Step(NamedTuple):
    """int64 arrays of one dimension: one step's rows."""

    positions: Any
    slots: Any
    first_blocks: Any
    """Where in `tables` the row's request begins."""
    tables: Any
    """The blocks of all requests, in order of their tokens."""
    wanted: Any
    """The rows that logits are for."""
    groups: Any
    """Pairs: a first row, and how many from there on attend together. They are one request's,
    and at most `MAX_ATTENDING_ROWS`."""


def count_scratch(num_rows: int, num_positions: int) -> int:
    """Elements of a thread's scratch: a tile and a factor a row, or the scores of a group."""
    scores = MAX_ATTENDING_ROWS * (num_positions + LANES + 1)
    return max(TILE + num_rows, scores)
