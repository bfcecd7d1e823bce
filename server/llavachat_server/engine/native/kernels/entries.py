"""The kernels as functions of one address, which is how other processes call them.

What they are told lies behind it as 64-bit words, in the order in which it is read here; see
`calls`.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from llavachat_server.engine.native.code import Image
from llavachat_server.engine.native.kernels.compiling import kernel
from llavachat_server.engine.native.kernels.flattening import flatten
from llavachat_server.engine.native.kernels.step import run_step
from llavachat_server.engine.native.kernels.tower import run_tower
from llavachat_server.engine.native.plan import (
    Buffers,
    Sizes,
    Step,
    TowerBuffers,
    TowerReading,
    TowerSizes,
)

_WORDS = types.CPointer(types.int64)


def _read_word(builder: Any, words: Any, first: Any, number: int) -> Any:
    place = builder.add(first, ir.Constant(first.type, number))
    return builder.load(builder.gep(words, [place]))


@intrinsic(prefer_literal=True)
def _read_numbers(_: Any, words: Any, first: Any, count: Any) -> Any:
    """Words as they are, `count` of them."""
    kind = types.UniTuple(types.int64, count.literal_value)

    def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        numbers = [_read_word(builder, args[0], args[1], number) for number in range(len(kind))]
        return context.make_tuple(builder, kind, numbers)

    return kind(words, first, count), build


def _make_reader(element: Any) -> Any:
    array_kind = types.Array(element, 1, "C")

    @intrinsic(prefer_literal=True)
    def read_arrays(_: Any, words: Any, first: Any, count: Any) -> Any:
        """Pairs of words, an address and a length, as `count` arrays of one dimension."""
        kind = types.UniTuple(array_kind, count.literal_value)

        def build(context: Any, builder: Any, _s: Any, args: Any) -> Any:
            arrays = []
            for number in range(len(kind)):
                address, length = (
                    _read_word(builder, args[0], args[1], 2 * number + part) for part in (0, 1)
                )
                size = context.get_abi_sizeof(context.get_value_type(element))
                array = context.make_array(array_kind)(context, builder)
                populate_array(
                    array,
                    data=builder.inttoptr(address, array.data.type),
                    shape=[length],
                    strides=[ir.Constant(length.type, size)],
                    itemsize=ir.Constant(length.type, size),
                    meminfo=None,
                )
                arrays.append(array._getvalue())
            return context.make_tuple(builder, kind, arrays)

        return kind(words, first, count), build

    return read_arrays


_read_floats, _read_integers = _make_reader(types.float32), _make_reader(types.int64)

_NUM_SIZES, _NUM_BUFFERS, _NUM_COLUMNS = (len(kind._fields) for kind in (Sizes, Buffers, Step))
_NUM_TOWER_SIZES, _NUM_TOWER_BUFFERS, _NUM_TOWER_COLUMNS = (
    len(kind._fields) for kind in (TowerSizes, TowerBuffers, TowerReading)
)


@kernel
def _enter_step(words: Any) -> None:
    sizes = Sizes(*_read_numbers(words, 0, _NUM_SIZES))
    at = _NUM_SIZES
    buffers = Buffers(*_read_floats(words, at, _NUM_BUFFERS))
    at += 2 * _NUM_BUFFERS
    step = Step(*_read_integers(words, at, _NUM_COLUMNS))
    at += 2 * _NUM_COLUMNS
    (floor,) = _read_floats(words, at, 1)
    (counters,) = _read_integers(words, at + 2, 1)
    (scratch,) = _read_floats(words, at + 4, 1)
    run_step(sizes, buffers, step, floor[0], counters, scratch, words[at + 6] != 0)


@kernel
def _enter_tower(words: Any) -> None:
    sizes = TowerSizes(*_read_numbers(words, 0, _NUM_TOWER_SIZES))
    at = _NUM_TOWER_SIZES
    buffers = TowerBuffers(*_read_floats(words, at, _NUM_TOWER_BUFFERS))
    at += 2 * _NUM_TOWER_BUFFERS
    reading = TowerReading(*_read_integers(words, at, _NUM_TOWER_COLUMNS))
    at += 2 * _NUM_TOWER_COLUMNS
    (floor,) = _read_floats(words, at, 1)
    (counters,) = _read_integers(words, at + 2, 1)
    (scratch,) = _read_floats(words, at + 4, 1)
    run_tower(sizes, buffers, reading, floor[0], counters, scratch, words[at + 6] != 0)


ENTRIES = {"step": _enter_step, "tower": _enter_tower}
"""By the names of `apart.PARTS`."""


def compile_entry(part: str) -> Image:
    """Compile one entry and all that it calls.

    Args:
        part: of `ENTRIES`.
    """
    entry = ENTRIES[part]
    entry.compile((_WORDS,))
    (compiled,) = entry.overloads.values()
    return flatten(compiled.library._get_compiled_object(), compiled.fndesc.llvm_func_name)
