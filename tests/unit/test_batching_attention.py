"""Where keys and values lie, and that reading them in pieces changes nothing."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from llavachat_server.engine.tensors.attention import (
    MAX_SCORES,
    PieceAttention,
    Rows,
    Shape,
    attend_in_slices,
    find_pieces,
)
from torch.utils._python_dispatch import TorchDispatchMode


def test_neighbouring_blocks_are_one_piece() -> None:
    """Runs are joined, gaps and backward steps are not, and the last block may be part full."""
    assert [(8, 20), (0, 4), (24, 26)] == find_pieces([2, 3, 4, 0, 6], 18, 4)


@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize(
    "blocks",
    [[3, 4, 5, 6, 7], [3, 4, 0, 1, 2], [9, 7, 5, 3, 1], [0, 2, 4, 6, 8]],
    ids=["one piece", "two pieces", "backward", "scattered"],
)
def test_pieces_equal_plain_attention(blocks: list[int], num_kv_heads: int) -> None:
    """A prompt in chunks, then single tokens, equals one causal attention over all."""
    torch.manual_seed(0)
    shape = Shape(num_layers=1, num_heads=4, num_kv_heads=num_kv_heads, head_dim=16)
    attention = PieceAttention(shape, 10, torch.float32, torch.device("cpu"), block_tokens=4)
    query = torch.randn(20, 4, 16)
    keys_values = torch.randn(20, 2 * num_kv_heads, 16)
    outputs = []
    for start, end in [(0, 7), (7, 13), (13, 14), (14, 18), (18, 19), (19, 20)]:
        attention.begin([Rows(0, end - start, start, blocks)])
        outputs.append(attention.attend(0, query[start:end], keys_values[start:end]))
    keys, values = (
        half.transpose(0, 1).repeat_interleave(4 // num_kv_heads, 0).unsqueeze(0)
        for half in keys_values.split(num_kv_heads, 1)
    )
    expected = F.scaled_dot_product_attention(
        query.transpose(0, 1).unsqueeze(0), keys, values, is_causal=True
    )
    torch.testing.assert_close(
        torch.cat(outputs), expected[0].transpose(0, 1).reshape(20, 64), rtol=1e-4, atol=1e-5
    )


def test_requests_of_one_batch_do_not_see_each_other() -> None:
    """A mixed step gives every request what it gets alone."""
    torch.manual_seed(0)
    shape = Shape(num_layers=1, num_heads=2, num_kv_heads=2, head_dim=16)
    parts = [(1, 6, [0, 1]), (1, 3, [4]), (5, 0, [2, 3]), (3, 4, [6, 7])]
    past = torch.randn(4, 6, 4, 16)
    fresh = [(torch.randn(n, 2, 16), torch.randn(n, 4, 16)) for n, _, _ in parts]

    def fill(attention: PieceAttention, index: int) -> None:
        _, start, blocks = parts[index]
        if start:
            attention.begin([Rows(0, start, 0, blocks)])
            attention.attend(0, torch.zeros(start, 2, 16), past[index, :start])

    together = PieceAttention(shape, 8, torch.float32, torch.device("cpu"), block_tokens=4)
    alone = []
    for index, (num_rows, start, blocks) in enumerate(parts):
        single = PieceAttention(shape, 8, torch.float32, torch.device("cpu"), block_tokens=4)
        for attention in (together, single):
            fill(attention, index)
        single.begin([Rows(0, num_rows, start, blocks)])
        alone.append(single.attend(0, *fresh[index]))
    rows = [0, 1, 2, 7]
    together.begin(
        [Rows(row, n, start, blocks) for row, (n, start, blocks) in zip(rows, parts, strict=True)]
    )
    output = together.attend(
        0, torch.cat([query for query, _ in fresh]), torch.cat([kv for _, kv in fresh])
    )
    torch.testing.assert_close(output, torch.cat(alone))


@pytest.mark.parametrize("max_scores", [1, 2 * 20 * 3, 2 * 20 * 20])
@pytest.mark.parametrize("is_causal", [True, False])
def test_slices_equal_attention_at_once(max_scores: int, *, is_causal: bool) -> None:
    """A row at a time, three, and all: a row's result does not depend on the others."""
    torch.manual_seed(0)
    query, keys, values = (torch.randn(1, 2, 20, 16) for _ in range(3))
    output, log_sum = attend_in_slices(
        query, keys, values, is_causal=is_causal, max_scores=max_scores
    )
    scores = query @ keys.transpose(-1, -2) / 4
    if is_causal:
        scores = scores.masked_fill(torch.ones(20, 20, dtype=torch.bool).triu(1), -torch.inf)

    torch.testing.assert_close(
        F.scaled_dot_product_attention(query, keys, values, is_causal=is_causal), output
    )
    torch.testing.assert_close(scores.logsumexp(-1), log_sum)


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float16, 0.0005), (torch.bfloat16, 0.003)], ids=["fp16", "bf16"]
)
def test_scores_are_not_rounded_to_16_bits(dtype: torch.dtype, most: float) -> None:
    """Only keys, values and results are: where scores spread far, weights would be far off."""
    torch.manual_seed(0)
    query, keys = ((torch.randn(1, 4, n, 128) * 4).to(dtype) for n in (16, 512))
    values = torch.randn(1, 4, 512, 128).to(dtype)
    exact = F.scaled_dot_product_attention(query.double(), keys.double(), values.double())
    output, log_sum = attend_in_slices(query, keys, values, is_causal=False)

    assert (dtype, torch.float32) == (output.dtype, log_sum.dtype)
    assert most > ((output.double() - exact).norm() / exact.norm()).item()


def test_a_product_may_exceed_what_float16_holds() -> None:
    """Before it is scaled: 128 times 24 squared is 73,728, and float16 ends at 65,504."""
    query = torch.full((1, 1, 2, 128), 24.0, dtype=torch.float16)
    values = torch.tensor([1.0, 3.0], dtype=torch.float16).reshape(1, 1, 2, 1)
    output, log_sum = attend_in_slices(query, query, values, is_causal=False)

    assert [2.0, 2.0] == output.flatten().tolist()
    torch.testing.assert_close(
        torch.full((1, 1, 2), 73_728 / 128**0.5).add(torch.tensor(2.0).log()), log_sum
    )


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that anything gives."""

    def __init__(self) -> None:
        super().__init__()
        self.num_numbers = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        """Call it, and look."""
        result = function(*arguments, **(keywords or {}))
        if isinstance(result, torch.Tensor):
            self.num_numbers = max(self.num_numbers, result.numel())
        return result


def test_a_long_prompt_s_scores_are_not_there_at_once() -> None:
    """Off the CPU, on a device without memory: 1,024 rows over 4,096 keys of 32 heads."""
    meta = torch.device("meta")
    shape = Shape(num_layers=1, num_heads=32, num_kv_heads=32, head_dim=8)
    attention = PieceAttention(shape, 256, torch.float16, meta, block_tokens=16)
    attention.begin([Rows(0, 1024, 3072, range(256))])
    query = torch.empty(1024, 32, 8, dtype=torch.float16, device=meta)
    keys_values = torch.empty(1024, 64, 8, dtype=torch.float16, device=meta)
    with Largest() as largest:
        output = attention.attend(0, query, keys_values)

    assert (1024, 256) == output.shape
    assert MAX_SCORES >= largest.num_numbers
