"""Sixteen floats as one value inside compiled functions, and what threads need between them.

numba has neither vectors nor atomic counters for a CPU; this module teaches it both, as a few
instructions of LLVM each. LLVM fits sixteen floats to the processor: one register with
AVX-512, two with AVX2. All arrays are one-dimensional, and an index counts elements.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Floats in a vector, and outputs in a panel of weights."""

MAX_TILE_ROWS = 6
"""Rows that one product computes: 6 times 16 sums are 12 of AVX2's 16 registers."""

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)


class _Floats(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Floats16")


floats = _Floats()


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _point(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    # The address of an element.
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


def _point_vector(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    pointer = _point(context, builder, kind, array, index)
    return builder.bitcast(pointer, _VECTOR.as_pointer())


def _spread(builder: Any, value: Any) -> Any:
    # One float in all places.
    single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, _index(0))
    zeros = ir.Constant(_INTEGERS, [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), zeros)


def _index(number: int) -> Any:
    return ir.Constant(ir.IntType(32), number)


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """Sixteen floats from an array."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _point_vector(context, builder, signature.args[0], *args)
        return builder.load(pointer, align=4)

    return floats(array, types.intp), build


@intrinsic
def store(_: Any, array: Any, index: Any, values: Any) -> Any:
    """Sixteen floats into an array."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _point_vector(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, floats), build


@intrinsic
def spread(_: Any, value: Any) -> Any:
    """One float in all sixteen places."""
    return floats(types.float32), lambda _c, builder, _s, args: _spread(builder, args[0])


@intrinsic
def swap_pairs(_: Any, values: Any) -> Any:
    """Each even place exchanged with the odd one after it."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        order = ir.Constant(_INTEGERS, [place ^ 1 for place in range(LANES)])
        return builder.shuffle_vector(args[0], args[0], order)

    return floats(floats), build


def _make_operation(name: str) -> Any:
    @intrinsic
    def operation(_: Any, left: Any, right: Any) -> Any:
        def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
            return getattr(builder, name)(args[0], args[1])

        return floats(floats, floats), build

    return operation


add, subtract = _make_operation("fadd"), _make_operation("fsub")
multiply, divide = _make_operation("fmul"), _make_operation("fdiv")


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, args)


@intrinsic
def fuse(_: Any, left: Any, right: Any, sums: Any) -> Any:
    """``left * right + sums``, rounded once."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return _call(builder, "llvm.fma.v16f32", _VECTOR, *args)

    return floats(floats, floats, floats), build


@intrinsic
def take_larger(_: Any, left: Any, right: Any) -> Any:
    """The larger value at each place."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        is_larger = builder.fcmp_ordered(">", args[0], args[1])
        return builder.select(is_larger, args[0], args[1])

    return floats(floats, floats), build


def _make_reduction(combine: Any) -> Any:
    @intrinsic
    def reduction(_: Any, values: Any) -> Any:
        def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
            # Halves upon each other: always the same order, so always the same rounding.
            values, width = args[0], LANES
            while width > 1:
                width //= 2
                kind = ir.VectorType(ir.IntType(32), width)
                lower = builder.shuffle_vector(
                    values, values, ir.Constant(kind, list(range(width)))
                )
                upper = builder.shuffle_vector(
                    values, values, ir.Constant(kind, list(range(width, 2 * width)))
                )
                values = combine(builder, lower, upper)
            return builder.extract_element(values, _index(0))

        return types.float32(floats), build

    return reduction


sum_up = _make_reduction(lambda builder, a, b: builder.fadd(a, b))
find_largest = _make_reduction(
    lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)
)


@intrinsic
def round_off(_: Any, values: Any) -> Any:
    """The nearest whole numbers."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return _call(builder, "llvm.nearbyint.v16f32", _VECTOR, args[0])

    return floats(floats), build


@intrinsic
def scale_by_power(_: Any, values: Any, exponents: Any) -> Any:
    """``values * 2 ** exponents``, for whole exponents from -126 to 127."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        whole = builder.fptosi(args[1], _INTEGERS)
        biased = builder.add(whole, ir.Constant(_INTEGERS, [127] * LANES))
        bits = builder.shl(biased, ir.Constant(_INTEGERS, [23] * LANES))
        return builder.fmul(args[0], builder.bitcast(bits, _VECTOR))

    return floats(floats, floats), build


def _make_product(num_rows: int) -> Any:
    @intrinsic
    def product(
        _: Any, rows: Any, first: Any, width: Any, panels: Any, start: Any, tile: Any, place: Any
    ) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            _rows, first, width, _panels, start, _tile, place = args
            step = ir.Constant(width.type, LANES)
            sources = [
                _point(
                    context, builder, kinds[0], _rows,
                    builder.add(first, builder.mul(width, ir.Constant(width.type, row))),
                )
                for row in range(num_rows)
            ]  # fmt: skip
            weights = _point(context, builder, kinds[3], _panels, start)
            before = builder.block
            body = builder.append_basic_block("product")
            after = builder.append_basic_block("product.end")
            builder.branch(body)
            builder.position_at_end(body)
            index = builder.phi(width.type)
            index.add_incoming(ir.Constant(width.type, 0), before)
            sums = [builder.phi(_VECTOR) for _row in range(num_rows)]
            pointer = builder.gep(weights, [builder.mul(index, step)])
            weight = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)
            for total, source in zip(sums, sources, strict=True):
                value = builder.load(builder.gep(source, [index]), align=4)
                new = _call(
                    builder, "llvm.fma.v16f32", _VECTOR, _spread(builder, value), weight, total
                )
                total.add_incoming(ir.Constant(_VECTOR, [0.0] * LANES), before)
                total.add_incoming(new, body)
                following = builder.add(index, ir.Constant(width.type, 1))
            index.add_incoming(following, body)
            builder.cbranch(builder.icmp_signed("<", following, width), body, after)
            builder.position_at_end(after)
            for row, total in enumerate(sums):
                offset = builder.add(place, ir.Constant(width.type, row * LANES))
                pointer = _point_vector(context, builder, kinds[5], _tile, offset)
                builder.store(total.incomings[1][0], pointer, align=4)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(rows, whole, whole, panels, whole, tile, whole), build

    return product


# fmt: off
(_product_1, _product_2, _product_3, _product_4, _product_5, _product_6) = (
    _make_product(count) for count in range(1, MAX_TILE_ROWS + 1)
)
# fmt: on


@njit(nogil=True)
def multiply_tile(
    rows: Any, first: int, count: int, width: int, panels: Any, start: int, tile: Any, place: int
) -> None:
    """Up to `MAX_TILE_ROWS` rows times one panel.

    Each sum is taken in the order of the row, however many rows there are, so that a row's
    result does not depend on its neighbours.

    Args:
        rows: (count, width) from element `first` on.
        first: see `rows`.
        count: rows.
        width: of a row.
        panels: (width, 16) weights from element `start` on.
        start: see `panels`.
        tile: takes (count, 16) from element `place` on.
        place: see `tile`.
    """
    if count == 6:
        _product_6(rows, first, width, panels, start, tile, place)
    elif count == 5:
        _product_5(rows, first, width, panels, start, tile, place)
    elif count == 4:
        _product_4(rows, first, width, panels, start, tile, place)
    elif count == 3:
        _product_3(rows, first, width, panels, start, tile, place)
    elif count == 2:
        _product_2(rows, first, width, panels, start, tile, place)
    else:
        _product_1(rows, first, width, panels, start, tile, place)


@njit(nogil=True)
def exponentiate(values: Any) -> Any:
    """e to the power of each value between -87 and 88; others are taken as these.

    Source of the polynomial: expf of the Cephes library, S. Moshier, 1992.
    """
    values = take_larger(values, spread(-87.0))
    values = subtract(spread(0.0), take_larger(subtract(spread(0.0), values), spread(-88.0)))
    powers = round_off(multiply(values, spread(1.44269504)))
    rest = fuse(powers, spread(-0.693359375), values)
    rest = fuse(powers, spread(2.12194440e-4), rest)
    series = fuse(rest, spread(1.9875691e-4), spread(1.3981999e-3))
    series = fuse(series, rest, spread(8.3334519e-3))
    series = fuse(series, rest, spread(4.1665796e-2))
    series = fuse(series, rest, spread(1.6666665e-1))
    series = fuse(series, rest, spread(0.5))
    series = fuse(multiply(series, rest), rest, add(rest, spread(1.0)))
    return scale_by_power(series, powers)
