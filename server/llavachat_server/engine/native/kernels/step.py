"""A step of all layers as one compiled function that several threads run together.

Flat rows: each has a position, a slot of the cache for its key and value, and a request whose
blocks it reads. A row's result depends on nothing but the row and its request's cache, to the
last bit, so that no answer depends on its neighbours or on how a prompt was cut into chunks.

Each linear layer has a ``_place`` function, which takes a tile's sums to where the next phase reads
them; see `linear.make_layer`.
"""

from typing import Any

from llavachat_server.engine.native.kernels.attending import attend
from llavachat_server.engine.native.kernels.compiling import inlined, kernel
from llavachat_server.engine.native.kernels.linear import (
    Product,
    count_panels,
    make_layer,
)
from llavachat_server.engine.native.kernels.products import TILE_PANELS
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
    load,
    multiply,
    spread,
    store,
    subtract,
    sum_up,
    swap_pairs,
)
from llavachat_server.engine.native.plan import LANES, TILE, TILE_WIDTH


@kernel
def _measure_rows(rows: Any, num_rows: int, width: int, floor: Any, scratch: Any) -> None:
    # RMSNorm's factor of each row; its weights lie in the matrix that follows.
    for row in range(num_rows):
        total = spread(0.0)
        for index in range(row * width, (row + 1) * width, LANES):
            values = load(rows, index)
            total = fuse(values, values, total)
        scratch[TILE + row] = (sum_up(total) / width + floor) ** -0.5


@inlined
def _place_heads(unit: int, first: int, count: int, args: Any) -> None:
    # Outputs of query, key or value: turned by RoPE, and put where attention reads them.
    product, sizes, buffers, step, layer = args
    scratch = product.scratch
    dim = sizes.head_dim
    for number in range(count_panels(unit, product)):
        column = (unit * TILE_PANELS + number) * LANES
        head, within = column // dim, column % dim
        is_turned = head < sizes.num_heads + sizes.num_kv_heads
        stored = layer * 2 * sizes.num_kv_heads + head - sizes.num_heads
        scale = dim**-0.5 if head < sizes.num_heads else 1.0
        for index in range(count):
            row, place = first + index, index * TILE_WIDTH + number * LANES
            values = multiply(load(scratch, place), spread(scratch[TILE + row] * scale))
            if is_turned:
                angle = step.positions[row] * dim + within
                turned = multiply(swap_pairs(values), load(buffers.sines, angle))
                values = fuse(values, load(buffers.cosines, angle), turned)
            if head < sizes.num_heads:
                store(buffers.query, row * sizes.num_heads * dim + column, values)
            elif is_turned:
                # Keys of sixteen tokens are a panel; see `attending`.
                slot = stored * sizes.num_slots + step.slots[row]
                target = (slot - slot % LANES) * dim + within * LANES + slot % LANES
                store(scratch, place, values)
                for lane in range(LANES):
                    buffers.cache[target + lane * LANES] = scratch[place + lane]
            else:
                slot = stored * sizes.num_slots + step.slots[row]
                store(buffers.cache, slot * dim + within, values)


@inlined
def _place_sum(unit: int, first: int, count: int, args: Any) -> None:
    # output = product + residual, whose rows are `sources`, or the same where it is empty.
    product, residual, sources, output, hidden = args
    num_panels = count_panels(unit, product)
    for index in range(count):
        row = first + index
        source = sources[row] if len(sources) else row
        for number in range(num_panels):
            column = (unit * TILE_PANELS + number) * LANES
            values = load(product.scratch, index * TILE_WIDTH + number * LANES)
            values = add(values, load(residual, source * hidden + column))
            store(output, row * hidden + column, values)


@inlined
def _place_gated(unit: int, first: int, count: int, args: Any) -> None:
    # 16 outputs of SiLU(gate) * up, whose panels are neighbours.
    product, gated, inner = args
    scratch = product.scratch
    for index in range(count):
        row = first + index
        factor = spread(scratch[TILE + row])
        gate = multiply(load(scratch, index * TILE_WIDTH), factor)
        rest = multiply(load(scratch, index * TILE_WIDTH + LANES), factor)
        decay = add(exponentiate(subtract(spread(0.0), gate)), spread(1.0))
        store(gated, row * inner + unit * LANES, divide(multiply(gate, rest), decay))


@inlined
def _place_logits(unit: int, first: int, count: int, args: Any) -> None:
    product, logits, vocabulary = args
    scratch = product.scratch
    num_panels = count_panels(unit, product)
    for index in range(count):
        row = first + index
        factor = spread(scratch[TILE + row])
        for number in range(num_panels):
            values = multiply(load(scratch, index * TILE_WIDTH + number * LANES), factor)
            store(logits, row * vocabulary + (unit * TILE_PANELS + number) * LANES, values)


_share_heads = make_layer(_place_heads)
_share_sums = make_layer(_place_sum)
_share_gated = make_layer(_place_gated)
_share_logits = make_layer(_place_logits)


@kernel
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
    hidden, dim, inner, threads = sizes.hidden, sizes.head_dim, sizes.inner, sizes.num_threads
    weights, everyone = buffers.weights, step.wanted[:0]
    num_rows, start, phase = len(step.positions), 0, 0
    width = sizes.num_heads * dim
    for layer in range(sizes.num_layers):
        _measure_rows(buffers.hidden, num_rows, hidden, floor, scratch)
        num_panels = (width + 2 * sizes.num_kv_heads * dim) // LANES
        product = Product(
            buffers.hidden, num_rows, hidden, weights, start, num_panels, TILE_PANELS, threads,
            scratch,
        )  # fmt: skip
        _share_heads(counters, phase, (product, sizes, buffers, step, layer))
        start += num_panels * hidden * LANES
        phase += 1

        # After the last layer's keys and values only the wanted rows go on.
        sources = step.wanted if layer == sizes.num_layers - 1 else everyone
        if layer == sizes.num_layers - 1:
            num_rows = len(step.wanted)
        num_units = (num_rows if len(sources) else len(step.groups) // 2) * sizes.num_heads
        unit = take(counters, phase)
        while unit < num_units:
            if len(sources):
                output, head = unit // sizes.num_heads, unit % sizes.num_heads
                attend(sizes, buffers, step, layer, sources[output], 1, output, head, scratch)
            else:
                group, head = unit // sizes.num_heads, unit % sizes.num_heads
                row, count = step.groups[2 * group], step.groups[2 * group + 1]
                attend(sizes, buffers, step, layer, row, count, row, head, scratch)
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        phase += 1

        num_panels = hidden // LANES
        product = Product(
            buffers.mixed, num_rows, width, weights, start, num_panels, TILE_PANELS, threads,
            scratch,
        )  # fmt: skip
        _share_sums(
            counters, phase,
            (product, buffers.hidden, sources, buffers.middle, hidden),
        )  # fmt: skip
        start += num_panels * width * LANES
        phase += 1

        _measure_rows(buffers.middle, num_rows, hidden, floor, scratch)
        product = Product(
            buffers.middle, num_rows, hidden, weights, start, 2 * inner // LANES, 2, threads,
            scratch,
        )  # fmt: skip
        _share_gated(counters, phase, (product, buffers.gated, inner))
        start += 2 * inner * hidden
        phase += 1

        product = Product(
            buffers.gated, num_rows, inner, weights, start, num_panels, TILE_PANELS, threads,
            scratch,
        )  # fmt: skip
        _share_sums(
            counters, phase,
            (product, buffers.middle, everyone, buffers.hidden, hidden),
        )  # fmt: skip
        start += num_panels * inner * LANES
        phase += 1

    _measure_rows(buffers.hidden, num_rows, hidden, floor, scratch)
    num_panels = sizes.vocabulary // LANES
    product = Product(
        buffers.hidden, num_rows, hidden, weights, start, num_panels, TILE_PANELS, threads, scratch
    )
    _share_logits(counters, phase, (product, buffers.logits, sizes.vocabulary))
    if is_helper:
        leave(counters)
    else:
        close(counters)
