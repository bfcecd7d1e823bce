"""A CLIP vision tower and LLaVA's projector as one compiled function that threads run together.

Rows are one picture's patches, the class token first. Attention is the decoder's own, told that
every row has come last: so each reads all the others.
"""

from typing import Any

from llavachat_server.engine.native.kernels.attending import attend
from llavachat_server.engine.native.kernels.compiling import inlined, kernel
from llavachat_server.engine.native.kernels.linear import Product, count_panels, make_layer
from llavachat_server.engine.native.kernels.products import MAX_TILE_ROWS, TILE_PANELS
from llavachat_server.engine.native.kernels.sharing import (
    await_all,
    close,
    enter,
    finish,
    leave,
    take,
)
from llavachat_server.engine.native.kernels.vectors import (
    add,
    divide,
    exponentiate,
    fuse,
    gelu,
    load,
    multiply,
    spread,
    store,
    subtract,
    sum_up,
)
from llavachat_server.engine.native.plan import LANES, MAX_ATTENDING_ROWS, TILE_WIDTH


@kernel
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


@inlined
def _place_heads(unit: int, first: int, count: int, args: Any) -> None:
    # Outputs of query, key or value, put where attention reads them.
    product, sizes, buffers, biases = args
    dim, width, heads, scratch = sizes.head_dim, sizes.hidden, sizes.num_heads, product.scratch
    scale = dim**-0.5
    for number in range(count_panels(unit, product)):
        column = (unit * TILE_PANELS + number) * LANES
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


@inlined
def _place_sum(unit: int, first: int, count: int, args: Any) -> None:
    # output = product + bias + residual
    product, vectors, biases, residual, output, hidden = args
    num_panels = count_panels(unit, product)
    for index in range(count):
        for number in range(num_panels):
            column = (unit * TILE_PANELS + number) * LANES
            place = (first + index) * hidden + column
            values = load(product.scratch, index * TILE_WIDTH + number * LANES)
            values = add(values, load(vectors, biases + column))
            store(output, place, add(values, load(residual, place)))


@inlined
def _place_activated(unit: int, first: int, count: int, args: Any) -> None:
    # Outputs of the MLP's first half, through GELU or its approximation x * sigmoid(1.702 x).
    # Source of the factor: "quick_gelu" of the CLIP models.
    product, vectors, biases, gated, inner, is_quick = args
    num_panels = count_panels(unit, product)
    for index in range(count):
        for number in range(num_panels):
            column = (unit * TILE_PANELS + number) * LANES
            values = load(product.scratch, index * TILE_WIDTH + number * LANES)
            values = add(values, load(vectors, biases + column))
            if is_quick:
                decay = add(exponentiate(multiply(values, spread(-1.702))), spread(1.0))
                values = divide(values, decay)
            else:
                values = gelu(values)
            store(gated, (first + index) * inner + column, values)


@inlined
def _place_patches(unit: int, first: int, count: int, args: Any) -> None:
    # Patches become rows, each with its position.
    product, vectors, positions, output, hidden = args
    num_panels = count_panels(unit, product)
    for index in range(count):
        for number in range(num_panels):
            place = (first + index) * hidden + (unit * TILE_PANELS + number) * LANES
            values = load(product.scratch, index * TILE_WIDTH + number * LANES)
            store(output, place, add(values, load(vectors, positions + place)))


@inlined
def _place_projected(unit: int, first: int, count: int, args: Any) -> None:
    # Outputs of one of the projector's layers, the first through GELU.
    product, vectors, biases, output, width, is_bent = args
    num_panels = count_panels(unit, product)
    for index in range(count):
        for number in range(num_panels):
            column = (unit * TILE_PANELS + number) * LANES
            values = load(product.scratch, index * TILE_WIDTH + number * LANES)
            values = add(values, load(vectors, biases + column))
            if is_bent:
                values = gelu(values)
            store(output, (first + index) * width + column, values)


@kernel
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


_share_patches = make_layer(_place_patches)
_share_heads = make_layer(_place_heads)
_share_sums = make_layer(_place_sum)
_share_activated = make_layer(_place_activated)
_share_projected = make_layer(_place_projected)


@kernel
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
        scratch: float32, of this thread alone; see `count_tower_scratch`.
        is_helper: another thread began it.
    """
    if is_helper and not enter(counters):
        return
    hidden, inner, threads = sizes.hidden, sizes.inner, sizes.num_threads
    weights, vectors, num_rows = buffers.weights, buffers.vectors, sizes.num_rows
    hidden_panels = hidden // LANES
    start, vector, phase = 0, 0, 0

    # The class token's row is there already: no picture changes it.
    num_patches = num_rows - 1
    product = Product(
        buffers.patches, num_patches, sizes.patch, weights, start, hidden_panels, TILE_PANELS,
        threads, scratch,
    )  # fmt: skip
    _share_patches(
        counters, phase,
        (product, vectors, vector, buffers.middle[hidden:], hidden),
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

        product = Product(
            buffers.normed, num_rows, hidden, weights, start, 3 * hidden_panels, TILE_PANELS,
            threads, scratch,
        )  # fmt: skip
        _share_heads(counters, phase, (product, sizes, buffers, vector))
        start += 3 * hidden * hidden
        vector += 3 * hidden
        phase += 1

        num_groups = (num_rows + MAX_ATTENDING_ROWS - 1) // MAX_ATTENDING_ROWS
        num_units = num_groups * sizes.num_heads
        unit = take(counters, phase)
        while unit < num_units:
            row = unit // sizes.num_heads * MAX_ATTENDING_ROWS
            count = min(MAX_ATTENDING_ROWS, num_rows - row)
            attend(sizes, buffers, reading, 0, row, count, row, unit % sizes.num_heads, scratch)
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        phase += 1

        product = Product(
            buffers.mixed, num_rows, hidden, weights, start, hidden_panels, TILE_PANELS, threads,
            scratch,
        )  # fmt: skip
        _share_sums(
            counters, phase,
            (product, vectors, vector, buffers.hidden, buffers.middle, hidden),
        )  # fmt: skip
        start += hidden * hidden
        vector += hidden
        phase += 1

        _normalise_all(
            sizes, buffers.middle, 0, buffers.normed, buffers, vector, floor, counters, phase
        )
        vector += 2 * hidden
        phase += 1

        product = Product(
            buffers.normed, num_rows, hidden, weights, start, inner // LANES, TILE_PANELS,
            threads, scratch,
        )  # fmt: skip
        _share_activated(
            counters, phase,
            (product, vectors, vector, buffers.gated, inner, sizes.is_quick == 1),
        )  # fmt: skip
        start += inner * hidden
        vector += inner
        phase += 1

        product = Product(
            buffers.gated, num_rows, inner, weights, start, hidden_panels, TILE_PANELS, threads,
            scratch,
        )  # fmt: skip
        _share_sums(
            counters, phase,
            (product, vectors, vector, buffers.middle, buffers.hidden, hidden),
        )  # fmt: skip
        start += inner * hidden
        vector += hidden
        phase += 1

    num_kept, projected = num_rows - sizes.first_projected, sizes.projected
    num_panels = projected // LANES
    product = Product(
        buffers.hidden[sizes.first_projected * hidden :], num_kept, hidden, weights, start,
        num_panels, TILE_PANELS, threads, scratch,
    )  # fmt: skip
    _share_projected(
        counters, phase,
        (product, vectors, vector, buffers.bent, projected, True),
    )  # fmt: skip
    start += projected * hidden
    vector += projected
    phase += 1
    product = Product(
        buffers.bent, num_kept, projected, weights, start, num_panels, TILE_PANELS, threads,
        scratch,
    )  # fmt: skip
    _share_projected(
        counters, phase,
        (product, vectors, vector, buffers.features, projected, False),
    )  # fmt: skip
    if is_helper:
        leave(counters)
    else:
        close(counters)
