"""How threads share a step: units of a phase are taken one by one, by whoever is free.

A phase is over when all its units are done, not when all threads have come, so that a thread
that the system has not let run yet holds nobody up. Counters belong to one step.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from llavachat_server.engine.native.kernels.compiling import kernel
from llavachat_server.engine.native.plan import STRIDE

_ENTERED, _LEFT, _IS_OVER = 0, 1, 2
_NUM_SPINS = 2000
"""Looks at a counter before the processor is offered to others; some microseconds."""
_NUM_OFFERS = 20
_SLEEP_MICROSECONDS = 20
"""After so many offers the thread sleeps between looks. One that only offers keeps its core busy,
and the thread that it waits for, pushed aside on another core, is not moved to it."""

_sched_yield = types.ExternalFunction("sched_yield", types.int32())
_usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@intrinsic
def _raise(_: Any, array: Any, index: Any) -> Any:
    # Adds one; the value before. All threads see all counters change in one order.
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), one, "seq_cst")

    return types.int64(array, types.intp), build


@intrinsic
def _look(_: Any, array: Any, index: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), build


@kernel
def _wait(counters: Any, index: int, value: int) -> None:
    spins = 0
    while _look(counters, index) < value:
        spins += 1
        if spins > _NUM_SPINS + _NUM_OFFERS:
            _usleep(_SLEEP_MICROSECONDS)
        elif spins > _NUM_SPINS:
            _sched_yield()


@kernel
def enter(counters: Any) -> bool:
    """Whether a thread may take part: False when the step is over already."""
    _raise(counters, _ENTERED)
    if _look(counters, _IS_OVER) > 0:
        _raise(counters, _LEFT)
        return False
    return True


@kernel
def leave(counters: Any) -> None:
    """A helping thread's last word."""
    _raise(counters, _LEFT)


@kernel
def close(counters: Any) -> None:
    """End the step, by the thread that began it: nobody touches its buffers from now on."""
    _raise(counters, _IS_OVER)
    while _look(counters, _LEFT) < _look(counters, _ENTERED):
        _sched_yield()


@kernel
def take(counters: Any, phase: int) -> int:
    """The number of a unit that nobody has taken; the phase's size or more when none is left."""
    return _raise(counters, STRIDE * (1 + phase))


@kernel
def finish(counters: Any, phase: int) -> None:
    """A unit that was taken is done."""
    _raise(counters, STRIDE * (1 + phase) + 1)


@kernel
def await_all(counters: Any, phase: int, num_units: int) -> None:
    """Until every unit of a phase is done."""
    _wait(counters, STRIDE * (1 + phase) + 1, num_units)
