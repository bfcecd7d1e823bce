"""Products of a few rows with sixteen columns, their sums held in registers.

Each sum is taken in the order of the row, however many rows and columns one call computes, so
that a row's result does not depend on its neighbours.
"""

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from llavachat_server.engine.native.kernels.compiling import kernel
from llavachat_server.engine.native.kernels.vectors import (
    VECTOR,
    call,
    keep_order,
    point,
    point_vector,
    prefetch,
    repeat,
)
from llavachat_server.engine.native.plan import LANES, MOST_TILE_ROWS, TILE_WIDTH

MAX_TILE_ROWS = MOST_TILE_ROWS if binding.get_host_cpu_features().get("avx512f") else 6
"""Rows that one product computes: 6 times 16 sums are 12 of AVX2's 16 registers, 12 times 32 are
24 of AVX-512's 32."""

TILE_PANELS = 2 if MAX_TILE_ROWS == MOST_TILE_ROWS else 1
"""Panels that one product of many rows computes. With AVX-512 a row's element is read for each
multiplication by a panel's line, and reading is what would hold them up."""

FEW_ROWS = 5 if binding.get_host_cpu_name().startswith("znver") else 0
"""Up to so many rows memory is the brake, and a panel's line is read once in a step: AMD's Zen is
asked for it `LINES_AHEAD` lines before, past the caches that hold what is read again. Intel's
processors fetch few lines at a time so: one row took a thread of Emerald Rapids 12 to 15 ms, and
takes 3.6 to 4.4 where the next panel is asked for, as with many rows."""
LINES_AHEAD = 16

WIDE_PANELS = 4
"""Panels that `multiply_one_row` reads side by side: 8 of AVX2's registers, whose sums do not
wait for each other."""


def _make_product(
    max_rows: int, num_panels: int, *, asks_next_panel: bool = False, asks_next_lines: bool = False
) -> Any:
    @intrinsic
    def product(
        _: Any, rows: Any, first: Any, row_stride: Any, count: Any, width: Any,
        panels: Any, start: Any, stride: Any, panel_stride: Any,
        tile: Any, place: Any, tile_stride: Any, goes_on: Any, ahead: Any, ahead_step: Any,
    ) -> Any:  # fmt: skip
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            (
                _rows, first, row_stride, count, width, _panels, start, stride, panel_stride,
                _tile, place, tile_stride, goes_on, ahead, ahead_step,
            ) = args  # fmt: skip

            def number(value: int) -> Any:
                return ir.Constant(width.type, value)

            def step(base: Any, length: Any, count: int) -> Any:
                return builder.add(base, builder.mul(length, number(count)))

            weights = [
                point(context, builder, kinds[5], _panels, step(start, panel_stride, panel))
                for panel in range(num_panels)
            ]
            following = [
                point(context, builder, kinds[5], _panels, step(ahead, panel_stride, panel))
                for panel in range(num_panels if asks_next_panel else 0)
            ]
            nothing = ir.Constant(VECTOR, [0.0] * LANES)

            def multiply(num_rows: int, after: Any) -> None:
                sources = [
                    point(context, builder, kinds[0], _rows, step(first, row_stride, row))
                    for row in range(num_rows)
                ]
                targets = [
                    point_vector(
                        context, builder, kinds[9], _tile,
                        step(step(place, tile_stride, row), number(LANES), panel),
                    )
                    for row in range(num_rows)
                    for panel in range(num_panels)
                ]  # fmt: skip
                starts = [
                    builder.select(goes_on, builder.load(target, align=4), nothing)
                    for target in targets
                ]
                before = builder.block
                body = builder.append_basic_block("product")
                end = builder.append_basic_block("product.end")
                builder.branch(body)
                builder.position_at_end(body)
                index = builder.phi(width.type)
                index.add_incoming(number(0), before)
                sums = [builder.phi(VECTOR) for _target in targets]
                offset = builder.mul(index, stride)
                columns = [
                    builder.load(
                        builder.bitcast(builder.gep(panel, [offset]), VECTOR.as_pointer()), align=4
                    )
                    for panel in weights
                ]
                for panel in weights if asks_next_lines else ():
                    soon = builder.add(offset, number(LINES_AHEAD * LANES))
                    prefetch(builder, builder.gep(panel, [soon]), is_read_once=True)
                for panel in following:
                    later = builder.mul(index, ahead_step)
                    prefetch(builder, builder.gep(panel, [later]), is_read_once=False)
                ends = []
                for source in sources:
                    keep_order(builder)
                    value = repeat(builder, builder.load(builder.gep(source, [index]), align=4))
                    for column in columns:
                        began, total = starts[len(ends)], sums[len(ends)]
                        new = call(builder, "llvm.fma.v16f32", VECTOR, value, column, total)
                        total.add_incoming(began, before)
                        total.add_incoming(new, body)
                        ends.append(new)
                successor = builder.add(index, number(1))
                index.add_incoming(successor, body)
                builder.cbranch(builder.icmp_signed("<", successor, width), body, end)
                builder.position_at_end(end)
                for target, total in zip(targets, ends, strict=True):
                    builder.store(total, target, align=4)
                builder.branch(after)

            after = builder.append_basic_block("products.end")
            cases = builder.switch(count, after)
            for num_rows in range(1, max_rows + 1):
                case = builder.append_basic_block("product.begin")
                cases.add_case(number(num_rows), case)
                builder.position_at_end(case)
                multiply(num_rows, after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(
            rows, whole, whole, whole, whole, panels, whole, whole, whole,
            tile, whole, whole, types.boolean, whole, whole,
        ), build  # fmt: skip

    return product


_multiply_rows = _make_product(MAX_TILE_ROWS, 1)
_multiply_panels = _make_product(MAX_TILE_ROWS, TILE_PANELS, asks_next_panel=True)
_multiply_panels_once = _make_product(MAX_TILE_ROWS, TILE_PANELS, asks_next_lines=True)
_multiply_panel = _make_product(MAX_TILE_ROWS, 1, asks_next_panel=True)
multiply_one_row = _make_product(1, WIDE_PANELS)
"""One row times `WIDE_PANELS` panels that stand `panel_stride` elements apart; the arguments are
those of `multiply_rows`, with `panel_stride` after `stride`, then two that are not read."""
multiply_side_by_side = _make_product(MAX_TILE_ROWS, TILE_PANELS)
"""The same of up to `MAX_TILE_ROWS` rows times `TILE_PANELS` panels."""


@kernel
def count_tile_rows(num_rows: int) -> int:
    """Rows of the next product, where so many are left: two last ones are about equally large."""
    if MAX_TILE_ROWS < num_rows < 2 * MAX_TILE_ROWS:
        return (num_rows + 1) // 2
    return min(MAX_TILE_ROWS, num_rows)


@kernel
def multiply_rows(
    rows: Any, first: int, row_stride: int, count: int, width: int,
    panels: Any, start: int, stride: int,
    tile: Any, place: int, tile_stride: int, goes_on: bool,
) -> None:  # fmt: skip
    """Up to `MAX_TILE_ROWS` rows times one panel, wherever they lie.

    Args:
        rows: (count, width) from element `first` on.
        first: see `rows`.
        row_stride: elements from one row to the next.
        count: rows.
        width: of a row, at least 1.
        panels: (width, 16) from element `start` on.
        start: see `panels`.
        stride: elements from one line of the panel to the next.
        tile: takes (count, 16) from element `place` on.
        place: see `tile`.
        tile_stride: elements from one row of the tile to the next.
        goes_on: add to what the tile holds; otherwise to nothing.
    """
    _multiply_rows(
        rows, first, row_stride, count, width, panels, start, stride, 0,
        tile, place, tile_stride, goes_on, start, 0,
    )  # fmt: skip


@kernel
def multiply_tile(
    rows: Any, first: int, count: int, width: int, panels: Any, start: int, num_panels: int,
    tile: Any, place: int, ahead: int, ahead_step: int,
) -> None:  # fmt: skip
    """Up to `MAX_TILE_ROWS` rows times one panel or two, all without gaps; see `multiply_rows`.

    Args:
        rows: see `multiply_rows`, as the others.
        first: of the rows.
        count: of the rows.
        width: of the rows.
        panels: the panels.
        start: of the first panel.
        num_panels: 1 or 2.
        tile: takes (count, 2, 16); of a single panel the first half of each row.
        place: of the result.
        ahead: from this element of `panels` on memory is asked for what will be needed soon, for
            each panel another one.
        ahead_step: elements that are asked for with each line of a panel; 0 has the panels' own
            next lines asked for. See `plan_ahead`.
    """
    size, panel = width * LANES, 0
    while panel + TILE_PANELS <= num_panels:
        if ahead_step == 0:
            _multiply_panels_once(
                rows, first, width, count, width, panels, start + panel * size, LANES, size,
                tile, place + panel * LANES, TILE_WIDTH, False, start, 0,
            )  # fmt: skip
        else:
            _multiply_panels(
                rows, first, width, count, width, panels, start + panel * size, LANES, size,
                tile, place + panel * LANES, TILE_WIDTH, False, ahead + panel * size, ahead_step,
            )  # fmt: skip
        panel += TILE_PANELS
    if panel < num_panels:
        _multiply_panel(
            rows, first, width, count, width, panels, start + panel * size, LANES, 0,
            tile, place + panel * LANES, TILE_WIDTH, False, ahead + panel * size, ahead_step,
        )  # fmt: skip


@kernel
def plan_ahead(num_rows: int) -> int:
    """`multiply_tile`'s ``ahead_step``, so that all tiles of a panel ask for one other panel.

    All at once would keep the first tile waiting, and leave memory idle beside the others. With few
    rows the panel's own next lines are asked for instead.
    """
    if num_rows <= FEW_ROWS:
        return 0
    num_tiles = (num_rows + MAX_TILE_ROWS - 1) // MAX_TILE_ROWS
    return (LANES + num_tiles - 1) // num_tiles
