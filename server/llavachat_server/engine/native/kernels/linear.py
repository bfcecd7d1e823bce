"""A linear layer as a phase that threads share: neighbouring panels of all rows are a unit.

What becomes of a tile's sums is each layer's own; all else is the same for every one.
"""

from typing import Any, NamedTuple

from llavachat_server.engine.native.kernels.compiling import kernel
from llavachat_server.engine.native.kernels.products import (
    count_tile_rows,
    multiply_tile,
    plan_ahead,
)
from llavachat_server.engine.native.kernels.sharing import await_all, finish, take
from llavachat_server.engine.native.plan import LANES


class Product(NamedTuple):
    """What a layer is computed from."""

    rows: Any
    """(num_rows, width)"""
    num_rows: int
    width: int
    weights: Any
    start: int
    """Of the layer's panels in `weights`."""
    num_panels: int
    unit_panels: int
    """Of a unit, 1 or 2; the last one may have fewer."""
    num_threads: int
    """That share the layer at most."""
    scratch: Any
    """Of this thread alone; a tile's sums come first in it, (rows of the tile, 2, 16)."""


@kernel
def count_panels(unit: int, product: Any) -> int:
    """Panels of one unit."""
    return int(min(product.unit_panels, product.num_panels - unit * product.unit_panels))


def make_layer(place: Any) -> Any:
    """A function that takes part in a layer.

    It is made of `place` and not told it: numba keeps no machine code that is.

    Args:
        place: puts a tile's sums from scratch where the next phase reads them: ``(unit, first row,
            rows, args)``.

    Returns:
        A compiled function that returns when all units are done, whoever did them. Its arguments:
        counters, see `sharing`; the phase's number; and `place`'s ``args``, a tuple that begins
        with the layer's `Product`.
    """

    @kernel
    def share_layer(counters: Any, phase: int, args: Any) -> None:
        product = args[0]
        width, size = product.width, product.width * LANES
        ahead_step = plan_ahead(product.num_rows)
        num_units = (product.num_panels + product.unit_panels - 1) // product.unit_panels
        unit = take(counters, phase)
        while unit < num_units:
            start = product.start + unit * product.unit_panels * size
            ahead = start + product.num_threads * product.unit_panels * size
            num_panels, first = count_panels(unit, product), 0
            while first < product.num_rows:
                count = count_tile_rows(product.num_rows - first)
                multiply_tile(
                    product.rows, first * width, count, width, product.weights, start, num_panels,
                    product.scratch, 0, ahead, ahead_step,
                )  # fmt: skip
                ahead += width * ahead_step
                place(unit, first, count, args)
                first += count
            finish(counters, phase)
            unit = take(counters, phase)
        await_all(counters, phase, num_units)

    return share_layer
