"""Attention over the cache's blocks, one head of a few rows at a time.

Keys lie so that sixteen tokens of a block are a panel, (head_dim, 16), and values token by token:
scores and mixtures are then both products of `products`. A row's result does not depend on the
rows beside it, to the last bit.
"""

from typing import Any

from llavachat_server.engine.native.kernels.compiling import kernel
from llavachat_server.engine.native.kernels.products import (
    TILE_PANELS,
    WIDE_PANELS,
    count_tile_rows,
    multiply_one_row,
    multiply_rows,
    multiply_side_by_side,
)
from llavachat_server.engine.native.kernels.vectors import (
    add,
    exponentiate,
    find_largest,
    load,
    multiply,
    spread,
    store,
    subtract,
    sum_up,
    take_larger,
)
from llavachat_server.engine.native.plan import LANES, MAX_ATTENDING_ROWS


@kernel
def _find_end(step: Any, size: int, table: int, first: int, length: int) -> int:
    # Where the run of neighbouring blocks ends that token `first` lies in.
    number = table + first // size
    end = (first // size + 1) * size
    while end < length and step.tables[number + 1] == step.tables[number] + 1:
        number += 1
        end += size
    return min(end, length)


@kernel
def _score(
    sizes: Any, buffers: Any, step: Any, keys: int, row: int, count: int, head: int,
    padded: int, scratch: Any,
) -> None:  # fmt: skip
    # scratch = query @ keys, (count, padded); what lies behind a row's own token is not for use.
    dim, size = sizes.head_dim, sizes.block_tokens
    table, width = step.first_blocks[row], sizes.num_heads * dim
    query, first, panel = row * width + head * dim, 0, LANES * dim
    while first < padded:
        end = _find_end(step, size, table, first, padded)
        start = (keys + step.tables[table + first // size] * size + first % size) * dim
        if count == 1:
            while first + WIDE_PANELS * LANES <= end:
                multiply_one_row(
                    buffers.query, query, 0, 1, dim, buffers.cache, start, LANES, panel,
                    scratch, first, 0, False, start, 0,
                )  # fmt: skip
                first += WIDE_PANELS * LANES
                start += WIDE_PANELS * panel
        while first < end:
            num_panels = TILE_PANELS if first + TILE_PANELS * LANES <= end else 1
            done = 0
            while done < count:
                rows = count_tile_rows(count - done)
                source, target = query + done * width, done * padded + first
                if num_panels == TILE_PANELS:
                    multiply_side_by_side(
                        buffers.query, source, width, rows, dim, buffers.cache, start, LANES,
                        panel, scratch, target, padded, False, start, 0,
                    )  # fmt: skip
                else:
                    multiply_rows(
                        buffers.query, source, width, rows, dim, buffers.cache, start, LANES,
                        scratch, target, padded, False,
                    )  # fmt: skip
                done += rows
            first += num_panels * LANES
            start += num_panels * panel


@kernel
def _weigh(scratch: Any, start: int, length: int, padded: int) -> Any:
    # Scores to shares before they are divided by their sum; the sum's inverse.
    end = start + (length + LANES - 1) // LANES * LANES
    for index in range(start + length, end):
        scratch[index] = -1e30
    largest = load(scratch, start)
    for index in range(start + LANES, end, LANES):
        largest = take_larger(largest, load(scratch, index))
    largest = spread(find_largest(largest))
    total = spread(0.0)
    for index in range(start, end, LANES):
        shares = exponentiate(subtract(load(scratch, index), largest))
        store(scratch, index, shares)
        total = add(total, shares)
    # e to the -87 times at most 15 did not count in the sum; in the product it is nothing at all.
    for index in range(start + length, start + padded):
        scratch[index] = 0.0
    return 1.0 / sum_up(total)


@kernel
def _mix(
    sizes: Any, buffers: Any, step: Any, values: int, row: int, count: int, length: int,
    source: int, padded: int, target: int, scratch: Any,
) -> None:  # fmt: skip
    # mixed = shares @ values for one tile of rows.
    dim, size = sizes.head_dim, sizes.block_tokens
    table, width = step.first_blocks[row], sizes.num_heads * dim
    first = 0
    while first < length:
        end = _find_end(step, size, table, first, length)
        start = (values + step.tables[table + first // size] * size + first % size) * dim
        place = 0
        while place < dim:
            if count == 1 and place + WIDE_PANELS * LANES <= dim:
                multiply_one_row(
                    scratch, source + first, 0, 1, end - first, buffers.cache, start + place, dim,
                    LANES, buffers.mixed, target + place, 0, first > 0, start, 0,
                )  # fmt: skip
                place += WIDE_PANELS * LANES
            elif place + TILE_PANELS * LANES <= dim:
                multiply_side_by_side(
                    scratch, source + first, padded, count, end - first,
                    buffers.cache, start + place, dim, LANES,
                    buffers.mixed, target + place, width, first > 0, start, 0,
                )  # fmt: skip
                place += TILE_PANELS * LANES
            else:
                multiply_rows(
                    scratch, source + first, padded, count, end - first,
                    buffers.cache, start + place, dim,
                    buffers.mixed, target + place, width, first > 0,
                )  # fmt: skip
                place += LANES
        first = end


@kernel
def attend(
    sizes: Any, buffers: Any, step: Any, layer: int, row: int, count: int, output: int,
    head: int, scratch: Any,
) -> None:  # fmt: skip
    """One head of some neighbouring rows of one request over its blocks, read where they lie.

    Args:
        sizes: `plan.Sizes`.
        buffers: `plan.Buffers`.
        step: `plan.Step`.
        layer: whose keys and values.
        row: the first.
        count: rows; at most `MAX_ATTENDING_ROWS`.
        output: the row of `buffers.mixed` that the first result goes to.
        head: of the queries.
        scratch: see `plan.count_scratch`.
    """
    dim = sizes.head_dim
    kv_head = head // (sizes.num_heads // sizes.num_kv_heads)
    keys = (layer * 2 * sizes.num_kv_heads + kv_head) * sizes.num_slots
    values = keys + sizes.num_kv_heads * sizes.num_slots
    padded = (step.positions[row + count - 1] + LANES) // LANES * LANES
    _score(sizes, buffers, step, keys, row, count, head, padded, scratch)
    factors = MAX_ATTENDING_ROWS * padded
    for index in range(count):
        length = step.positions[row + index] + 1
        scratch[factors + index] = _weigh(scratch, index * padded, length, padded)
    width = sizes.num_heads * dim
    done = 0
    while done < count:
        rows = count_tile_rows(count - done)
        length = step.positions[row + done + rows - 1] + 1
        target = (output + done) * width + head * dim
        _mix(
            sizes, buffers, step, values, row, rows, length,
            done * padded, padded, target, scratch,
        )  # fmt: skip
        for index in range(done, done + rows):
            factor = spread(scratch[factors + index])
            for place in range(target, target + dim, LANES):
                store(buffers.mixed, place, multiply(load(buffers.mixed, place), factor))
            target += width
        done += rows
