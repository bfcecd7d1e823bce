"""Matrix products on a CPU: weights laid out once for oneDNN, and pointwise work fused in.

torch's own product reads fp32 weights as they come and is slower for it on every batch size
that decoding has. It knows matrices and no model.
"""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_TYPICAL_ROWS = 16
"""Rows that the layout is chosen for; it depends on them hardly at all."""

MAX_PADDED_ROWS = 8
"""Batches this small are measured, see `choose_row_counts`."""


class PackedLinear:
    """``x @ weight.T + bias`` with a weight in oneDNN's own layout.

    Args:
        weight: (out, in), float32 or bfloat16, on the CPU.
        bias: (out,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _TYPICAL_ROWS)
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, out)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, "none", [], ""
        )
        return product

    def silu(self, rows: Tensor) -> Tensor:
        """The product through SiLU."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, "swish", [], ""
        )
        return product

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product plus `other`, (rows, out)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            rows, other, self._weight, self._bias, "add"
        )
        return product

    def times(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product times `other`, (rows, out), element by element."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            rows, other, self._weight, self._bias, "mul"
        )
        return product


_MAX_ROUNDS = 9


def measure_row_counts(run: Callable[[int], object], has_time: Callable[[], bool]) -> list[float]:
    """The least seconds that `run` takes with 1 to `MAX_PADDED_ROWS` rows.

    Args:
        run: computes so many rows.
        has_time: asked before each further round.
    """
    counts = range(1, MAX_PADDED_ROWS + 1)
    best = [float("inf")] * len(counts)
    for number in range(_MAX_ROUNDS):
        if number and not has_time():
            break
        for index, count in enumerate(counts):
            start = time.perf_counter()
            run(count)
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def choose_row_counts(seconds: Sequence[float]) -> list[int]:
    """With how many rows a batch of n is computed quickest: entry n - 1 is n or more.

    oneDNN's kernels for one and two rows read memory slower than the one for four does, so
    that three rows of nothing can make a step of one shorter. Which counts are good differs
    from machine to machine.

    Args:
        seconds: what a step with 1, 2, ... rows takes.
    """
    chosen: list[int] = []
    for first in range(len(seconds)):
        # A gain within the noise is no reason to compute rows of nothing.
        later = min(range(first, len(seconds)), key=seconds.__getitem__)
        chosen.append(later + 1 if seconds[later] < 0.95 * seconds[first] else first + 1)
    return chosen
