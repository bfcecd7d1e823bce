"""Decoding and drawing as recorded CUDA graphs: one launch instead of a dozen a layer.

A graph is recorded for a few batch sizes; a step of another size is padded to the next one
with rows that read and write a spare block. It knows the decoder and its paged cache.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.sequence import Draw
from llavachat_server.engine.tensors.attention import Rows
from llavachat_server.engine.tensors.likely import draw_likely, list_numbers
from llavachat_server.engine.tensors.paged import PagedAttention, Pages, list_slots
from llavachat_server.engine.tensors.runner import Decoder
from llavachat_server.engine.tensors.staging import Staging

_WARM_UPS = 2


def choose_graph_sizes(max_running: int) -> list[int]:
    """Powers of two below `max_running`, and itself: padding at most doubles a step's rows."""
    sizes = [1]
    while sizes[-1] * 2 < max_running:
        sizes.append(sizes[-1] * 2)
    return sizes if max_running == 1 else [*sizes, max_running]


def record_sizes(
    compute: Callable[[int], Tensor], sizes: Sequence[int]
) -> dict[int, tuple[torch.cuda.CUDAGraph, Tensor]]:
    """Record a computation for several numbers of rows, the largest first.

    The others reuse its memory: of all results only that of the latest replay is there.

    Args:
        compute: takes a number of rows; reads tensors that stay where they are.
        sizes: numbers of rows, the least first.

    Returns:
        For each, the graph, and the tensor that its replay writes.
    """
    graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
    pool = None
    for size in reversed(sizes):
        graphs[size] = record(partial(compute, size), pool)
        pool = graphs[size][0].pool()
    return graphs


def record(compute: Callable[[], Tensor], pool: Any) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Record one computation, after it has run a few times; see `record_sizes`."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = compute()
    return graph, result


class DecodeGraphs:
    """Recorded steps of single tokens.

    Args:
        decoder: its layers must not look at the host: LLM.int8() does where it looks for outliers.
        attention: the cache of the runner that these graphs serve.
        max_running: rows of a step at most.
        context_tokens: of one request at most.
    """

    def __init__(
        self, decoder: Decoder, attention: PagedAttention, max_running: int, context_tokens: int
    ) -> None:
        self._decoder = decoder
        self._attention = attention
        self._sizes = choose_graph_sizes(max_running)
        device, size = decoder.device, attention.block_tokens
        num_blocks = -(-context_tokens // size)
        self._context_tokens = context_tokens
        self._staging = Staging(
            device,
            *[(torch.int64, (max_running,))] * 3,
            (torch.int32, (max_running,)),
            (torch.int32, (max_running, num_blocks)),
        )
        self._ids, self._positions, self._slots, self._lengths, self._blocks = self._staging.device
        self._ends = torch.arange(max_running + 1, dtype=torch.int32, device=device)
        self._fill([], max_running)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    @torch.inference_mode()
    def record(self) -> None:
        """Record every size of a step."""
        self._graphs = record_sizes(self._compute, self._sizes)

    def can_run(self, inputs: Sequence[Input]) -> bool:
        """Whether a step is one that was recorded."""
        return (
            len(inputs) <= self._sizes[-1]
            and all(len(item.token_ids) == 1 and item.wants_logits for item in inputs)
            and all(item.start < self._context_tokens for item in inputs)
        )

    @torch.inference_mode()
    def run(self, inputs: Sequence[Input]) -> Tensor:
        """(requests, vocabulary) logits, valid until the next run."""
        size = next(size for size in self._sizes if size >= len(inputs))
        self._fill(inputs, size)
        graph, logits = self._graphs[size]
        graph.replay()
        return logits[: len(inputs)]

    def _fill(self, inputs: Sequence[Input], size: int) -> None:
        spare, block_tokens = self._attention.spare_block, self._attention.block_tokens
        width = self._blocks.shape[1]
        padding = size - len(inputs)
        positions = [item.start for item in inputs] + [0] * padding
        rows = [Rows(0, 1, item.start, item.blocks) for item in inputs]
        slots = [list_slots(row, block_tokens)[0] for row in rows]
        table = [(list(item.blocks) + [spare] * width)[:width] for item in inputs]
        numbers = (
            [item.token_ids[0] for item in inputs] + [0] * padding,
            positions,
            slots + [spare * block_tokens] * padding,
            [position + 1 for position in positions],
            table + [[spare] * width] * padding,
        )
        self._staging.begin()
        for place, part in zip(self._staging.host, numbers, strict=True):
            place[:size] = torch.tensor(part)
        self._staging.send()

    def _compute(self, size: int) -> Tensor:
        decoder = self._decoder
        self._attention.use_pages(
            Pages(
                slots=self._slots[:size],
                row_ends=self._ends[: size + 1],
                lengths=self._lengths[:size],
                blocks=self._blocks[:size],
                max_rows=1,
                max_length=self._context_tokens,
            )
        )
        rotations = [table[self._positions[:size]] for table in decoder.rotations]
        hidden = decoder.embed(self._ids[:size].unsqueeze(0))[0]
        for number, layer in enumerate(decoder.layers):
            hidden = layer(hidden, rotations, number, self._attention, size)
        return decoder.head(hidden).float()


class DrawGraphs:
    """Recorded draws from the likeliest tokens; see `likely.DrawLikely`, which it is one of.

    Args:
        max_running: rows at most.
        vocab_size: width of the output head.
        device: where the scores are.
    """

    def __init__(self, max_running: int, vocab_size: int, device: torch.device) -> None:
        self._sizes = choose_graph_sizes(max_running)
        self._logits = torch.zeros(max_running, vocab_size, device=device)
        self._staging = Staging(
            device, (torch.int64, (3, max_running)), (torch.float32, (2, max_running))
        )
        self._whole, self._broken = self._staging.device
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    @torch.inference_mode()
    def record(self) -> None:
        """Record every size of a draw."""
        self._graphs = record_sizes(self._compute, self._sizes)

    @torch.inference_mode()
    def __call__(
        self, logits: Tensor, draws: Sequence[Draw], positions: Sequence[int]
    ) -> tuple[list[int], list[bool]]:
        """See `likely.DrawLikely`."""
        count = len(draws)
        self._staging.begin()
        for place, part in zip(self._staging.host, list_numbers(draws, positions), strict=True):
            place[:, :count] = torch.tensor(part)
        self._staging.send()
        self._logits[:count].copy_(logits)
        graph, result = self._graphs[next(size for size in self._sizes if size >= count)]
        graph.replay()
        drawn, is_sure = result[:, :count].tolist()
        return drawn, [bool(value) for value in is_sure]

    def _compute(self, size: int) -> Tensor:
        return draw_likely(self._logits[:size], self._whole[:, :size], self._broken[:, :size])
