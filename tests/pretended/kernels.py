"""Kernels that torch and bitsandbytes have for CUDA alone, or that take less there.

Source: torch 2.13, and `backends/cuda/ops.py` in bitsandbytes 0.50.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pretended.device import CONTRACTS, KERNELS, Gpu
from pretended.memory import alias


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    _: Tensor,
    max_q: int,
    max_k: int,
    *rest: Any,
    scale: float | None = None,
    seqused_k: Tensor,
    block_table: Tensor,
    **__: Any,
) -> tuple[Tensor, ...]:
    """FlashAttention 2 over pages, causal. Like the kernel it clears values behind the last key."""
    output = torch.empty_like(query)
    sums = torch.zeros(query.shape[1], query.shape[0])
    for number, length in enumerate(seqused_k.tolist()):
        first, end = ends[number : number + 2].tolist()
        assert 0 <= end - first <= max_q
        assert length <= max_k
        keys, values = (
            store[block_table[number].long()].flatten(0, 1)[:length].transpose(0, 1).float()
            for store in (key, value)
        )
        group = query.shape[1] // keys.shape[0]
        keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
        rows = query[first:end].transpose(0, 1).float()
        scores = rows @ keys.transpose(1, 2) * (scale or query.shape[-1] ** -0.5)
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(length - (end - first) + 1)
        scores.masked_fill_(hidden, -torch.inf)
        # Weights go through the tensor cores in 16 bits.
        weights = scores.softmax(-1).to(query.dtype).float()
        output[first:end] = (weights @ values).transpose(0, 1).to(query.dtype)
        sums[:, first:end] = scores.logsumexp(-1)
    nothing = torch.zeros(2, dtype=torch.uint64)
    return output, sums, nothing, torch.zeros((), dtype=torch.uint64), torch.empty(0)


KERNELS |= {
    "aten::_flash_attention_forward": _attend,
    "aten::bmm.dtype": lambda one, other, dtype: torch.bmm(one.to(dtype), other.to(dtype)),
}


def _require(*conditions: bool) -> None:
    if not all(conditions):
        raise RuntimeError("not what the kernel for CUDA takes")


def _check_attention(
    gpu: Gpu,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    ends_k: Tensor,
    *rest: Any,
    window_size_left: int,
    window_size_right: int,
    seqused_k: Tensor,
    block_table: Tensor,
    num_splits: int | None = None,
    **_: Any,
) -> None:
    """Source: ``mha_varlen_fwd`` in torch's `flash_api.cpp`, and pytorch#194167 for the splits."""
    num_requests = len(ends) - 1
    _require(
        gpu.capability >= (8, 0),
        query.dtype in (torch.float16, torch.bfloat16),
        query.dtype == key.dtype == value.dtype,
        all(t.dtype == torch.int32 for t in (ends, ends_k, seqused_k, block_table)),
        all(t.stride(-1) == 1 for t in (query, key, value, block_table)),
        all(t.is_contiguous() for t in (ends, ends_k, seqused_k)),
        key.shape[1] % 256 == 0,
        query.shape[2] % 8 == 0,
        query.shape[2] <= 256,
        query.shape[1] % key.shape[2] == 0,
        key.shape == value.shape,
        key.shape[3] == query.shape[2],
        block_table.shape[0] == num_requests,
        ends_k.shape == ends.shape,
        seqused_k.shape == (num_requests,),
        (window_size_left, window_size_right, num_splits) == (-1, 0, 1),
    )


def _check_bmm(gpu: Gpu, one: Tensor, other: Tensor, dtype: torch.dtype) -> None:
    """Source: ``baddbmm_bmm_out_dtype_checks`` in torch's `cuda/Blas.cpp`."""
    halves = (torch.float16, torch.bfloat16)
    _require(
        one.dtype == other.dtype,
        dtype == one.dtype or (dtype == torch.float32 and one.dtype in halves),
    )


def _check_int8_rows(gpu: Gpu, rows: Tensor, threshold: float = 0.0) -> None:
    _require(rows.dtype == torch.float16, rows.is_contiguous())
    if threshold:
        gpu.wait("whether there are outliers")
        if bool((alias(rows).abs() >= threshold).any()):
            gpu.wait("which columns have outliers")


def _check_int8_product(gpu: Gpu, rows: Tensor, matrix: Tensor) -> None:
    _require(
        rows.dtype == matrix.dtype == torch.int8,
        rows.is_contiguous(),
        matrix.is_contiguous(),
        rows.shape[-1] == matrix.shape[-1],
        matrix.dim() == 2,
        rows.numel() > 0,
        # Those that are not are multiplied in 32 bits, slowly.
        rows.shape[-1] % 4 == 0,
        matrix.shape[0] % 4 == 0,
    )


def _check_int8_scaling(
    gpu: Gpu, product: Tensor, rows: Tensor, columns: Tensor, *_: Any, **__: Any
) -> None:
    _require(
        product.dtype == torch.int32,
        rows.dtype == columns.dtype == torch.float32,
        all(t.is_contiguous() for t in (product, rows, columns)),
    )


def _check_4bit_product(
    gpu: Gpu,
    rows: Tensor,
    matrix: Tensor,
    shape: Sequence[int],
    scales: Tensor,
    block: int,
    kind: str,
    bias: Tensor | None = None,
    *nested: Tensor,
    **named: Tensor,
) -> None:
    _require(
        rows.dtype in (torch.float16, torch.bfloat16, torch.float32),
        rows.shape[-1] == shape[1],
        matrix.is_contiguous(),
        scales.dtype == torch.float32,
        # Those that are not are unpacked first, with a warning.
        shape[1] % block == 0,
        bias is None or bias.dtype == rows.dtype,
    )


def _check_float_rows(gpu: Gpu, rows: Tensor, *_: Any, **__: Any) -> None:
    _require(rows.dtype in (torch.float16, torch.bfloat16, torch.float32))


CONTRACTS |= {
    "aten::_flash_attention_forward": _check_attention,
    "aten::bmm.dtype": _check_bmm,
    "bitsandbytes::int8_vectorwise_quant": _check_int8_rows,
    "bitsandbytes::int8_linear_matmul": _check_int8_product,
    "bitsandbytes::int8_mm_dequant": _check_int8_scaling,
    "bitsandbytes::gemm_4bit": _check_4bit_product,
    "bitsandbytes::quantize_4bit": _check_float_rows,
    "bitsandbytes::quantize_blockwise": _check_float_rows,
}
