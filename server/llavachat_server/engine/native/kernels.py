"""A step of all layers as one compiled function that several threads run together.

Flat rows: each has a position, a slot of the cache for its key and value, and a request whose
blocks it reads. A row's result depends on nothing but the row and its request's cache, to the
last bit, so that no answer depends on its neighbours or on how a prompt was cut into chunks.
"""

from typing import Any, NamedTuple

from numba import config, njit

from llavachat_server.engine.native.sharing import (
    await_all,
    close,
    enter,
    finish,
    leave,
    take,
)
from llavachat_server.engine.native.vectors import (
    LANES,
    MAX_TILE_ROWS,
    add,
    divide,
    exponentiate,
    find_largest,
    fuse,
    load,
    multiply,
    multiply_tile,
    spread,
    store,
    subtract,
    sum_up,
    swap_pairs,
    take_larger,
)

PHASES_PER_LAYER = 5
_TILE = MAX_TILE_ROWS * LANES


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
    num_slots: int
    """Of the cache, in one layer."""


class Buffers(NamedTuple):
    """float32 arrays of one dimension; `weights`, `cosines` and `sines` are only read."""

    weights: Any
    cosines: Any
    sines: Any
    """(positions, head_dim), the first of each pair negated."""
    cache: Any
    """(layers, 2 * kv_heads, slots, head_dim)"""
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


@njit(nogil=True)
def _measure_rows(rows: Any, num_rows: int, width: int, floor: Any, scratch: Any) -> None:
    # RMSNorm's factor of each row; its weights lie in the matrix that follows.
    for row in range(num_rows):
        total = spread(0.0)
        for index in range(row * width, (row + 1) * width, LANES):
            values = load(rows, index)
            total = fuse(values, values, total)
        scratch[2 * _TILE + row] = (sum_up(total) / width + floor) ** -0.5


@njit(nogil=True)
def _project(
    sizes: Any, buffers: Any, step: Any, layer: int, start: int, panel: int, scratch: Any
) -> None:
    # 16 outputs of query, key or value: turned by RoPE, and put where attention reads them.
    dim, width = sizes.head_dim, sizes.hidden
    num_rows = len(step.positions)
    column = panel * LANES
    head, place = column // dim, column % dim
    is_turned = head < sizes.num_heads + sizes.num_kv_heads
    stored = layer * 2 * sizes.num_kv_heads + head - sizes.num_heads
    scale = dim**-0.5
    first = 0
    while first < num_rows:
        count = min(MAX_TILE_ROWS, num_rows - first)
        multiply_tile(
            buffers.hidden, first * width, count, width, buffers.weights, start, scratch, 0
        )
        for index in range(count):
            row = first + index
            factor = scratch[2 * _TILE + row]
            if head < sizes.num_heads:
                factor *= scale
            values = multiply(load(scratch, index * LANES), spread(factor))
            if is_turned:
                angle = step.positions[row] * dim + place
                turned = multiply(swap_pairs(values), load(buffers.sines, angle))
                values = fuse(values, load(buffers.cosines, angle), turned)
            if head < sizes.num_heads:
                store(buffers.query, row * sizes.num_heads * dim + column, values)
            else:
                slot = stored * sizes.num_slots + step.slots[row]
                store(buffers.cache, slot * dim + place, values)
        first += count


@njit(nogil=True)
def _attend(
    sizes: Any, buffers: Any, step: Any, layer: int, row: int, output: int, head: int, scratch: Any
) -> None:
    # One head of one row over its request's blocks, read where they lie.
    dim, size = sizes.head_dim, sizes.block_tokens
    length = step.positions[row] + 1
    table = step.first_blocks[row]
    kv_head = head // (sizes.num_heads // sizes.num_kv_heads)
    keys = (layer * 2 * sizes.num_kv_heads + kv_head) * sizes.num_slots
    values = keys + sizes.num_kv_heads * sizes.num_slots
    query = (row * sizes.num_heads + head) * dim
    for first in range(0, length, size):
        slot = (keys + step.tables[table + first // size] * size) * dim
        for index in range(first, min(first + size, length)):
            total = multiply(load(buffers.query, query), load(buffers.cache, slot))
            for place in range(LANES, dim, LANES):
                total = fuse(
                    load(buffers.query, query + place), load(buffers.cache, slot + place), total
                )
            scratch[index] = sum_up(total)
            slot += dim
    padded = (length + LANES - 1) // LANES * LANES
    for index in range(length, padded):
        scratch[index] = -1e30
    largest = load(scratch, 0)
    for index in range(LANES, padded, LANES):
        largest = take_larger(largest, load(scratch, index))
    largest = spread(find_largest(largest))
    total = spread(0.0)
    for index in range(0, padded, LANES):
        shares = exponentiate(subtract(load(scratch, index), largest))
        store(scratch, index, shares)
        total = add(total, shares)
    # What was only padding must not weigh: e to the -87 times at most 15 is nothing.
    factor = spread(1.0 / sum_up(total))
    place = 0
    target = (output * sizes.num_heads + head) * dim
    while place < dim:
        if place + 4 * LANES <= dim:
            one, two, three, four = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            for first in range(0, length, size):
                slot = (values + step.tables[table + first // size] * size) * dim + place
                for index in range(first, min(first + size, length)):
                    share = spread(scratch[index])
                    one = fuse(share, load(buffers.cache, slot), one)
                    two = fuse(share, load(buffers.cache, slot + LANES), two)
                    three = fuse(share, load(buffers.cache, slot + 2 * LANES), three)
                    four = fuse(share, load(buffers.cache, slot + 3 * LANES), four)
                    slot += dim
            store(buffers.mixed, target + place, multiply(one, factor))
            store(buffers.mixed, target + place + LANES, multiply(two, factor))
            store(buffers.mixed, target + place + 2 * LANES, multiply(three, factor))
            store(buffers.mixed, target + place + 3 * LANES, multiply(four, factor))
            place += 4 * LANES
        else:
            one = spread(0.0)
            for first in range(0, length, size):
                slot = (values + step.tables[table + first // size] * size) * dim + place
                for index in range(first, min(first + size, length)):
                    one = fuse(spread(scratch[index]), load(buffers.cache, slot), one)
                    slot += dim
            store(buffers.mixed, target + place, multiply(one, factor))
            place += LANES


@njit(nogil=True)
def _add_product(
    rows: Any, width: int, weights: Any, start: int, residual: Any, sources: Any,
    output: Any, hidden: int, num_rows: int, panel: int, scratch: Any,
) -> None:  # fmt: skip
    # output = rows @ panel + residual, whose rows are `sources`, or the same where it is empty.
    first = 0
    while first < num_rows:
        count = min(MAX_TILE_ROWS, num_rows - first)
        multiply_tile(rows, first * width, count, width, weights, start, scratch, 0)
        for index in range(count):
            row = first + index
            source = sources[row] if len(sources) else row
            values = load(residual, source * hidden + panel * LANES)
            values = add(load(scratch, index * LANES), values)
            store(output, row * hidden + panel * LANES, values)
        first += count


@njit(nogil=True)
def _gate(sizes: Any, buffers: Any, num_rows: int, start: int, panel: int, scratch: Any) -> None:
    # 16 outputs of SiLU(gate) * up.
    width = sizes.hidden
    first = 0
    while first < num_rows:
        count = min(MAX_TILE_ROWS, num_rows - first)
        rows, up = first * width, start + width * LANES
        multiply_tile(buffers.middle, rows, count, width, buffers.weights, start, scratch, 0)
        multiply_tile(buffers.middle, rows, count, width, buffers.weights, up, scratch, _TILE)
        for index in range(count):
            row = first + index
            factor = spread(scratch[2 * _TILE + row])
            gate = multiply(load(scratch, index * LANES), factor)
            rest = multiply(load(scratch, _TILE + index * LANES), factor)
            decay = add(exponentiate(subtract(spread(0.0), gate)), spread(1.0))
            place = row * sizes.inner + panel * LANES
            store(buffers.gated, place, divide(multiply(gate, rest), decay))
        first += count


@njit(nogil=True)
def _score(sizes: Any, buffers: Any, num_rows: int, start: int, panel: int, scratch: Any) -> None:
    # 16 logits of each row.
    width, first = sizes.hidden, 0
    while first < num_rows:
        count = min(MAX_TILE_ROWS, num_rows - first)
        multiply_tile(
            buffers.hidden, first * width, count, width, buffers.weights, start, scratch, 0
        )
        for index in range(count):
            row = first + index
            values = multiply(load(scratch, index * LANES), spread(scratch[2 * _TILE + row]))
            store(buffers.logits, row * sizes.vocabulary + panel * LANES, values)
        first += count


@njit(nogil=True, cache=bool(config.CACHE_DIR))  # see `native.keep_compiled`
def run_step(
    sizes: Any, buffers: Any, step: Any, floor: Any, counters: Any, scratch: Any, is_helper: bool
) -> None:
    """Take part in a step; the thread that begins it returns when it is done.

    Args:
        sizes: `Sizes`.
        buffers: `Buffers`.
        step: `Step`.
        floor: RMSNorm's epsilon.
        counters: see `sharing`; of this step alone.
        scratch: float32, of this thread alone; see `count_scratch`.
        is_helper: another thread began the step.
    """
    if is_helper and not enter(counters):
        return
    hidden, dim = sizes.hidden, sizes.head_dim
    everyone = step.wanted[:0]
    num_rows, start, phase = len(step.positions), 0, 0
    width = sizes.num_heads * dim
    for layer in range(sizes.num_layers):
        _measure_rows(buffers.hidden, num_rows, hidden, floor, scratch)
        num_units = (width + 2 * sizes.num_kv_heads * dim) // LANES
        unit = take(counters, phase)
        while unit < num_units:
            _project(sizes, buffers, step, layer, start + unit * hidden * LANES, unit, scratch)
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_units * hidden * LANES
        phase += 1

        # After the last layer's keys and values only the wanted rows go on.
        sources = step.wanted if layer == sizes.num_layers - 1 else everyone
        if layer == sizes.num_layers - 1:
            num_rows = len(step.wanted)
        num_units = num_rows * sizes.num_heads
        unit = take(counters, phase)
        while unit < num_units:
            output = unit // sizes.num_heads
            row = sources[output] if len(sources) else output
            _attend(sizes, buffers, step, layer, row, output, unit % sizes.num_heads, scratch)
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        phase += 1

        num_units = hidden // LANES
        unit = take(counters, phase)
        while unit < num_units:
            _add_product(
                buffers.mixed, width, buffers.weights, start + unit * width * LANES,
                buffers.hidden, sources, buffers.middle, hidden, num_rows, unit, scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_units * width * LANES
        phase += 1

        _measure_rows(buffers.middle, num_rows, hidden, floor, scratch)
        num_units = sizes.inner // LANES
        unit = take(counters, phase)
        while unit < num_units:
            _gate(sizes, buffers, num_rows, start + unit * 2 * hidden * LANES, unit, scratch)
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_units * 2 * hidden * LANES
        phase += 1

        num_units = hidden // LANES
        unit = take(counters, phase)
        while unit < num_units:
            _add_product(
                buffers.gated, sizes.inner, buffers.weights, start + unit * sizes.inner * LANES,
                buffers.middle, everyone, buffers.hidden, hidden, num_rows, unit, scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_units * sizes.inner * LANES
        phase += 1

    _measure_rows(buffers.hidden, num_rows, hidden, floor, scratch)
    num_units = sizes.vocabulary // LANES
    unit = take(counters, phase)
    while unit < num_units:
        _score(sizes, buffers, num_rows, start + unit * hidden * LANES, unit, scratch)
        finish(counters, phase)
        unit = take(counters, phase)
    await_all(counters, phase, num_units)
    if is_helper:
        leave(counters)
    else:
        close(counters)


def count_scratch(num_rows: int, num_positions: int) -> int:
    """Elements of a thread's scratch: two tiles and a factor a row, or a score a position."""
    return max(2 * _TILE + num_rows, num_positions + LANES)
