"""Products of a few rows with sixteen columns, their sums held in registers.

Each sum is taken in the order of the row, however many rows and columns one call computes, so
that a row's result does not depend on its neighbours.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from llavachat_server.engine.native.vectors import (
    LANES,
    VECTOR,
    call,
    point,
    point_vector,
    prefetch,
    repeat,
)

MAX_TILE_ROWS = 6
"""Rows that one product computes: 6 times 16 sums are 12 of AVX2's 16 registers."""

WIDE_PANELS = 4
"""Panels that `multiply_one_row` reads side by side: 8 of AVX2's registers, whose sums do not
wait for each other."""


def _make_product(num_rows: int, num_panels: int) -> Any:
    @intrinsic
    def product(
        _: Any, rows: Any, first: Any, row_stride: Any, width: Any,
        panels: Any, start: Any, stride: Any, panel_stride: Any,
        tile: Any, place: Any, tile_stride: Any, goes_on: Any, ahead: Any, ahead_step: Any,
    ) -> Any:  # fmt: skip
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            (
                _rows, first, row_stride, width, _panels, start, stride, panel_stride,
                _tile, place, tile_stride, goes_on, ahead, ahead_step,
            ) = args  # fmt: skip

            def number(value: int) -> Any:
                return ir.Constant(width.type, value)

            def step(base: Any, length: Any, count: int) -> Any:
                return builder.add(base, builder.mul(length, number(count)))

            sources = [
                point(context, builder, kinds[0], _rows, step(first, row_stride, row))
                for row in range(num_rows)
            ]
            weights = [
                point(context, builder, kinds[4], _panels, step(start, panel_stride, panel))
                for panel in range(num_panels)
            ]
            targets = [
                point_vector(
                    context, builder, kinds[8], _tile,
                    step(step(place, tile_stride, row), number(LANES), panel),
                )
                for row in range(num_rows)
                for panel in range(num_panels)
            ]  # fmt: skip
            following_panel = point(context, builder, kinds[4], _panels, ahead)
            nothing = ir.Constant(VECTOR, [0.0] * LANES)
            starts = [
                builder.select(goes_on, builder.load(target, align=4), nothing)
                for target in targets
            ]
            before = builder.block
            body = builder.append_basic_block("product")
            after = builder.append_basic_block("product.end")
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
            values = [
                repeat(builder, builder.load(builder.gep(source, [index]), align=4))
                for source in sources
            ]
            prefetch(builder, builder.gep(following_panel, [builder.mul(index, ahead_step)]))
            pairs = [(value, column) for value in values for column in columns]
            ends = []
            for total, began, (value, column) in zip(sums, starts, pairs, strict=True):
                new = call(builder, "llvm.fma.v16f32", VECTOR, value, column, total)
                total.add_incoming(began, before)
                total.add_incoming(new, body)
                ends.append(new)
            following = builder.add(index, number(1))
            index.add_incoming(following, body)
            builder.cbranch(builder.icmp_signed("<", following, width), body, after)
            builder.position_at_end(after)
            for target, end in zip(targets, ends, strict=True):
                builder.store(end, target, align=4)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(
            rows, whole, whole, whole, panels, whole, whole, whole,
            tile, whole, whole, types.boolean, whole, whole,
        ), build  # fmt: skip

    return product


# fmt: off
(_product_1, _product_2, _product_3, _product_4, _product_5, _product_6) = (
    _make_product(count, 1) for count in range(1, MAX_TILE_ROWS + 1)
)
multiply_one_row = _make_product(1, WIDE_PANELS)
# fmt: on
"""One row times `WIDE_PANELS` panels that stand `panel_stride` elements apart; the arguments are
those of `multiply_rows`, without its count, and `panel_stride` after `stride`."""


@njit(nogil=True)
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
    # fmt: off
    if count == 6:
        _product_6(
            rows, first, row_stride, width, panels, start, stride, 0, tile, place, tile_stride,
            goes_on, start, 0,
        )
    elif count == 5:
        _product_5(
            rows, first, row_stride, width, panels, start, stride, 0, tile, place, tile_stride,
            goes_on, start, 0,
        )
    elif count == 4:
        _product_4(
            rows, first, row_stride, width, panels, start, stride, 0, tile, place, tile_stride,
            goes_on, start, 0,
        )
    elif count == 3:
        _product_3(
            rows, first, row_stride, width, panels, start, stride, 0, tile, place, tile_stride,
            goes_on, start, 0,
        )
    elif count == 2:
        _product_2(
            rows, first, row_stride, width, panels, start, stride, 0, tile, place, tile_stride,
            goes_on, start, 0,
        )
    else:
        _product_1(
            rows, first, row_stride, width, panels, start, stride, 0, tile, place, tile_stride,
            goes_on, start, 0,
        )
    # fmt: on


@njit(nogil=True)
def multiply_tile(
    rows: Any, first: int, count: int, width: int, panels: Any, start: int, tile: Any, place: int,
    ahead: int, ahead_step: int,
) -> None:  # fmt: skip
    """Up to `MAX_TILE_ROWS` rows times one panel, all without gaps; see `multiply_rows`.

    Args:
        rows: see `multiply_rows`, as the others.
        first: of the rows.
        count: of the rows.
        width: of the rows.
        panels: the panels.
        start: of the panel.
        tile: the result.
        place: of the result.
        ahead: from this element of `panels` on memory is asked for what will be needed soon.
        ahead_step: elements that are asked for with each line of the panel; see `plan_ahead`.
    """
    if count == 6:
        _product_6(
            rows, first, width, width, panels, start, LANES, 0, tile, place, LANES, False,
            ahead, ahead_step,
        )  # fmt: skip
    elif count == 5:
        _product_5(
            rows, first, width, width, panels, start, LANES, 0, tile, place, LANES, False,
            ahead, ahead_step,
        )  # fmt: skip
    elif count == 4:
        _product_4(
            rows, first, width, width, panels, start, LANES, 0, tile, place, LANES, False,
            ahead, ahead_step,
        )  # fmt: skip
    elif count == 3:
        _product_3(
            rows, first, width, width, panels, start, LANES, 0, tile, place, LANES, False,
            ahead, ahead_step,
        )  # fmt: skip
    elif count == 2:
        _product_2(
            rows, first, width, width, panels, start, LANES, 0, tile, place, LANES, False,
            ahead, ahead_step,
        )  # fmt: skip
    else:
        _product_1(
            rows, first, width, width, panels, start, LANES, 0, tile, place, LANES, False,
            ahead, ahead_step,
        )  # fmt: skip


@njit(nogil=True)
def plan_ahead(num_rows: int) -> int:
    """`multiply_tile`'s ``ahead_step``, so that all tiles of a panel ask for one other panel.

    All at once would keep the first tile waiting, and leave memory idle beside the others. With a
    row or two memory is the brake already, and asking only costs.
    """
    if num_rows <= 2:
        return 0
    num_tiles = (num_rows + MAX_TILE_ROWS - 1) // MAX_TILE_ROWS
    return (LANES + num_tiles - 1) // num_tiles
