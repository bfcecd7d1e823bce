"""Runs a decoder's steps by the kernels, on threads of its own.

See `batching.runner.RecordedSteps` for what the loop asks of it. It knows the cache's memory
and no requests beyond a step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llavachat_server.engine.batching.attention import PieceAttention, Shape
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.native.helpers import Helpers
from llavachat_server.engine.native.kernels import run_step
from llavachat_server.engine.native.plan import (
    MAX_ATTENDING_ROWS,
    PHASES_PER_LAYER,
    Buffers,
    Sizes,
    Step,
    count_scratch,
)
from llavachat_server.engine.native.sharing import count_counters
from llavachat_server.engine.native.vectors import LANES
from llavachat_server.engine.native.weights import build_angles, pack_weights


class NativeDecoder:
    """A decoder's packed weights, and the threads that compute with them.

    Args:
        embed: the input embedding: ids below the size of its `weight` are that table's rows, and
            its `fill_rows` is asked for the others, see `embedding.VirtualEmbedding`.
        decoder: Llama's layers and final norm; see `weights.can_pack`.
        head: the output head.
        shape: of the model.
        context_tokens: positions that may come.
        release: give the model's own copy of the weights back.
        num_threads: that compute a step. None: as many as torch takes on the calling thread.
    """

    def __init__(
        self,
        embed: Any,
        decoder: Any,
        head: Any,
        shape: Shape,
        context_tokens: int,
        *,
        release: bool,
        num_threads: int | None = None,
    ) -> None:
        self._embed = embed
        self._num_threads = num_threads
        self._shape = shape
        self._context_tokens = context_tokens
        self._hidden = int(decoder.config.hidden_size)
        self._inner = int(decoder.config.intermediate_size)
        self._vocabulary = int(head.weight.shape[0])
        self._floor = np.float32(decoder.norm.variance_epsilon)
        self._weights = pack_weights(decoder, head, shape, release=release).numpy()
        angles = build_angles(decoder, context_tokens)
        self._cosines, self._sines = (table.view(-1).numpy() for table in angles)
        self._words: NDArray[np.float32] | None = None
        self._helpers = Helpers("llavachat-step", 0)
        self._num_rows = 0
        self._buffers: dict[str, Any] = {}
        self._scratch: list[Any] = []
        self._has_all_cores: Callable[[], bool] = lambda: True
        self.num_running_threads = 0
        """That took part in the last step."""

    def leave_a_core(self, has_all_cores: Callable[[], bool]) -> None:
        """Compute steps on one thread less while others need a core.

        With more threads than cores the system lets each wait for some milliseconds, within a unit
        as well, and all the others wait for that one.

        Args:
            has_all_cores: whether nobody does; asked at each step.
        """
        self._has_all_cores = has_all_cores

    def run(
        self,
        inputs: Sequence[Input],
        attention: PieceAttention,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> NDArray[np.float32]:
        """Compute a step and store its keys and values.

        Args:
            inputs: whose tokens are computed.
            attention: the cache; a block must be whole panels of 16 tokens.
            meanwhile: see `Runner.forward`. Python's lock is free from then on.

        Returns:
            (inputs that want logits, vocabulary), in their order.
        """
        step = _describe(inputs, attention.block_tokens)
        shape, num_rows = self._shape, len(step.positions)
        is_wanted = len(step.wanted) > 0
        if not is_wanted:
            # Keys and values are needed all the same; one row's answer is thrown away.
            step = step._replace(wanted=step.positions[:1] * 0)
        self._make_room(num_rows, self._num_threads or torch.get_num_threads())
        self._fill_hidden([token_id for item in inputs for token_id in item.token_ids])
        num_threads = len(self._scratch)
        if num_threads > 1 and not self._has_all_cores():
            num_threads -= 1
        self.num_running_threads = num_threads
        sizes = Sizes(
            shape.num_layers,
            self._hidden,
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim,
            self._inner,
            self._vocabulary + -self._vocabulary % LANES,
            attention.block_tokens,
            attention.num_slots,
            num_threads,
        )
        logits = np.empty(len(step.wanted) * sizes.vocabulary, np.float32)
        cache = attention.memory.view(-1).numpy()
        buffers = Buffers(
            self._weights, self._cosines, self._sines, cache, logits=logits, **self._buffers
        )
        counters = np.zeros(count_counters(shape.num_layers * PHASES_PER_LAYER + 1), np.int64)
        common = (sizes, buffers, step, self._floor, counters)
        meanwhile()
        helping = self._scratch[1:num_threads]
        self._helpers.call(run_step, [(*common, scratch, True) for scratch in helping])
        run_step(*common, self._scratch[0], False)
        rows = logits.reshape(-1, sizes.vocabulary)
        return rows[: len(rows) * is_wanted, : self._vocabulary]

    def _fill_hidden(self, token_ids: list[int]) -> None:
        if self._words is None:
            # Not before the first step: until then the model's weights may still be moved.
            self._words = self._embed.weight.detach().numpy()
        rows = self._buffers["hidden"][: len(token_ids) * self._hidden].reshape(-1, self._hidden)
        if max(token_ids) < len(self._words):
            # Answers are nothing but words, a few rows each step.
            np.take(self._words, token_ids, 0, rows, "clip")
        else:
            self._embed.fill_rows(token_ids, rows)

    def _make_room(self, num_rows: int, num_threads: int) -> None:
        if num_rows <= self._num_rows and num_threads == len(self._scratch):
            return
        if num_threads != len(self._scratch):
            self._helpers = Helpers("llavachat-step", num_threads - 1)
        self._num_rows = num_rows = max(num_rows, self._num_rows)
        heads = self._shape.num_heads * self._shape.head_dim
        widths = {
            "hidden": self._hidden,
            "middle": self._hidden,
            "query": heads,
            "mixed": heads,
            "gated": self._inner,
        }
        self._buffers = {
            name: np.zeros(num_rows * width, np.float32) for name, width in widths.items()
        }
        size = count_scratch(num_rows, self._context_tokens)
        self._scratch = [np.zeros(size, np.float32) for _ in range(num_threads)]


def compile_kernels() -> None:
    """Compile everything, or read it from the disk: a step of no layers and 16 logits."""
    one = {name: np.zeros(LANES, np.float32) for name in Buffers._fields}
    buffers = Buffers(**{**one, "weights": np.zeros(LANES * LANES, np.float32)})
    sizes = Sizes(0, LANES, 1, 1, LANES, LANES, LANES, LANES, LANES, 1)
    step = _describe([Input([0], 0, [0], True)], LANES)
    counters = np.zeros(count_counters(1), np.int64)
    scratch = np.zeros(count_scratch(1, 1), np.float32)
    run_step(sizes, buffers, step, np.float32(1.0), counters, scratch, False)


def _describe(inputs: Sequence[Input], block_tokens: int) -> Step:
    positions: list[int] = []
    slots: list[int] = []
    first_blocks: list[int] = []
    tables: list[int] = []
    wanted: list[int] = []
    groups: list[int] = []
    for item in inputs:
        first_row, num_rows = len(positions), len(item.token_ids)
        for row in range(0, num_rows, MAX_ATTENDING_ROWS):
            groups += (first_row + row, min(MAX_ATTENDING_ROWS, num_rows - row))
        own = range(item.start, item.start + len(item.token_ids))
        positions += own
        slots += [item.blocks[p // block_tokens] * block_tokens + p % block_tokens for p in own]
        first_blocks += [len(tables)] * len(own)
        tables += item.blocks
        if item.wants_logits:
            wanted.append(len(positions) - 1)
    columns = (positions, slots, first_blocks, tables, wanted, groups)
    return Step(*(np.array(column, np.int64) for column in columns))
