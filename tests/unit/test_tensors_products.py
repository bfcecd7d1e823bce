"""Products with the model's own matrices: bitsandbytes' numbers, or more exact ones."""

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


def test_linears() -> None:
    """Side by side in one tensor, or apart."""
    linears = make_linears(with_biases=(True, False, True))
    rows = draw_rows()
    expected = [linear(rows) for linear in linears]
    products = Products(linears)

    assert torch.equal(torch.cat(expected, -1), products.together(rows))
    for one, other in zip(expected, products.apart(rows), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 6.0])
@pytest.mark.parametrize("is_used", [False, True], ids=["as loaded", "used before"])
def test_int8_with_a_threshold_is_what_bitsandbytes_modules_compute(
    *, threshold: float, has_bias: bool, is_used: bool
) -> None:
    """With and without outliers, wherever a module keeps its weights; a bias is added later."""
    rows = draw_rows(outlier=50.0).half()
    expected = torch.cat([m(rows) for m in make_int8(threshold, has_bias=has_bias)], -1)
    modules = make_int8(threshold, has_bias=has_bias)
    if is_used:
        for module in modules:
            module(rows)
    products = Products(modules, threshold)

    torch.testing.assert_close(products.together(rows), expected, rtol=2e-3, atol=0.02)
    assert torch.equal(products.together(rows), torch.cat(products.apart(rows), -1))
    if not has_bias:
        assert torch.equal(expected, products.together(rows))


def measure_errors(threshold: float | None, outlier: float) -> Tensor:
    """Of each row of a product, by the exact one with the same 8-bit matrix."""
    torch.manual_seed(7)
    rows = torch.randn(16, IN)
    rows[:, [3, 70]] *= outlier
    modules = make_int8(0.0)
    weights = torch.cat([m.weight.CB.double() * m.weight.SCB.double()[:, None] for m in modules])
    exact = rows.half().double() @ weights.T / 127
    product = Products(modules, threshold).together(rows.half())
    return (product - exact).norm(dim=1) / exact.norm(dim=1)


@pytest.mark.parametrize("outlier", [1.0, 10.0, 60.0])
def test_two_digits_are_as_exact_as_16_bits(outlier: float) -> None:
    """16 bits have 11 of precision; eight bits alone lose what is small beside an outlier."""
    assert measure_errors(None, outlier).max() < 2**-10
    assert measure_errors(0.0, outlier).max() > 2**-8


def test_the_threshold_is_looked_at() -> None:
    """LLM.int8() takes outliers out of what they would coarsen, and the rest is in 8 bits."""
    assert measure_errors(6.0, 60.0).max() < measure_errors(0.0, 60.0).max() / 4


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_a_rows_result_does_not_depend_on_its_company(threshold: float | None) -> None:
    """Sums of whole numbers are exact in any order, and scales are each row's own."""
    torch.manual_seed(8)
    rows = torch.randn(33, IN).half()
    rows[17, 5] = 300.0
    products = Products(make_int8(0.0), threshold)
    alone = torch.cat([products.together(row.unsqueeze(0)) for row in rows])

    assert torch.equal(alone, products.together(rows))


def test_a_row_of_zeros_is_zero() -> None:
    """Though its greatest magnitude is nothing to divide by; padding rows may be that."""
    products = Products(make_int8(0.0))

    assert torch.equal(torch.zeros(2, sum(WIDTHS)), products.together(torch.zeros(2, IN)))


def test_four_bits_and_mixtures_are_left_to_their_modules() -> None:
    """Each by its own, also where another one is in 8 bits."""
    rows = draw_rows()
    modules = [*make_nf4()[:2], make_int8(0.0)[2]]
    expected = [module(rows) for module in modules]
    products = Products(modules)

    assert torch.equal(torch.cat(expected, -1), products.together(rows))


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_int8_can_be_recorded(threshold: float | None) -> None:
    """Tensors without values are enough for it."""
    modules = make_int8(0.0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        rows = torch.empty(5, IN, dtype=torch.float16)
        product = Products(modules, threshold).together(rows)

    assert (5, sum(WIDTHS)) == product.shape


def test_int8_that_looks_for_outliers_can_not_be_recorded() -> None:
    """How many columns have one is not known before the values are."""
    modules = make_int8(6.0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        rows = torch.empty(5, IN, dtype=torch.float16)
        with pytest.raises(DynamicOutputShapeException):
            Products(modules, 6.0).together(rows)
