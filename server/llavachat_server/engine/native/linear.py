"""The linear layers at a vision tower's ends: patches to rows, and rows to the decoder's width."""

from typing import Any

from numba import njit

from llavachat_server.engine.native.products import (
    TILE_PANELS,
    TILE_WIDTH,
    count_tile_rows,
    count_units,
    multiply_tile,
    plan_ahead,
)
from llavachat_server.engine.native.sharing import await_all, finish, take
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
    take_larger,
)


@njit(nogil=True)
def gelu(values: Any) -> Any:
    """``x * (1 + erf(x / sqrt(2))) / 2``, within 2.5e-7 times x where torch is within 3.3e-7.

    Source of the approximation of erf: 7.1.26 in M. Abramowitz and I. Stegun, Handbook of
    Mathematical Functions, 1964.
    """
    size = take_larger(values, subtract(spread(0.0), values))
    part = divide(spread(1.0), fuse(size, spread(0.3275911 * 0.5**0.5), spread(1.0)))
    series = fuse(part, spread(1.061405429), spread(-1.453152027))
    series = fuse(series, part, spread(1.421413741))
    series = fuse(series, part, spread(-0.284496736))
    series = multiply(fuse(series, part, spread(0.254829592)), part)
    rest = multiply(series, exponentiate(multiply(multiply(size, size), spread(-0.5))))
    half = multiply(size, spread(0.5))
    return subtract(take_larger(values, spread(0.0)), multiply(half, rest))


@njit(nogil=True)
def _transform(
    rows: Any, num_rows: int, width: int, weights: Any, start: int, vectors: Any, addend: int,
    addend_stride: int, output: Any, output_width: int, panel: int, num_panels: int,
    num_threads: int, is_bent: bool, scratch: Any,
) -> None:  # fmt: skip
    # Neighbouring panels of `transform_rows`.
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
            for number in range(num_panels):
                column = (panel + number) * LANES
                values = load(scratch, index * TILE_WIDTH + number * LANES)
                values = add(values, load(vectors, addend + row * addend_stride + column))
                if is_bent:
                    values = gelu(values)
                store(output, row * output_width + column, values)
        first += count


@njit(nogil=True)
def transform_rows(
    rows: Any, num_rows: int, width: int, weights: Any, start: int, vectors: Any, addend: int,
    addend_stride: int, output: Any, output_width: int, num_threads: int, is_bent: bool,
    counters: Any, phase: int, scratch: Any,
) -> None:  # fmt: skip
    """A linear layer of all rows, as a phase that threads share.

    Args:
        rows: (num_rows, width)
        num_rows: at least 1.
        width: of a row.
        weights: the layer's panels, from element `start` on.
        start: see `weights`.
        vectors: what is added: to row r and column c the element `addend` + r times
            `addend_stride` + c, so that a bias has a stride of 0.
        addend: see `vectors`.
        addend_stride: see `vectors`.
        output: (num_rows, output_width)
        output_width: whole panels.
        num_threads: that share the layer at most.
        is_bent: through GELU.
        counters: see `sharing`.
        phase: whose counters.
        scratch: of this thread alone, for a tile.
    """
    num_panels = output_width // LANES
    num_units = count_units(num_panels)
    unit = take(counters, phase)
    while unit < num_units:
        panel = unit * TILE_PANELS
        _transform(
            rows, num_rows, width, weights, start + panel * width * LANES, vectors, addend,
            addend_stride, output, output_width, panel, min(TILE_PANELS, num_panels - panel),
            num_threads, is_bent, scratch,
        )  # fmt: skip
        finish(counters, phase)
        unit = take(counters, phase)
    await_all(counters, phase, num_units)
