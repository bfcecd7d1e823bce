"""The noise that draws are made with: a hash of seed, position and token."""

import torch
from torch import Tensor

from llavachat_server.engine.sampling import GOLDEN, MIX_1, MIX_2

_GOLDEN, _MIX_1, _MIX_2 = (constant - 2**64 for constant in (GOLDEN, MIX_1, MIX_2))
"""As signed numbers, which is all that torch computes with."""


def draw_gumbel(seeds: Tensor, positions: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise that depends on nothing but (seed, position, token).

    Args:
        seeds: (requests,), int64.
        positions: (requests,).
        tokens: (requests or 1, tokens), int64, ids.

    Returns:
        (requests, tokens), float32.
    """
    keys = _mix_bits(seeds + _GOLDEN * (positions.to(torch.int64) + 1))
    bits = _mix_bits(keys.unsqueeze(1) + _GOLDEN * (tokens + 1))
    uniform = (_shift_right(bits, 11).to(torch.float64) + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform)).to(torch.float32)


def to_signed(bits: int) -> int:
    """64 bits as the number that int64 takes them for."""
    return bits - 2**64 if bits >= 2**63 else bits


def _mix_bits(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    # int64's own shift drags the sign along.
    return (bits >> count) & ((1 << (64 - count)) - 1)
