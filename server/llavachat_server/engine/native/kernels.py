"""A step of all layers as one compiled function that several threads run together.

Flat rows: each has a position, a slot of the cache for its key and value, and a request whose
blocks it reads. A row's result depends on nothing but the row and its request's cache, to the
last bit, so that no answer depends on its neighbours or on how a prompt was cut into chunks.
"""

from typing import Any

from numba import config, njit

from llavachat_server.engine.native.attending import attend
from llavachat_server.engine.native.plan import TILE
from llavachat_server.engine.native.products import (
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
    swap_pairs,
)


@njit(nogil=True)
def _measure_rows(rows: Any, num_rows: int, width: int, floor: Any, scratch: Any) -> None:
    # RMSNorm's factor of each row; its weights lie in the matrix that follows.
    for row in range(num_rows):
        total = spread(0.0)
        for index in range(row * width, (row + 1) * width, LANES):
            values = load(rows, index)
            total = fuse(values, values, total)
        scratch[TILE + row] = (sum_up(total) / width + floor) ** -0.5


@njit(nogil=True)
def _project(
    sizes: Any, buffers: Any, step: Any, layer: int, start: int, panel: int, num_panels: int,
    scratch: Any,
) -> None:  # fmt: skip
    # The outputs of neighbouring panels, each 16 of query, key or value: turned by RoPE, and put
    # where attention reads them.
    dim, width, num_rows = sizes.head_dim, sizes.hidden, len(step.positions)
    ahead = start + sizes.num_threads * TILE_PANELS * width * LANES
    ahead_step = plan_ahead(num_rows)
    first = 0
    while first < num_rows:
        count = count_tile_rows(num_rows - first)
        multiply_tile(
            buffers.hidden, first * width, count, width, buffers.weights, start, num_panels,
            scratch, 0, ahead, ahead_step,
        )  # fmt: skip
        ahead += width * ahead_step
        for number in range(num_panels):
            column = (panel + number) * LANES
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
        first += count


@njit(nogil=True)
def _add_product(
    rows: Any, width: int, weights: Any, start: int, residual: Any, sources: Any,
    output: Any, hidden: int, num_rows: int, panel: int, num_panels: int, num_threads: int,
    scratch: Any,
) -> None:  # fmt: skip
    # output = rows @ panels + residual, whose rows are `sources`, or the same where it is empty.
    ahead = start + num_threads * TILE_PANELS * width * LANES
    ahead_step = plan_ahead(num_rows)
    first = 0
    while first < num_rows:
        count = count_tile_rows(num_rows - first)
        multiply_tile(
            rows, first * width, count, width, weights, start, num_panels, scratch, 0,
            ahead, ahead_step,
        )  # fmt: skip
        ahead += width * ahead_step
        for index in range(count):
            row = first + index
            source = sources[row] if len(sources) else row
            for number in range(num_panels):
                column = (panel + number) * LANES
                values = load(scratch, index * TILE_WIDTH + number * LANES)
                values = add(values, load(residual, source * hidden + column))
                store(output, row * hidden + column, values)
        first += count


@njit(nogil=True)
def _gate(sizes: Any, buffers: Any, num_rows: int, start: int, panel: int, scratch: Any) -> None:
    # 16 outputs of SiLU(gate) * up, whose panels are neighbours.
    width = sizes.hidden
    ahead, ahead_step = start + 2 * sizes.num_threads * width * LANES, plan_ahead(num_rows)
    first = 0
    while first < num_rows:
        count = count_tile_rows(num_rows - first)
        multiply_tile(
            buffers.middle, first * width, count, width, buffers.weights, start, 2, scratch, 0,
            ahead, ahead_step,
        )  # fmt: skip
        ahead += width * ahead_step
        for index in range(count):
            row = first + index
            factor = spread(scratch[TILE + row])
            gate = multiply(load(scratch, index * TILE_WIDTH), factor)
            rest = multiply(load(scratch, index * TILE_WIDTH + LANES), factor)
            decay = add(exponentiate(subtract(spread(0.0), gate)), spread(1.0))
            place = row * sizes.inner + panel * LANES
            store(buffers.gated, place, divide(multiply(gate, rest), decay))
        first += count


@njit(nogil=True)
def _score(
    sizes: Any, buffers: Any, num_rows: int, start: int, panel: int, num_panels: int, scratch: Any
) -> None:
    # The logits of each row for neighbouring panels.
    width, first = sizes.hidden, 0
    ahead = start + sizes.num_threads * TILE_PANELS * width * LANES
    ahead_step = plan_ahead(num_rows)
    while first < num_rows:
        count = count_tile_rows(num_rows - first)
        multiply_tile(
            buffers.hidden, first * width, count, width, buffers.weights, start, num_panels,
            scratch, 0, ahead, ahead_step,
        )  # fmt: skip
        ahead += width * ahead_step
        for index in range(count):
            row = first + index
            factor = spread(scratch[TILE + row])
            for number in range(num_panels):
                values = multiply(load(scratch, index * TILE_WIDTH + number * LANES), factor)
                column = (panel + number) * LANES
                store(buffers.logits, row * sizes.vocabulary + column, values)
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
        num_panels = (width + 2 * sizes.num_kv_heads * dim) // LANES
        num_units = count_units(num_panels)
        unit = take(counters, phase)
        while unit < num_units:
            panel = unit * TILE_PANELS
            _project(
                sizes, buffers, step, layer, start + panel * hidden * LANES, panel,
                min(TILE_PANELS, num_panels - panel), scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
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
        num_units = count_units(num_panels)
        unit = take(counters, phase)
        while unit < num_units:
            panel = unit * TILE_PANELS
            _add_product(
                buffers.mixed, width, buffers.weights, start + panel * width * LANES,
                buffers.hidden, sources, buffers.middle, hidden, num_rows, panel,
                min(TILE_PANELS, num_panels - panel), sizes.num_threads, scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_panels * width * LANES
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

        num_units = count_units(num_panels)
        unit = take(counters, phase)
        while unit < num_units:
            panel = unit * TILE_PANELS
            _add_product(
                buffers.gated, sizes.inner, buffers.weights, start + panel * sizes.inner * LANES,
                buffers.middle, everyone, buffers.hidden, hidden, num_rows, panel,
                min(TILE_PANELS, num_panels - panel), sizes.num_threads, scratch,
            )  # fmt: skip
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)
        start += num_panels * sizes.inner * LANES
        phase += 1

    _measure_rows(buffers.hidden, num_rows, hidden, floor, scratch)
    num_panels = sizes.vocabulary // LANES
    num_units = count_units(num_panels)
    unit = take(counters, phase)
    while unit < num_units:
        panel = unit * TILE_PANELS
        _score(
            sizes, buffers, num_rows, start + panel * hidden * LANES, panel,
            min(TILE_PANELS, num_panels - panel), scratch,
        )  # fmt: skip
        finish(counters, phase)
        unit = take(counters, phase)
    await_all(counters, phase, num_units)
    if is_helper:
        leave(counters)
    else:
        close(counters)
