"""Matrix products of a model's own linear modules, quantised or not, several in one.

A layer multiplies one input by three matrices and then another by two. On a GPU each product costs
a launch or several, whatever its size, and int8 ones quantise their input first; so matrices of
one input are laid under one another where that leaves every row as it is. It knows modules of torch
and bitsandbytes, and no layer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Product = Callable[[Tensor], Tensor]
"""(rows, in) to (rows, out)."""


class Products:
    """The products of one input with several matrices.

    bitsandbytes' 4-bit matrices are never joined: each has statistics of its own about the scales
    of its blocks, and scales written out in 32 bits would be 9 % more to read.

    Args:
        modules: linear ones.
        join: lay their weights into one matrix. A matrix that is only mapped becomes memory.
        release: give the modules' own weights back where they were joined.
    """

    def __init__(self, modules: Sequence[Any], *, join: bool, release: bool) -> None:
        self._widths = [module.out_features for module in modules]
        is_joined = join and len(modules) > 1
        self._products: list[Product]
        if all(_is_int8(module) for module in modules):
            parts = [_read_int8(module) for module in modules]
            self._products = [_join_int8(parts)] if is_joined else [*parts]
        elif is_joined and all(type(module) is nn.Linear for module in modules):
            self._products = [_join_linears(modules)]
        else:
            self._products = list(modules)
        if release and len(self._products) < len(modules):
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
    """LLM.int8() by bitsandbytes' kernels: rows and weights in 8 bits, outliers apart.

    With a threshold of 0 nothing about it depends on what the rows hold, so that it can be
    recorded.
    Source: Dettmers et al., "LLM.int8()", 2022, section 3; the operations are bitsandbytes' own.

    Args:
        weight: (out, in), int8.
        scales: (out,), float32, the greatest magnitude of each of the weight's rows.
        bias: (out,) or None.
        threshold: see `EngineSettings.int8_threshold`.
    """

    def __init__(
        self, weight: Tensor, scales: Tensor, bias: Tensor | None, threshold: float
    ) -> None:
        self.weight, self.scales, self.bias = weight, scales, bias
        self.threshold = threshold

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, in) to (rows, out)."""
        operations = torch.ops.bitsandbytes
        quantised, row_scales, columns = operations.int8_vectorwise_quant(
            rows.to(torch.float16).contiguous(), self.threshold
        )
        bias = None if self.bias is None else self.bias.to(rows.dtype)
        if self.threshold:
            mixed: Tensor = operations.int8_mixed_scaled_mm(
                rows, quantised, self.weight, row_scales, self.scales, columns, bias
            )[0]
            return mixed
        product: Tensor = operations.int8_scaled_mm(
            quantised, self.weight, row_scales, self.scales, bias, rows.dtype
        )
        return product


def _is_int8(module: Any) -> bool:
    # By name, since bitsandbytes takes a second to import and may not be there.
    return type(module).__name__ == "Linear8bitLt"


def _read_int8(module: Any) -> Int8Product:
    # What was quantised lies in the weight until the module is first called, and then in its state.
    holder = module.weight if module.state.CB is None else module.state
    weight = module.weight.data if holder.CB is None else holder.CB
    bias = None if module.bias is None else module.bias.data
    return Int8Product(weight, holder.SCB, bias, module.state.threshold)


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
