"""A CLIP vision tower's layers, packed, and the threads that compute with them.

It knows hidden states before the first layer and after the last one that is read; pixels,
projector and pictures are `engine.vision`'s.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llavachat_server.engine.native.encoding import (
    PHASES_PER_LAYER,
    TowerBuffers,
    TowerReading,
    TowerSizes,
    count_tower_scratch,
    run_tower,
)
from llavachat_server.engine.native.helpers import Helpers
from llavachat_server.engine.native.sharing import count_counters
from llavachat_server.engine.native.vectors import LANES
from llavachat_server.engine.native.weights import cut_panels


def can_pack_tower(encoder: Any) -> bool:
    """Whether the kernels compute these layers: CLIP's in float32 on a CPU, with biases.

    Every width must be whole vectors of 16.
    """
    layers = list(encoder.layers)
    linears = [m for layer in layers for m in layer.modules() if hasattr(m, "in_features")]
    if not layers or layers[0].mlp.config.hidden_act != "quick_gelu":
        return False
    head_dim = layers[0].self_attn.head_dim
    return bool(
        head_dim % LANES == 0
        and all(type(m) is nn.Linear and m.bias is not None for m in linears)
        and all(size % LANES == 0 for m in linears for size in m.weight.shape)
        and all(m.weight.dtype == torch.float32 and not m.weight.is_cuda for m in linears)
    )


class NativeTower:
    """Some layers of a tower, ready to run; one picture at a time.

    Args:
        encoder: CLIP's layers; see `can_pack_tower`.
        num_layers: of them, from the first on.
        num_rows: patches and class token.
        release: give the modules' own weights back, those of the other layers too.
        num_threads: that compute one picture where nothing else is computed.
        is_alone: whether nothing else is; asked at each picture.
    """

    def __init__(
        self,
        encoder: Any,
        num_layers: int,
        num_rows: int,
        *,
        release: bool,
        num_threads: int,
        is_alone: Callable[[], bool],
    ) -> None:
        layers = list(encoder.layers)[:num_layers]
        own, mlp = encoder.layers[0].self_attn, encoder.layers[0].mlp
        hidden, inner = int(own.embed_dim), int(mlp.fc1.out_features)
        heads, dim = int(own.num_heads), int(own.head_dim)
        slots = num_rows + -num_rows % LANES
        self._sizes = TowerSizes(
            num_layers, num_rows, hidden, heads, heads, dim, inner, slots, slots, num_threads
        )
        self._floor = np.float32(encoder.layers[0].layer_norm1.eps)
        with torch.inference_mode():
            weights, vectors = _pack(layers)
        if release:
            for layer in encoder.layers:
                _release(layer)
        rows = {name: np.zeros(num_rows * hidden, np.float32) for name in _ROWS}
        self._buffers = TowerBuffers(
            weights=weights.numpy(),
            vectors=vectors.numpy(),
            cache=np.zeros(2 * heads * slots * dim, np.float32),
            gated=np.zeros(num_rows * inner, np.float32),
            **rows,
        )
        self._reading = TowerReading(
            positions=np.full(num_rows, num_rows - 1, np.int64),
            first_blocks=np.zeros(num_rows, np.int64),
            tables=np.zeros(1, np.int64),
        )
        size = count_tower_scratch(slots)
        self._scratch = [np.zeros(size, np.float32) for _ in range(num_threads)]
        self._helpers = Helpers("llavachat-tower", num_threads - 1)
        self._is_alone = is_alone
        self.is_running = False
        """A picture is being encoded; from any thread."""

    def run(self, states: Tensor) -> Tensor:
        """(rows, hidden) before the first layer to (rows, hidden) after the last, float32."""
        self.is_running = True
        try:
            return self._run(states)
        finally:
            self.is_running = False

    def _run(self, states: Tensor) -> Tensor:
        hidden = torch.from_numpy(self._buffers.hidden)
        hidden.copy_(states.reshape(-1))
        num_phases = self._sizes.num_layers * PHASES_PER_LAYER
        counters = np.zeros(count_counters(num_phases), np.int64)
        common = (self._sizes, self._buffers, self._reading, self._floor, counters)
        if self._is_alone():
            helping = [(*common, scratch, True) for scratch in self._scratch[1:]]
            self._helpers.call(run_tower, helping)
        run_tower(*common, self._scratch[0], False)
        return hidden.view(states.shape).clone()


_ROWS = ("hidden", "middle", "normed", "query", "mixed")


def compile_tower() -> None:
    """Compile everything, or read it from the disk: a tower of no layers."""
    one = np.zeros(LANES, np.float32)
    nothing = np.zeros(1, np.int64)
    sizes = TowerSizes(0, 1, LANES, 1, 1, LANES, LANES, LANES, LANES, 1)
    buffers = TowerBuffers(*[one] * len(TowerBuffers._fields))
    reading = TowerReading(nothing, nothing, nothing)
    counters = np.zeros(count_counters(0), np.int64)
    run_tower(sizes, buffers, reading, np.float32(1.0), counters, one, False)


def _pack(layers: list[Any]) -> tuple[Tensor, Tensor]:
    weights: list[Tensor] = []
    vectors: list[Tensor] = []
    for layer in layers:
        own, mlp = layer.self_attn, layer.mlp
        vectors += [layer.layer_norm1.weight, layer.layer_norm1.bias]
        for module in (own.q_proj, own.k_proj, own.v_proj, own.out_proj):
            weights.append(cut_panels(module.weight))
            vectors.append(module.bias)
        vectors += [layer.layer_norm2.weight, layer.layer_norm2.bias]
        for module in (mlp.fc1, mlp.fc2):
            weights.append(cut_panels(module.weight))
            vectors.append(module.bias)
    packed = torch.cat([panels.reshape(-1) for panels in weights])
    return packed, torch.cat([vector.reshape(-1).float() for vector in vectors])


def _release(layer: Any) -> None:
    for module in layer.modules():
        if hasattr(module, "in_features"):
            module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
