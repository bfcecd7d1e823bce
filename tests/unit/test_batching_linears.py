"""Packed products and the choice of how many rows to compute."""

import pytest
import torch
import torch.nn.functional as F
from llavachat_server.engine.tensors.linears import PackedLinear, choose_row_counts


@pytest.mark.parametrize("num_rows", [1, 3, 4, 17])
@pytest.mark.parametrize("has_bias", [False, True])
def test_packed_products_equal_plain_ones(num_rows: int, has_bias: bool) -> None:
    """Layout and fusion change no result beyond rounding."""
    torch.manual_seed(0)
    weight, rows, other = torch.randn(24, 16), torch.randn(num_rows, 16), torch.randn(num_rows, 24)
    bias = torch.randn(24) if has_bias else None
    with torch.inference_mode():
        packed = PackedLinear(weight, bias)
        plain = F.linear(rows, weight, bias)
        torch.testing.assert_close(packed(rows), plain)
        torch.testing.assert_close(packed.silu(rows), F.silu(plain))
        torch.testing.assert_close(packed.plus(rows, other), plain + other)
        torch.testing.assert_close(packed.times(rows, other), plain * other)


def test_slow_counts_are_padded_to_quick_ones() -> None:
    """Counts one to three cost more than four here, so four rows are computed for them."""
    assert [4, 4, 4, 4, 5, 6] == choose_row_counts([3.9, 4.6, 3.4, 2.9, 3.0, 3.1])


def test_noise_pads_nothing() -> None:
    """Where every count costs what it should, nothing is padded."""
    assert [1, 2, 3, 4] == choose_row_counts([1.00, 1.01, 0.99, 1.00])
