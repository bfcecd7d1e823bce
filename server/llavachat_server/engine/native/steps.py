"""Runs a decoder's steps by the kernel, on threads of its own.

It knows the cache's memory and no requests beyond a step.
"""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.sizing import read_shape
from llavachat_server.engine.llava.config import LlavaConfig
from llavachat_server.engine.native.cache import Cache
from llavachat_server.engine.native.calls import find_address, point_to, write_words
from llavachat_server.engine.native.code import Kernel
from llavachat_server.engine.native.embedding import RowTable
from llavachat_server.engine.native.plan import (
    LANES,
    MAX_ATTENDING_ROWS,
    PHASES_AROUND,
    PHASES_PER_LAYER,
    Buffers,
    Sizes,
    Step,
    count_counters,
    count_scratch,
)
from llavachat_server.engine.native.threads import Helpers
from llavachat_server.engine.native.weights import build_angles

Floats = NDArray[np.float32]


class NativeDecoder:
    """A decoder's packed weights, and the threads that compute with them.

    Args:
        kernel: see `kernels.step.run_step`.
        panels: see `weights.pack_decoder`.
        config: of the same checkpoint; see `weights.find_misfit`.
        rows: turns ids into rows.
        num_threads: that compute a step.
    """

    def __init__(
        self,
        kernel: Kernel,
        panels: Floats,
        config: LlavaConfig,
        rows: RowTable,
        num_threads: int,
    ) -> None:
        text = config.text_config
        self._kernel = kernel
        self._rows = rows
        self.shape = read_shape(config)
        self._context_tokens = text.max_position_embeddings
        self._hidden, self._inner = text.hidden_size, text.intermediate_size
        self._vocabulary = text.vocab_size
        self._padded_vocabulary = text.vocab_size + -text.vocab_size % LANES
        self._floor = np.array([text.rms_norm_eps], np.float32)
        self.panels = panels
        """May be replaced at any time by others of the same content; a step keeps its own."""
        angles = build_angles(text, self._context_tokens)
        self._cosines, self._sines = (table.reshape(-1) for table in angles)
        self._helpers = Helpers("llavachat-step", num_threads - 1)
        self._num_rows = 0
        self._buffers: dict[str, Floats] = {}
        self._scratch: list[Floats] = [np.empty(0, np.float32)] * num_threads
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
        cache: Cache,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Floats:
        """Compute a step and store its keys and values.

        Args:
            inputs: whose tokens are computed.
            cache: of the decoder's shape.
            meanwhile: see `batching.core.Runner`. Python's lock is free from then on.

        Returns:
            (inputs that want logits, vocabulary), in their order.
        """
        step = _describe(inputs, cache.block_tokens)
        num_rows = len(step.positions)
        is_wanted = len(step.wanted) > 0
        if not is_wanted:
            # Keys and values are needed all the same; one row's answer is thrown away.
            step = step._replace(wanted=[0])
        self._make_room(num_rows)
        hidden = self._buffers["hidden"][: num_rows * self._hidden].reshape(-1, self._hidden)
        self._rows.fill_rows([token_id for item in inputs for token_id in item.token_ids], hidden)
        num_threads = len(self._scratch)
        if num_threads > 1 and not self._has_all_cores():
            num_threads -= 1
        self.num_running_threads = num_threads
        logits = np.empty(len(step.wanted) * self._padded_vocabulary, np.float32)
        buffers = Buffers(
            self.panels, self._cosines, self._sines, cache.memory, logits=logits, **self._buffers
        )
        columns = np.array(list(chain(*step)), np.int64)
        num_phases = self.shape.num_layers * PHASES_PER_LAYER + PHASES_AROUND
        counters = np.zeros(count_counters(num_phases), np.int64)
        common = [
            *self._size(cache, num_threads),
            *point_to(buffers),
            *_point_into(columns, step),
            *point_to((self._floor, counters)),
        ]
        main, *helping = (
            write_words(common, scratch, is_helper=number > 0)
            for number, scratch in enumerate(self._scratch[:num_threads])
        )
        kept = (buffers, columns, counters, self._scratch)
        meanwhile()
        self._helpers.call(self._kernel, [(words, *kept) for words in helping])
        self._kernel(main, *kept)
        rows = logits.reshape(-1, self._padded_vocabulary)
        return rows[: len(rows) * is_wanted, : self._vocabulary]

    def _size(self, cache: Cache, num_threads: int) -> Sizes:
        shape = self.shape
        return Sizes(
            shape.num_layers,
            self._hidden,
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim,
            self._inner,
            self._padded_vocabulary,
            cache.block_tokens,
            cache.num_slots,
            num_threads,
        )

    def _make_room(self, num_rows: int) -> None:
        if num_rows <= self._num_rows:
            return
        heads = self.shape.num_heads * self.shape.head_dim
        widths = {
            "hidden": self._hidden,
            "middle": self._hidden,
            "query": heads,
            "mixed": heads,
            "gated": self._inner,
        }
        buffers = {name: np.zeros(num_rows * width, np.float32) for name, width in widths.items()}
        size = count_scratch(num_rows, self._context_tokens)
        scratch = [np.zeros(size, np.float32) for _ in self._scratch]
        # All at once: where memory runs out in between, the kernel would write past what is old.
        self._num_rows, self._buffers, self._scratch = num_rows, buffers, scratch


class NativeRunner:
    """A decoder over one cache; see `batching.core.Runner`.

    Args:
        decoder: may serve several runners, one after another.
        cache: made for the decoder's shape.
    """

    def __init__(self, decoder: NativeDecoder, cache: Cache) -> None:
        self._decoder = decoder
        self._cache = cache

    def forward(
        self, inputs: Sequence[Input], meanwhile: Callable[[], None] = lambda: None
    ) -> Floats:
        """See `batching.core.Runner.forward`."""
        return self._decoder.run(inputs, self._cache, meanwhile)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See `batching.core.Runner.copy`."""
        self._cache.copy(source, target)


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
    return Step(positions, slots, first_blocks, tables, wanted, groups)


def _point_into(columns: NDArray[np.int64], step: Step) -> list[int]:
    # The step's columns stand one behind the other.
    words: list[int] = []
    address = find_address(columns)
    for column in step:
        words += (address, len(column))
        address += len(column) * columns.itemsize
    return words
