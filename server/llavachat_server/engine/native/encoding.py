"""A CLIP vision tower and LLaVA's projector as one compiled function that threads run together.

Rows are one picture's patches, the class token first. Attention is the decoder's own, told that
every row has come last: so each reads all the others.
"""

from typing import Any, NamedTuple

from numba import config, njit

from llavachat_server.engine.native.attending import attend
from llavachat_server.engine.native.linear import transform_rows
from llavachat_server.engine.native.plan import MAX_ATTENDING_ROWS, TILE
from llavachat_server.engine.native.products import (
    MAX_TILE_ROWS,
    TILE_PANELS,
    TILE_WIDTH,
    count_tile_rows,
    count_units,
    multiply_tile,
    plan_ahead,
)
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
    add,
    divide,
    exponentiate,
    fuse,
    load,
    multiply,
    spread,
    store,
    subtract,
    sum_up,
)

PHASES_PER_LAYER = 7
PHASES_AROUND = 4
"""See `run_tower`: two before the layers, two after them."""


class TowerSizes(NamedTuple):
    """Counts; those that `attending.attend` knows are named as in `plan.Sizes`."""

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
    """Keys and values of one layer, see `plan.Buffers`."""
    mixed: Any
    gated: Any
    bent: Any
    """(rows, projected)"""
    features: Any
    """(rows from the first projected one on, projected); the output."""


class TowerReading(NamedTuple):
    """int64 arrays of one dimension: what attention asks of `plan.Step`."""

    positions: Any
    first_blocks: Any
    tables: Any


@njit(nogil=True)
def _normalise(
    rows: Any, first: int, count: int, width: int, vectors: Any, start: int, floor: Any,
    target: Any,
) -> None:  # fmt: skip
    # LayerNorm of some rows; its weights and then its biases are at `start`.
    for row in range(first, first + count):
        begin = row * width
        total = spread(0.0)
        for index in range(begin, begin + width, LANES):
            total = add(total, load(rows, index))
        mean = spread(sum_up(total) / width)
        total = spread(0.0)
        for index in range(begin, begin + width, LANES):
            values = subtract(load(rows, index), mean)
            total = fuse(values, values, total)
        factor = spread((sum_up(total) / width + floor) ** -0.5)
        for index in range(0, width, LANES):
            values = multiply(subtract(load(rows, begin + index), mean), factor)
            bias = load(vectors, start + width + index)
            store(target, begin + index, fuse(values, load(vectors, start + index), bias))


@njit(nogil=True)
def _project(
    sizes: Any, buffers: Any, start: int, biases: int, panel: int, num_panels: int, scale: Any,
    scratch: Any,
) -> None:  # fmt: skip
    # The outputs of neighbouring panels, each 16 of query, key or value, put where attention
    # reads them.
    dim, width, heads = sizes.head_dim, sizes.hidden, sizes.num_heads
    ahead = start + sizes.num_threads * TILE_PANELS * width * LANES
    ahead_step = plan_ahead(sizes.num_rows)
    first = 0
    while first < sizes.num_rows:
        count = count_tile_rows(sizes.num_rows - first)
        multiply_tile(
            buffers.normed, first * width, count, width, buffers.weights, start, num_panels,
            scratch, 0, ahead, ahead_step,
        )  # fmt: skip
        ahead += width * ahead_step
        for number in range(num_panels):
            column = (panel + number) * LANES
            head, within = column // dim, column % dim
            base = (head - heads) * sizes.num_slots
            bias = load(buffers.vectors, biases + column)
            for index in range(count):
                row, place = first + index, index * TILE_WIDTH + number * LANES
                values = add(load(scratch, place), bias)
                if head < heads:
                    store(buffers.query, row * width + column, multiply(values, spread(scale)))
                elif head < 2 * heads:
                    # Keys of sixteen rows are a panel; see `attending`.
                    store(scratch, place, values)
                    target = (base + row - row % LANES) * dim + within * LANES + row % LANES
                    for lane in range(LANES):
                        buffers.cache[target + lane * LANES] = scratch[place + lane]
                else:
                    store(buffers.cache, (base + row) * dim + within, values)
        first += count


@njit(nogil=True)
def _add_product(
    sizes: Any, rows: Any, width: int, buffers: Any, start: int, biases: int, residual: Any,
    output: Any, panel: int, num_panels: int, scratch: Any,
) -> None:  # fmt: skip
    # output = rows @ panels + bias + residual
    ahead = start + sizes.num_threads * TILE_PANELS * width * LANES
    ahead_step = plan_ahead(sizes.num_rows)
    first = 0
    while first < sizes.num_rows:
        count = count_tile_rows(sizes.num_rows - first)
        multiply_tile(
            rows, first * width, count, width, buffers.weights, start, num_panels, scratch, 0,
            ahead, ahead_step,
        )  # fmt: skip
        ahead += width * ahead_step
        for index in range(count):
            for number in range(num_panels):
                column = (panel + number) * LANES
                place = (first + index) * sizes.hidden + column
                bias = load(buffers.vectors, biases + column)
                values = add(load(scratch, index * TILE_WIDTH + number * LANES), bias)
                store(output, place, add(values, load(residual, place)))
        first += count


@njit(nogil=True)
def _activate(
    sizes: Any, buffers: Any, start: int, biases: int, panel: int, num_panels: int, scratch: Any
) -> None:
    # Outputs of the MLP's first half, through x * sigmoid(1.702 x).
    # Source of the factor: "quick_gelu" of the CLIP models.
    width = sizes.hidden
    ahead = start + sizes.num_threads * TILE_PANELS * width * LANES
    ahead_step = plan_ahead(sizes.num_rows)
    first = 0
    while first < sizes.num_rows:
        count = count_tile_rows(sizes.num_rows - first)
        multiply_tile(
            buffers.normed, first * width, count, width, buffers.weights, start, num_panels,
            scratch, 0, ahead, ahead_step,
        )  # fmt: skip
        ahead += width * ahead_step
        for index in range(count):
            for number in range(num_panels):
                column = (panel + number) * LANES
                bias = load(buffers.vectors, biases + column)
                values = add(load(scratch, index * TILE_WIDTH + number * LANES), bias)
                decay = add(exponentiate(multiply(values, spread(-1.702))), spread(1.0))
                target = (first + index) * sizes.inner + column
                store(buffers.gated, target, divide(values, decay))
        first += count


@njit(nogil=True)
def _normalise_all(
    sizes: Any, rows: Any, begin: int, target: Any, buffers: Any, start: int, floor: Any,
    counters: Any, phase: int,
) -> None:  # fmt: skip
    # Rows from `begin` on. A phase of its own: each product needs all columns of a row.
    num_units = (sizes.num_rows - begin + MAX_TILE_ROWS - 1) // MAX_TILE_ROWS
    unit = take(counters, phase)
    while unit < num_units:
        first = begin + unit * MAX_TILE_ROWS
        count = min(MAX_TILE_ROWS, sizes.num_rows - first)
        _normalise(rows, first, count, sizes.hidden, buffers.vectors, start, floor, target)
        finish(counters, phase)
        unit = take(counters, phase)
    await_all(counters, phase, num_units)


@njit(nogil=True, cache=bool(config.CACHE_DIR))  # see `native.keep_compiled`
def run_tower(
    sizes: Any, buffers: Any, reading: Any, floor: Any, counters: Any, scratch: Any,
    is_helper: bool,
) -> None:  # fmt: skip
    """Take part in encoding a picture; the thread that begins it returns when it is done.

    Args:
        sizes: `TowerSizes`.
        buffers: `TowerBuffers`.
        reading: `TowerReading`.
        floor: LayerNorm's epsilon.
        counters: see `sharing`; of this picture alone.
        scratch: float32, of this thread alone; see `plan.count_scratch`.
        is_helper: another thread began it.
    """
    if is_helper and not enter(counters):
        return
    hidden, inner, heads = sizes.hidden, sizes.inner, sizes.num_heads
    scale = sizes.head_dim**-0.5
    start, vector, phase = 0, 0, 0

    # The class token's row is there already: no picture changes it.
    num_patches = sizes.num_rows - 1
    transform_rows(
        buffers.patches, num_patches, sizes.patch, buffers.weights, start, buffers.vectors, vector,
        hidden, buffers.middle[hidden:], hidden, sizes.num_threads, False, counters, phase, scratch,
    )  # fmt: skip
    start += hidden * sizes.patch
    vector += num_patches * hidden
    phase += 1
    _normalise_all(
        sizes, buffers.middle, 1, buffers.hidden, buffers, vector, floor, counters, phase
    )
    vector += 2 * hidden
    phase += 1

    for _ in range(sizes.num_layers):
        _normalise_all(
            sizes, buffers.hidden, 0, buffers.normed, buffers, vector, floor, counters, phase
        )
        vector += 2 * hidden
        phase += 1

        num_panels = 3 * hidden // LANES
        num_units = count_units(num_panels)
        unit = take(counters, phase)
        while unit < num_units:
            panel = unit * TILE_PANELS
            _project(
                sizes, buffers, start + panel * hidden * LANES, vector, panel,
                min(TILE_PANELS, num_panels - panel), scale, scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_panels * hidden * LANES
        vector += 3 * hidden
        phase += 1

        num_groups = (sizes.num_rows + MAX_ATTENDING_ROWS - 1) // MAX_ATTENDING_ROWS
        num_units = num_groups * heads
        unit = take(counters, phase)
        while unit < num_units:
            row = unit // heads * MAX_ATTENDING_ROWS
            count = min(MAX_ATTENDING_ROWS, sizes.num_rows - row)
            attend(sizes, buffers, reading, 0, row, count, row, unit % heads, scratch)
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        phase += 1

        num_panels = hidden // LANES
        num_units = count_units(num_panels)
        unit = take(counters, phase)
        while unit < num_units:
            panel = unit * TILE_PANELS
            _add_product(
                sizes, buffers.mixed, hidden, buffers, start + panel * hidden * LANES, vector,
                buffers.hidden, buffers.middle, panel, min(TILE_PANELS, num_panels - panel),
                scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_panels * hidden * LANES
        vector += hidden
        phase += 1

        _normalise_all(
            sizes, buffers.middle, 0, buffers.normed, buffers, vector, floor, counters, phase
        )
        vector += 2 * hidden
        phase += 1

        num_panels = inner // LANES
        num_units = count_units(num_panels)
        unit = take(counters, phase)
        while unit < num_units:
            panel = unit * TILE_PANELS
            _activate(
                sizes, buffers, start + panel * hidden * LANES, vector, panel,
                min(TILE_PANELS, num_panels - panel), scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_panels * hidden * LANES
        vector += inner
        phase += 1

        num_panels = hidden // LANES
        num_units = count_units(num_panels)
        unit = take(counters, phase)
        while unit < num_units:
            panel = unit * TILE_PANELS
            _add_product(
                sizes, buffers.gated, inner, buffers, start + panel * inner * LANES, vector,
                buffers.middle, buffers.hidden, panel, min(TILE_PANELS, num_panels - panel),
                scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_panels * inner * LANES
        vector += hidden
        phase += 1

    num_kept, projected = sizes.num_rows - sizes.first_projected, sizes.projected
    transform_rows(
        buffers.hidden[sizes.first_projected * hidden :], num_kept, hidden, buffers.weights, start,
        buffers.vectors, vector, 0, buffers.bent, projected, sizes.num_threads, True, counters,
        phase, scratch,
    )  # fmt: skip
    start += projected * hidden
    vector += projected
    phase += 1
    transform_rows(
        buffers.bent, num_kept, projected, buffers.weights, start, buffers.vectors, vector, 0,
        buffers.features, projected, sizes.num_threads, False, counters, phase, scratch,
    )  # fmt: skip
    if is_helper:
        leave(counters)
    else:
        close(counters)


def count_tower_scratch(num_rows: int) -> int:
    """Elements of a thread's scratch: a tile, or the scores of a group; see `attend`."""
    return max(TILE, MAX_ATTENDING_ROWS * (num_rows + LANES + 1))
