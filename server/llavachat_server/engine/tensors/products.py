"""Matrix products of a model's own linear modules, quantised or not, several in one.

A layer multiplies one input by three matrices and then another by two. On a GPU each product costs
a launch or several, whatever its size, and int8 ones quantise their input first; so matrices of
one input are laid under one another where that leaves every row as it is. It knows modules of torch
and bitsandbytes, and no layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Product = Callable[[Tensor], Tensor]
"""(rows, in) to (rows, out)."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """What becomes of a model's own weights, and how int8 ones are multiplied.

    Args:
        join: lay matrices of one input into one. A matrix that is only mapped becomes memory.
        release: give the modules' own weights back where they were joined or packed.
        int8_threshold: see `EngineSettings`.
    """

    join: bool = False
    release: bool = False
    int8_threshold: float | None = None


class Products:
    """The products of one input with several matrices.

    bitsandbytes' 4-bit matrices are never joined: each has statistics of its own about the scales
    of its blocks, and scales written out in 32 bits would be 9 % more to read.

    Args:
        modules: linear ones.
        treatment: of their weights.
    """

    def __init__(self, modules: Sequence[Any], treatment: Treatment) -> None:
        self._widths = [module.out_features for module in modules]
        is_joined = treatment.join and len(modules) > 1
        self._products: list[Product]
        if all(_is_int8(module) for module in modules):
            parts = [_read_int8(module, treatment.int8_threshold) for module in modules]
            self._products = [_join_int8(parts)] if is_joined else [*parts]
        elif is_joined and all(type(module) is nn.Linear for module in modules):
            self._products = [_join_linears(modules)]
        else:
            self._products = list(modules)
        if treatment.release and len(self._products) < len(modules):
            for module in modules:
                _release(module)

    def together(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, all outs), side by side in one tensor."""
        results = [product(rows) for product in self._products]
        return results[0] if len(results) == 1 else torch.cat(results, -1)

    def apart(self, rows: Tensor) -> Sequence[Tensor]:
        """(rows, in) to (rows, out) of each."""
        if len(self._products) == len(self._widths):
            return [product(rows) for product in self._products]
        return torch.split(self._products[0](rows), self._widths, -1)


class Int8Product:
    """A product with a matrix of 8 bits, by the operations that bitsandbytes has for LLM.int8().

    Without a threshold the rows are taken in two digits of 8 bits: the second one says what the
    first one leaves, in steps 254 times as fine. Both go through the matrix in one product of whole
    numbers. So rows are as exact as in 16 bits, outliers or not, and a row's result is the same to
    the bit whatever rows are beside it.

    With a threshold of 0 rows have the first digit alone. Above it, that is LLM.int8(): columns
    with a value over the threshold are multiplied in 16 bits, which asks the host which those are.
    All else asks nothing about values, so that it can be recorded.

    Args:
        weight: (out, in), int8.
        scales: (out,), float32, the greatest magnitude of each of the weight's rows.
        bias: (out,) or None.
        threshold: see `EngineSettings.int8_threshold`.

    Source of LLM.int8(): Dettmers et al. 2022, section 3.
    """

    def __init__(
        self, weight: Tensor, scales: Tensor, bias: Tensor | None, threshold: float | None
    ) -> None:
        self.weight, self.scales, self.bias = weight, scales, bias
        self.threshold = threshold

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, out)."""
        if self.threshold:
            return self._multiply_outliers_apart(rows)
        # bitsandbytes' kernels read rows of 16 bits, one after the other.
        halves = rows.to(torch.float16).contiguous()
        digits, steps = _quantise(halves)
        if self.threshold == 0:
            return self._add_bias(self._multiply(digits, steps, rows.dtype))
        rest = torch.addcmul(halves, digits, steps.unsqueeze(1), value=-1 / _MOST)
        finer, finer_steps = _quantise(rest.to(torch.float16))
        both = self._multiply(
            torch.cat((digits, finer)), torch.cat((steps, finer_steps)), rows.dtype
        )
        return self._add_bias(both[: len(rows)] + both[len(rows) :])

    def _multiply(self, digits: Tensor, steps: Tensor, dtype: torch.dtype) -> Tensor:
        product: Tensor = torch.ops.bitsandbytes.int8_scaled_mm(
            digits, self.weight, steps, self.scales, None, dtype
        )
        return product

    def _multiply_outliers_apart(self, rows: Tensor) -> Tensor:
        halves = rows.to(torch.float16).contiguous()
        digits, steps, columns = torch.ops.bitsandbytes.int8_vectorwise_quant(
            halves, self.threshold
        )
        product: Tensor = torch.ops.bitsandbytes.int8_mixed_scaled_mm(
            rows, digits, self.weight, steps, self.scales, columns, None
        )[0]
        return self._add_bias(product)

    def _add_bias(self, product: Tensor) -> Tensor:
        return product if self.bias is None else product + self.bias.to(product.dtype)


_MOST = 127
"""The greatest digit of 8 bits, as bitsandbytes has it: a row's greatest magnitude."""


def _quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    # Digits, and what `_MOST` of them is, for each row.
    digits, steps, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(rows, 0.0)
    return digits, steps


def _is_int8(module: Any) -> bool:
    # By name, since bitsandbytes takes a second to import and may not be there.
    return type(module).__name__ == "Linear8bitLt"


def _read_int8(module: Any, threshold: float | None) -> Int8Product:
    # What was quantised lies in the weight until the module is first called, and then in its state.
    holder = module.weight if module.state.CB is None else module.state
    weight = module.weight.data if holder.CB is None else holder.CB
    bias = None if module.bias is None else module.bias.data
    return Int8Product(weight, holder.SCB, bias, threshold)


def _join_int8(parts: Sequence[Int8Product]) -> Int8Product:
    return Int8Product(
        torch.cat([part.weight for part in parts]),
        torch.cat([part.scales for part in parts]),
        _join_biases([(part.bias, len(part.scales)) for part in parts]),
        parts[0].threshold,
    )


def _join_linears(modules: Sequence[Any]) -> Product:
    weight = torch.cat([module.weight for module in modules])
    bias = _join_biases([(module.bias, module.out_features) for module in modules])

    def multiply(rows: Tensor) -> Tensor:
        return F.linear(rows, weight, bias)

    return multiply


def _join_biases(parts: Sequence[tuple[Tensor | None, int]]) -> Tensor | None:
    like = next((bias for bias, _ in parts if bias is not None), None)
    if like is None:
        return None
    return torch.cat([like.new_zeros(width) if bias is None else bias for bias, width in parts])


def _release(module: Any) -> None:
    module.weight = nn.Parameter(module.weight.data.new_empty(0), requires_grad=False)
    if _is_int8(module):
        module.state.CB = module.state.SCB = None
