"""One forward pass of a Llama decoder over a mixed batch: single tokens and pieces of prompts.

`Decoder` holds the model's own modules and weights, quantised or not, and is made once;
`Runner` runs it over a cache. Rows are flat, without padding between requests. It knows no
scheduler and no sampling.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.sizing import read_shape
from llavachat_server.engine.tensors.attention import Attention, Rows
from llavachat_server.engine.tensors.layers import (
    Head,
    Layer,
    ModuleHead,
    ModuleLayer,
    PackedHead,
    PackedLayer,
    build_rotations,
    can_pack,
)
from llavachat_server.engine.tensors.linears import (
    MAX_PADDED_ROWS,
    choose_row_counts,
    measure_row_counts,
)


class Decoder:
    """The decoder's weights, made ready to run.

    Args:
        model: Llama or Llava, with its output head; its input embedding turns every id that
            will come, virtual ones too, into a row.
        context_tokens: positions that may come.
        pack_weights: on a CPU, lay unquantised weights out for oneDNN.
        release_weights: give the model's own copy of packed weights back; it can not be run
            by itself afterwards.
        int8_threshold: see `EngineSettings`.
    """

    def __init__(
        self,
        model: Any,
        context_tokens: int,
        *,
        pack_weights: bool = True,
        release_weights: bool = False,
        int8_threshold: float | None = None,
    ) -> None:
        decoder, output = model.get_decoder(), model.get_output_embeddings()
        self.shape = read_shape(model.config)
        self.embed = model.get_input_embeddings()
        self.device: torch.device = decoder.norm.weight.device
        self.dtype: torch.dtype = decoder.norm.weight.dtype
        self._row_counts: list[int] = []
        is_packed = pack_weights and can_pack(decoder, output)
        layer_type: type[Layer] = PackedLayer if is_packed else ModuleLayer
        head_type: type[Head] = PackedHead if is_packed else ModuleHead
        with torch.inference_mode():
            self.rotations = build_rotations(decoder, context_tokens, packed=is_packed)
            self.layers = [
                layer_type(
                    layer, self.shape, release=release_weights, int8_threshold=int8_threshold
                )
                for layer in decoder.layers
            ]
            self.head = head_type(decoder.norm, output)
        self.has_own_weights = is_packed
        """Whether the layers' weights are packed, and the model's own no longer read."""
        if is_packed and release_weights:
            self._release_head(output)

    def _release_head(self, output: Any) -> None:
        # A head that is tied to the embedding is still read there.
        if output.weight.data_ptr() != self.embed.weight.data_ptr():
            empty = output.weight.new_empty(0)
            output.weight = torch.nn.Parameter(empty, requires_grad=False)

    @torch.inference_mode()
    def tune(self, max_seconds: float = 1.0) -> None:
        """Measure which small batches are quicker with padding; on the thread that will run.

        Args:
            max_seconds: no new round of measurements begins after so long.
        """
        if not self.has_own_weights or self._row_counts:
            return
        width = self.layers[0].hidden_size
        rows = torch.zeros(MAX_PADDED_ROWS, width)

        def run(count: int) -> None:
            for layer in self.layers:
                layer.multiply(rows[:count])

        deadline = time.perf_counter() + max_seconds
        seconds = measure_row_counts(run, lambda: time.perf_counter() < deadline)
        self._row_counts = choose_row_counts(seconds)

    def pad(self, hidden: Tensor) -> Tensor:
        """(rows, hidden) to as many rows as are computed quickest; the added ones are zeros."""
        count = hidden.shape[0]
        padded = self._row_counts[count - 1] if 0 < count <= len(self._row_counts) else count
        if padded == count:
            return hidden
        rows = hidden.new_zeros(padded, hidden.shape[1])
        rows[:count] = hidden
        return rows


class RecordedSteps(Protocol):
    """Steps that need not be computed operation by operation; see `graphs.DecodeGraphs`."""

    def can_run(self, inputs: Sequence[Input]) -> bool:
        """Whether a step is one of them."""
        ...

    def run(self, inputs: Sequence[Input]) -> Tensor:
        """What `Runner.forward` returns; valid until the next step."""
        ...


class Runner:
    """The decoder over one cache.

    Args:
        decoder: may serve several runners, one after another.
        attention: the cache, made for the decoder's shape.
        recorded: steps to take the short way.
    """

    def __init__(
        self, decoder: Decoder, attention: Attention, recorded: RecordedSteps | None = None
    ) -> None:
        self._decoder = decoder
        self._attention = attention
        self._recorded = recorded

    def forward(
        self, inputs: Sequence[Input], meanwhile: Callable[[], None] = lambda: None
    ) -> Tensor:
        """See `batching.core.Runner.forward`."""
        meanwhile()
        return self._compute(inputs)

    @torch.inference_mode()
    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See `batching.core.Runner.copy`."""
        self._attention.copy(source, target, num_tokens)

    @torch.inference_mode()
    def _compute(self, inputs: Sequence[Input]) -> Tensor:
        if self._recorded is not None and self._recorded.can_run(inputs):
            return self._recorded.run(inputs)
        token_ids: list[int] = []
        positions: list[int] = []
        batch: list[Rows] = []
        wanted: list[int] = []
        for item in inputs:
            batch.append(Rows(len(token_ids), len(item.token_ids), item.start, item.blocks))
            token_ids += item.token_ids
            positions += range(item.start, item.start + len(item.token_ids))
            if item.wants_logits:
                wanted.append(len(token_ids) - 1)
        decoder, device = self._decoder, self._decoder.device
        self._attention.begin(batch)
        ids = torch.tensor(token_ids, device=device)
        index = torch.tensor(positions, device=device)
        rotations = [table[index] for table in decoder.rotations]
        hidden = decoder.pad(decoder.embed(ids.unsqueeze(0))[0])
        for number, layer in enumerate(decoder.layers):
            hidden = layer(hidden, rotations, number, self._attention, len(token_ids))
        if not wanted:
            if device.type == "cuda":
                # Else the step that is waited for next is charged with this one's time.
                torch.cuda.current_stream(device).synchronize()
            return hidden.new_empty(0, 0)
        if len(wanted) < len(token_ids):
            hidden = decoder.pad(hidden[torch.tensor(wanted, device=device)])
        return decoder.head(hidden)[: len(wanted)].float()
