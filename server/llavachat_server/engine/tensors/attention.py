"""Keys, values, and attention over them: where they lie and which kernel reads them.

A *slot* is one token's place in the cache: ``block * block_tokens + offset``. Two stores with
one face: `PieceAttention` reads neighbouring blocks as one piece of memory, one request at a
time, and runs everywhere; `PagedAttention` hands a block table to FlashAttention on a GPU.

It knows chunks of slots, no requests, and nothing of the model but its shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from llavachat_server.engine.batching.sizing import Shape

MAX_PIECES = 4
"""A cache in more pieces than this is copied together for a step: a kernel call for each piece
would cost more."""

MAX_SCORES = 2**23
"""Scores that are computed at once where torch's kernel for a CPU is not. With keys in 16 bits one
takes 10 bytes at most, in the two or three tensors of 2 or 4 bytes each that are there at a time
(measured, with a mask and without), so these take 80 MiB. A prompt's last 1,024 rows over 3,072
keys are 101 million in each layer of LLaVA-1.5 7B and 126 of 13B, 0.9 and 1.2 GiB at once; what a
cache leaves on a T4 is 1.0 GiB, by arithmetic, for all that a step needs."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Some consecutive rows of a batch that belong to one request.

    Args:
        first_row: of the batch.
        num_rows: tokens of the request in this step.
        start: position of the first of them in the request.
        blocks: the request's blocks, enough for ``start + num_rows`` tokens.
    """

    first_row: int
    num_rows: int
    start: int
    blocks: Sequence[int]


class Attention(Protocol):
    """A cache with a kernel. `begin` once a step, then `attend` once a layer."""

    block_tokens: int

    def begin(self, batch: Sequence[Rows]) -> None:
        """Plan a step; every layer shares the plan. Single-token rows come first."""
        ...

    def attend(self, layer: int, query: Tensor, keys_values: Tensor) -> Tensor:
        """Store the step's keys and values, and attend.

        Args:
            layer: index.
            query: (tokens, heads, head_dim), turned by RoPE.
            keys_values: (tokens, 2 * kv_heads, head_dim), all keys before all values.

        Returns:
            (tokens, heads * head_dim).
        """
        ...

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first tokens' keys and values of a block into another one, in all layers."""
        ...


def find_pieces(blocks: Sequence[int], num_tokens: int, block_tokens: int) -> list[tuple[int, int]]:
    """(first slot, end slot) of each run of neighbouring blocks that holds `num_tokens`."""
    pieces: list[tuple[int, int]] = []
    left = num_tokens
    for block in blocks:
        if left <= 0:
            break
        start = block * block_tokens
        end = start + min(left, block_tokens)
        left -= block_tokens
        if pieces and pieces[-1][1] == start:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    return pieces


@dataclass(frozen=True, slots=True)
class _Plan:
    first_row: int
    num_rows: int
    past: list[tuple[int, int]]
    slots: list[tuple[int, int]]


class PieceAttention:
    """Reads each request's cache where it lies; no step copies what it only reads.

    Keys and values are stored head by head, so that one head's keys are one stream of memory.
    Results over several pieces are joined by the logarithms of their sums.

    Args:
        shape: of the model.
        num_blocks: of the cache.
        dtype: of keys and values.
        device: where they lie.
        block_tokens: tokens of a block.
        max_pieces: what lies in more pieces is copied together for a step. 0: everything is, so
            that the result does not depend on where blocks lie.
    """

    def __init__(
        self,
        shape: Shape,
        num_blocks: int,
        dtype: torch.dtype,
        device: torch.device,
        block_tokens: int,
        *,
        max_pieces: int = MAX_PIECES,
    ) -> None:
        self.block_tokens = block_tokens
        self._max_pieces = max_pieces
        self._num_kv_heads = shape.num_kv_heads
        self._group = shape.num_heads // shape.num_kv_heads
        size = (2 * shape.num_kv_heads, num_blocks * block_tokens, shape.head_dim)
        self.num_slots = num_blocks * block_tokens
        self.memory = torch.empty((shape.num_layers, *size), dtype=dtype, device=device)
        self._stores = list(self.memory)
        self._singles: list[_Plan] = []
        self._chunks: list[_Plan] = []
        self._single_slots: Tensor | None = None

    def begin(self, batch: Sequence[Rows]) -> None:
        """See `Attention`."""
        self._singles, self._chunks = [], []
        for rows in batch:
            end = rows.start + rows.num_rows
            pieces = find_pieces(rows.blocks, end, self.block_tokens)
            if rows.num_rows == 1:
                self._singles.append(_Plan(rows.first_row, 1, pieces, []))
            else:
                past = find_pieces(rows.blocks, rows.start, self.block_tokens)
                slots = self._find_slots(rows)
                self._chunks.append(_Plan(rows.first_row, rows.num_rows, past, slots))
        own_slots = [plan.past[-1][1] - 1 for plan in self._singles]
        self._single_slots = (
            torch.tensor(own_slots, device=self._stores[0].device) if len(own_slots) > 1 else None
        )

    def attend(self, layer: int, query: Tensor, keys_values: Tensor) -> Tensor:
        """See `Attention`."""
        store = self._stores[layer]
        self._write(store, keys_values)
        outputs = [
            self._attend_pieces(store, query[p.first_row : p.first_row + 1], p.past)[0]
            for p in self._singles
        ]
        outputs += [self._attend_chunk(store, query, keys_values, plan) for plan in self._chunks]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See `Attention`."""
        first, second = source * self.block_tokens, target * self.block_tokens
        content = self.memory[:, :, first : first + num_tokens]
        self.memory[:, :, second : second + num_tokens].copy_(content)

    def _find_slots(self, rows: Rows) -> list[tuple[int, int]]:
        first = rows.start // self.block_tokens
        skipped = rows.start - first * self.block_tokens
        pieces = find_pieces(rows.blocks[first:], skipped + rows.num_rows, self.block_tokens)
        pieces[0] = (pieces[0][0] + skipped, pieces[0][1])
        return pieces

    def _write(self, store: Tensor, keys_values: Tensor) -> None:
        by_head = keys_values.transpose(0, 1)  # (2 * kv_heads, tokens, head_dim)
        if self._single_slots is not None:
            store.index_copy_(1, self._single_slots, by_head[:, : len(self._singles)])
        elif self._singles:
            slot = self._singles[0].past[-1][1]
            store[:, slot - 1 : slot].copy_(by_head[:, :1])
        for plan in self._chunks:
            row = plan.first_row
            for start, end in plan.slots:
                store[:, start:end].copy_(by_head[:, row : row + end - start])
                row += end - start

    def _attend_chunk(
        self, store: Tensor, query: Tensor, keys_values: Tensor, plan: _Plan
    ) -> Tensor:
        rows = slice(plan.first_row, plan.first_row + plan.num_rows)
        own_query = query[rows].transpose(0, 1).unsqueeze(0)
        # The chunk's own keys are at hand; only they need the causal mask.
        own = keys_values[rows].transpose(0, 1).unsqueeze(0)
        keys, values = own[:, : self._num_kv_heads], own[:, self._num_kv_heads :]
        if self._group > 1:
            keys = keys.repeat_interleave(self._group, 1)
            values = values.repeat_interleave(self._group, 1)
        output, log_sum = _attend(own_query, keys, values, is_causal=True)
        output, log_sum = _to_rows(output), log_sum[0]
        if plan.past:
            past = self._attend_pieces(store, query[rows], plan.past)
            output = _join([past, (output, log_sum)])[0]
        return output

    def _attend_pieces(
        self, store: Tensor, query: Tensor, pieces: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        # (rows, heads, head_dim) -> (rows, heads * head_dim) and (heads, rows), all unmasked.
        num_rows, num_heads, head_dim = query.shape
        heads = self._num_kv_heads
        # Heads that share keys become further rows of one.
        grouped = (
            query.view(num_rows, heads, self._group, head_dim)
            .permute(1, 2, 0, 3)
            .reshape(1, heads, self._group * num_rows, head_dim)
        )
        if len(pieces) > self._max_pieces:
            stores = [torch.cat([store[:, start:end] for start, end in pieces], 1)]
        else:
            stores = [store[:, start:end] for start, end in pieces]
        parts = []
        for piece in stores:
            output, log_sum = _attend(
                grouped, piece[:heads].unsqueeze(0), piece[heads:].unsqueeze(0), is_causal=False
            )
            output = output.view(num_heads, num_rows, head_dim).unsqueeze(0)
            parts.append((_to_rows(output), log_sum.reshape(num_heads, num_rows)))
        return parts[0] if len(parts) == 1 else _join(parts)


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool
) -> tuple[Tensor, Tensor]:
    # All (1, heads, tokens, head_dim) -> the same, and (1, heads, tokens).
    if query.device.type == "cpu":
        output, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, is_causal
        )
        return output, log_sum
    return attend_in_slices(query, keys, values, is_causal=is_causal)


def attend_in_slices(
    query: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool, max_scores: int = MAX_SCORES
) -> tuple[Tensor, Tensor]:
    """Attend by plain operations, some rows at a time; each row's result is its own.

    Args:
        query: (1, heads, rows, head_dim).
        keys: (1, heads, keys, head_dim).
        values: as `keys`.
        is_causal: a row sees no key behind its own place.
        max_scores: rows of all heads times keys that are computed at once, but one row at least.

    Returns:
        As `query`, and the logarithms of the sums, (1, heads, rows).
    """
    num_heads, num_rows = query.shape[1:3]
    width = max(1, max_scores // (num_heads * keys.shape[2]))
    parts = [
        _attend_rows(query[:, :, row : row + width], keys, values, row if is_causal else None)
        for row in range(0, num_rows, width)
    ]
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part[0] for part in parts], 2), torch.cat([part[1] for part in parts], 2)


def _attend_rows(
    query: Tensor, keys: Tensor, values: Tensor, first_row: int | None
) -> tuple[Tensor, Tensor]:
    scores = _multiply_wide(query[0], keys[0].transpose(-1, -2)).unsqueeze(0)
    scores.mul_(query.shape[-1] ** -0.5)
    if first_row is not None:
        scores.masked_fill_(
            torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(
                first_row + 1
            ),
            -torch.inf,
        )
    log_sum = scores.logsumexp(-1)
    return F.softmax(scores, -1).to(values.dtype) @ values, log_sum


def _multiply_wide(query: Tensor, keys: Tensor) -> Tensor:
    # (heads, rows, head_dim) and (heads, head_dim, keys) to float32, whatever they are in: a score
    # in 16 bits would be off by up to 1/16 (bfloat16) or 1/128 (float16) where it is 16, and its
    # weight by as much; and float16 ends at 65,504, which a product before its scaling can exceed.
    if query.dtype == torch.float32:
        return torch.bmm(query, keys)
    if query.device.type == "cpu":
        # torch has no such product there.
        return torch.bmm(query.float(), keys.float())
    return torch.bmm(query, keys, out_dtype=torch.float32)


def _to_rows(output: Tensor) -> Tensor:
    # (1, heads, rows, head_dim) -> (rows, heads * head_dim)
    return output[0].transpose(0, 1).reshape(output.shape[2], -1)


def _join(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    # Softmax over the whole is each part's softmax, weighted by the part's share of the sum.
    log_sums = torch.stack([log_sum for _, log_sum in parts])  # (parts, heads, rows)
    shares = log_sums.softmax(0).transpose(1, 2).unsqueeze(-1)  # (parts, rows, heads, 1)
    num_rows, num_heads = shares.shape[1:3]
    outputs = torch.stack([output.view(num_rows, num_heads, -1) for output, _ in parts])
    joined = (outputs * shares.to(outputs.dtype)).sum(0)
    return joined.view(num_rows, -1), log_sums.logsumexp(0)
