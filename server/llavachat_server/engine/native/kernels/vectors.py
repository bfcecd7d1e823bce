"""Sixteen floats as one value inside compiled functions, and what threads need between them.

numba has neither vectors nor atomic counters for a CPU; this module teaches it both, as a few
instructions of LLVM each. LLVM fits sixteen floats to the processor: one register with
AVX-512, two with AVX2. All arrays are one-dimensional, and an index counts elements.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from llavachat_server.engine.native.kernels.compiling import kernel
from llavachat_server.engine.native.plan import LANES

_FLOAT = ir.FloatType()
VECTOR = ir.VectorType(_FLOAT, LANES)
"""The type that LLVM knows them by."""
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)


class _Floats(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Floats16")


floats = _Floats()


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


def point(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """For an intrinsic's body: the address of an element."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


def point_vector(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """For an intrinsic's body: the address of sixteen elements."""
    pointer = point(context, builder, kind, array, index)
    return builder.bitcast(pointer, VECTOR.as_pointer())


def repeat(builder: Any, value: Any) -> Any:
    """For an intrinsic's body: one float in all places."""
    single = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, _index(0))
    zeros = ir.Constant(_INTEGERS, [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(VECTOR, ir.Undefined), zeros)


def _index(number: int) -> Any:
    return ir.Constant(ir.IntType(32), number)


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """Sixteen floats from an array."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = point_vector(context, builder, signature.args[0], *args)
        return builder.load(pointer, align=4)

    return floats(array, types.intp), build


@intrinsic
def store(_: Any, array: Any, index: Any, values: Any) -> Any:
    """Sixteen floats into an array."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = point_vector(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, floats), build


@intrinsic
def spread(_: Any, value: Any) -> Any:
    """One float in all sixteen places."""
    return floats(types.float32), lambda _c, builder, _s, args: repeat(builder, args[0])


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


def call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """For an intrinsic's body: one of LLVM's own functions."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, args)


def prefetch(builder: Any, pointer: Any, *, is_read_once: bool) -> None:
    """For an intrinsic's body: have a cache line read soon.

    Into the second level's cache; where it is read but once, into the first one's alone, so that
    the others keep what they have.
    """
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), *[ir.IntType(32)] * 3])
    name = "llvm.prefetch.p0"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    address = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    locality = 0 if is_read_once else 2
    builder.call(function, [address, _index(0), _index(locality), _index(1)])


def keep_order(builder: Any) -> None:
    """For an intrinsic's body: what reads memory later is not begun before this.

    LLVM would begin all reads of a loop at once, two rounds of it, and then has more values than
    registers. An empty instruction that might do anything keeps it from either.
    """
    kind = ir.FunctionType(ir.VoidType(), [])
    barrier = builder.asm(kind, "", "~{memory}", [], True)
    barrier.attributes.add("convergent")


@intrinsic
def fuse(_: Any, left: Any, right: Any, sums: Any) -> Any:
    """``left * right + sums``, rounded once."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return call(builder, "llvm.fma.v16f32", VECTOR, *args)

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
        return call(builder, "llvm.nearbyint.v16f32", VECTOR, args[0])

    return floats(floats), build


@intrinsic
def scale_by_power(_: Any, values: Any, exponents: Any) -> Any:
    """``values * 2 ** exponents``, for whole exponents from -126 to 127."""

    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        whole = builder.fptosi(args[1], _INTEGERS)
        biased = builder.add(whole, ir.Constant(_INTEGERS, [127] * LANES))
        bits = builder.shl(biased, ir.Constant(_INTEGERS, [23] * LANES))
        return builder.fmul(args[0], builder.bitcast(bits, VECTOR))

    return floats(floats, floats), build


@kernel
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


@kernel
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
