"""Matrix products of a model's own linear modules, quantised or not, several of one input.

It knows modules of torch and bitsandbytes, and no layer.

Matrices of one input could be laid under one another, which would save launches on a GPU. They
are not: what is freed between weights that stay is no room for a cache of keys and values, and may
be a fifth of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_MOST = 127
"""The greatest digit of 8 bits, as bitsandbytes has it: a row's greatest magnitude."""


class Products:
    """The products of one input with several matrices.

    Args:
        modules: linear ones.
        int8_threshold: see `EngineSettings`; for bitsandbytes' matrices of 8 bits.
    """

    def __init__(self, modules: Sequence[Any], int8_threshold: float | None = None) -> None:
        self._threshold = int8_threshold
        self._matrices = [_read_int8(module) for module in modules if _is_int8(module)]
        # One of several kinds is called as it is.
        if len(self._matrices) < len(modules):
            self._matrices = []
        self._modules: Sequence[Callable[[Tensor], Tensor]] = modules

    def together(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, all outs), side by side in one tensor."""
        results = self.apart(rows)
        return results[0] if len(results) == 1 else torch.cat(results, -1)

    def apart(self, rows: Tensor) -> list[Tensor]:
        """(rows, in) to (rows, out) of each."""
        if not self._matrices:
            return [module(rows) for module in self._modules]
        if self._threshold:
            multiply = _split_outliers_off(rows, self._threshold)
        elif self._threshold == 0:
            multiply = _take_one_digit(rows)
        else:
            multiply = _take_two_digits(rows)
        return [matrix.add_bias(multiply(matrix)) for matrix in self._matrices]


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """A matrix of 8 bits as bitsandbytes makes it.

    Args:
        weight: (out, in), int8.
        scales: (out,), float32, the greatest magnitude of each of the weight's rows.
        bias: (out,) or None.
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor | None

    def multiply(self, digits: Tensor, steps: Tensor, dtype: torch.dtype) -> Tensor:
        """The product with rows of 8 bits, without the bias.

        Args:
            digits: (rows, in), int8.
            steps: (rows,), float32; what `_MOST` of a row's digits is.
            dtype: of the result.
        """
        product: Tensor = torch.ops.bitsandbytes.int8_scaled_mm(
            digits, self.weight, steps, self.scales, None, dtype
        )
        return product

    def add_bias(self, product: Tensor) -> Tensor:
        """(rows, out) to the same."""
        return product if self.bias is None else product + self.bias.to(product.dtype)


_Multiply = Callable[[Int8Matrix], Tensor]


def _take_two_digits(rows: Tensor) -> _Multiply:
    """Multiply in two digits of 8 bits: the second says what the first leaves.

    Its steps are 254 times as fine, so that rows are as exact as in 16 bits, outliers or not. Both
    digits go through a matrix in one product of whole numbers, whose sums are exact in any order: a
    row's result is the same to the bit whatever rows are beside it. Nothing about it depends on
    values, so that it can be recorded.
    """
    halves = _to_halves(rows)
    digits, steps = _quantise(halves)
    rest = torch.addcmul(halves, digits, steps.unsqueeze(1), value=-1 / _MOST)
    finer, finer_steps = _quantise(rest.to(torch.float16))
    digits, steps = torch.cat((digits, finer)), torch.cat((steps, finer_steps))

    def multiply(matrix: Int8Matrix) -> Tensor:
        both = matrix.multiply(digits, steps, rows.dtype)
        return both[: len(rows)] + both[len(rows) :]

    return multiply


def _take_one_digit(rows: Tensor) -> _Multiply:
    """Multiply in 8 bits, which lose what is small beside something large in the same row."""
    digits, steps = _quantise(_to_halves(rows))
    return lambda matrix: matrix.multiply(digits, steps, rows.dtype)


def _split_outliers_off(rows: Tensor, threshold: float) -> _Multiply:
    """Multiply as LLM.int8() does: columns with a value over the threshold in 16 bits.

    It asks the host which those are. Source: Dettmers et al., "LLM.int8()", 2022, section 3.
    """
    halves = _to_halves(rows)
    digits, steps, columns = torch.ops.bitsandbytes.int8_vectorwise_quant(halves, threshold)

    def multiply(matrix: Int8Matrix) -> Tensor:
        product: Tensor = torch.ops.bitsandbytes.int8_mixed_scaled_mm(
            rows, digits, matrix.weight, steps, matrix.scales, columns, None
        )[0]
        return product

    return multiply


def _to_halves(rows: Tensor) -> Tensor:
    # bitsandbytes' kernels read rows of 16 bits, one after the other.
    return rows.to(torch.float16).contiguous()


def _quantise(halves: Tensor) -> tuple[Tensor, Tensor]:
    # Digits and steps, see `Int8Matrix.multiply`.
    digits, steps, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(halves, 0.0)
    return digits, steps


def _is_int8(module: Any) -> bool:
    # By name, since bitsandbytes takes a second to import and may not be there.
    return type(module).__name__ == "Linear8bitLt"


def _read_int8(module: Any) -> Int8Matrix:
    # What was quantised lies in the weight until the module is first called, and then in its state.
    holder = module.weight if module.state.CB is None else module.state
    weight = module.weight.data if holder.CB is None else holder.CB
    return Int8Matrix(weight, holder.SCB, None if module.bias is None else module.bias.data)
