"""Products with the model's own matrices, one by one and joined: the same numbers."""

from collections.abc import Sequence
from typing import Any

import bitsandbytes
import pytest
import torch
from llavachat_server.engine.tensors.products import Products
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

IN = 128
WIDTHS = (64, 32, 32)


def make_linears(*, with_biases: Sequence[bool] = (False, False, False)) -> list[nn.Linear]:
    """Three matrices of one input, of small whole numbers, whose sums are exact."""
    torch.manual_seed(5)
    linears = []
    for width, has_bias in zip(WIDTHS, with_biases, strict=True):
        linear = nn.Linear(IN, width, bias=has_bias).requires_grad_(False)
        linear.weight.copy_(torch.randint(-9, 10, (width, IN)))
        if has_bias:
            linear.bias.copy_(torch.randint(-9, 10, (width,)))
        linears.append(linear)
    return linears


def make_int8(threshold: float, *, has_bias: bool = False) -> list[Any]:
    """The same, quantised by bitsandbytes."""
    modules = []
    for linear in make_linears(with_biases=[has_bias] * 3):
        module = bitsandbytes.nn.Linear8bitLt(
            IN, linear.out_features, bias=has_bias, has_fp16_weights=False, threshold=threshold
        )
        module.load_state_dict(linear.state_dict())
        modules.append(module.to("cpu").eval().requires_grad_(False))
    return modules


def make_nf4() -> list[Any]:
    """The same, with scales that are quantised too."""
    modules = []
    for linear in make_linears():
        module = bitsandbytes.nn.Linear4bit(
            IN, linear.out_features, bias=False, compute_dtype=torch.float32, quant_type="nf4"
        )
        module.load_state_dict(linear.state_dict())
        modules.append(module.to("cpu").eval())
    return modules


def draw_rows(*, outlier: float | None = None) -> Tensor:
    """Five rows; one value of the fourth may lie far out."""
    torch.manual_seed(6)
    rows = torch.randint(-4, 5, (5, IN)).float()
    if outlier is not None:
        rows[3, 7] = outlier
    return rows


@pytest.mark.parametrize("join", [False, True])
def test_linears(*, join: bool) -> None:
    """Side by side in one tensor, or apart; those without a bias get none of a neighbour's."""
    linears = make_linears(with_biases=(True, False, True))
    rows = draw_rows()
    expected = [linear(rows) for linear in linears]
    products = Products(linears, join=join, release=False)

    assert torch.equal(torch.cat(expected, -1), products.together(rows))
    for one, other in zip(expected, products.apart(rows), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 6.0])
@pytest.mark.parametrize("is_used", [False, True], ids=["as loaded", "used before"])
def test_int8_is_what_bitsandbytes_modules_compute(
    *, threshold: float, join: bool, has_bias: bool, is_used: bool
) -> None:
    """To the last bit, with and without outliers, wherever a module keeps its weights."""
    rows = draw_rows(outlier=50.0).half()
    expected = torch.cat([m(rows) for m in make_int8(threshold, has_bias=has_bias)], -1)
    modules = make_int8(threshold, has_bias=has_bias)
    if is_used:
        for module in modules:
            module(rows)
    products = Products(modules, join=join, release=False)

    assert torch.equal(expected, products.together(rows))
    assert torch.equal(expected, torch.cat(list(products.apart(rows)), -1))


def test_the_threshold_is_looked_at() -> None:
    """Else an outlier would coarsen its whole row."""
    rows = draw_rows(outlier=500.0).half()
    exact = torch.cat([linear(rows.float()) for linear in make_linears()], -1)
    errors = [
        (Products(make_int8(threshold), join=True, release=False).together(rows) - exact)[3]
        .abs()
        .max()
        for threshold in (0.0, 6.0)
    ]

    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("join", [False, True])
def test_four_bits_stay_apart(*, join: bool) -> None:
    """Each matrix by its own module, whose weights stay."""
    rows = draw_rows()
    expected = [module(rows) for module in make_nf4()]
    modules = make_nf4()
    products = Products(modules, join=join, release=True)

    assert torch.equal(torch.cat(expected, -1), products.together(rows))
    assert all(module.weight.numel() for module in modules)


@pytest.mark.parametrize("kind", ["linear", "int8"])
def test_joined_weights_are_given_back(kind: str) -> None:
    """Only where they were joined; what is used as it lies stays."""
    make: Any = make_linears if kind == "linear" else (lambda: make_int8(0.0))
    rows = draw_rows().half() if kind == "int8" else draw_rows()
    expected = Products(make(), join=True, release=False).together(rows)
    joined, apart = make(), make()
    products = Products(joined, join=True, release=True)
    Products(apart, join=False, release=True)

    assert torch.equal(expected, products.together(rows))
    assert [0, 0, 0] == [module.weight.numel() for module in joined]
    assert [width * IN for width in WIDTHS] == [module.weight.numel() for module in apart]


def test_int8_without_a_threshold_can_be_recorded() -> None:
    """Tensors without values are enough for it: what looked for outliers would need some."""
    modules = {threshold: make_int8(threshold) for threshold in (0.0, 6.0)}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        rows = torch.empty(5, IN, dtype=torch.float16)
        product = Products(modules[0.0], join=True, release=False).together(rows)
        with pytest.raises(DynamicOutputShapeException):
            Products(modules[6.0], join=True, release=False).together(rows)

    assert (5, sum(WIDTHS)) == product.shape
