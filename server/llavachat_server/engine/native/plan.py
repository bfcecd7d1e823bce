"""What the kernels are told: sizes, arrays, and which rows belong to whom.

Both sides read it: the kernels, which are compiled in processes of their own, and the server,
which never imports what compiles.
"""

from typing import Any, NamedTuple

LANES = 16
"""Floats in a vector, and outputs in a panel of weights."""

TILE_WIDTH = 2 * LANES
"""Elements of a tile's row: two panels have room in it, however many a product computes."""

MOST_TILE_ROWS = 12
"""See `products.MAX_TILE_ROWS`."""

TILE = MOST_TILE_ROWS * TILE_WIDTH
"""Elements of a product's result, and room for it in scratch."""

STRIDE = 16
"""Elements of int64 between two phases' counters: two cache lines, so that threads in
different phases do not disturb each other."""

PHASES_PER_LAYER = 5
PHASES_AROUND = 1
"""See `kernels.run_step`."""

TOWER_PHASES_PER_LAYER = 7
TOWER_PHASES_AROUND = 4
"""See `encoding.run_tower`: two before the layers, two after them."""

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


class TowerSizes(NamedTuple):
    """Counts; those that `attending.attend` knows are named as in `Sizes`."""

    num_layers: int
    num_rows: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    """The same."""
    head_dim: int
    inner: int
    """Width of the MLP."""
    patch: int
    """Numbers of a patch, channels and all."""
    first_projected: int
    """The row that the projector begins with."""
    projected: int
    """Width of the projector's outputs, and between its two layers."""
    is_quick: int
    """1: the layers' GELU is the quick approximation; see `encoding`."""
    block_tokens: int
    num_slots: int
    """One block: all rows, up to whole panels."""
    num_threads: int
    """That share a picture at most."""


class TowerBuffers(NamedTuple):
    """float32 arrays of one dimension; `weights` and `vectors` are only read."""

    weights: Any
    """Panels, in the order of use."""
    vectors: Any
    """Positions of the patches, norms and biases, in the order of use."""
    patches: Any
    """(rows - 1, patch); the input."""
    hidden: Any
    """(rows, hidden); the first one, the class token's, is an input as well."""
    middle: Any
    normed: Any
    query: Any
    cache: Any
    """Keys and values of one layer, see `Buffers`."""
    mixed: Any
    gated: Any
    bent: Any
    """(rows, projected)"""
    features: Any
    """(rows from the first projected one on, projected); the output."""


class TowerReading(NamedTuple):
    """int64 arrays of one dimension: what attention asks of `Step`."""

    positions: Any
    first_blocks: Any
    tables: Any


def count_tower_scratch(num_rows: int) -> int:
    """Elements of a thread's scratch: a tile, or the scores of a group; see `attend`."""
    return max(TILE, MAX_ATTENDING_ROWS * (num_rows + LANES + 1))


def count_counters(num_phases: int) -> int:
    """Elements of a step's counters, int64, zero at its beginning."""
    return STRIDE * (1 + num_phases)
