"""A CLIP vision tower and LLaVA's projector, packed, and the threads that compute with them.

It knows pixels as the tower takes them, and features; pictures are `engine.vision`'s.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llavachat_server.engine.native.encoding import (
    PHASES_AROUND,
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


def can_pack_tower(tower: Any, projector: Any) -> bool:
    """Whether the kernels compute these: CLIP's layers in float32 on a CPU, with biases.

    Every width must be whole vectors of 16.

    Args:
        tower: `llava.tower`'s or transformers', as all that is asked for here.
        projector: two layers with GELU between them.
    """
    layers = list(tower.encoder.layers)
    linears = [m for layer in layers for m in layer.modules() if hasattr(m, "in_features")]
    if not layers or layers[0].mlp.config.hidden_act != "quick_gelu":
        return False
    head_dim = layers[0].self_attn.head_dim
    linears += [projector.linear_1, projector.linear_2]
    return bool(
        head_dim % LANES == 0
        and all(type(m) is nn.Linear for m in linears)
        and all(m.bias is not None for m in linears[:-2])
        and all(size % LANES == 0 for m in linears for size in m.weight.shape)
        and all(m.weight.dtype == torch.float32 and not m.weight.is_cuda for m in linears)
    )


class NativeTower:
    """A tower up to one of its layers and the projector, ready to run; one picture at a time.

    Args:
        tower: see `can_pack_tower`.
        projector: see `can_pack_tower`.
        num_layers: of the tower's, from the first on.
        skips_class: the class token's row is not projected.
        release: give the modules' own weights back, those of the other layers too.
        num_threads: that compute one picture where nothing else is computed.
        is_alone: whether nothing else is; asked at each picture.
    """

    def __init__(
        self,
        tower: Any,
        projector: Any,
        num_layers: int,
        *,
        skips_class: bool,
        release: bool,
        num_threads: int,
        is_alone: Callable[[], bool],
    ) -> None:
        own, mlp = tower.encoder.layers[0].self_attn, tower.encoder.layers[0].mlp
        hidden, inner = int(own.embed_dim), int(mlp.fc1.out_features)
        heads, dim = int(own.num_heads), int(own.head_dim)
        with torch.inference_mode():
            patches, first_row, positions = _read_embeddings(tower)
            weights, vectors = _pack(tower, projector, num_layers, patches, positions)
        self._patch_side = int(patches.shape[-1])
        self._num_channels = int(patches.shape[1])
        num_rows = len(positions) + 1
        slots, projected = num_rows + -num_rows % LANES, int(projector.linear_2.out_features)
        self._sizes = TowerSizes(
            num_layers=num_layers,
            num_rows=num_rows,
            hidden=hidden,
            num_heads=heads,
            num_kv_heads=heads,
            head_dim=dim,
            inner=inner,
            patch=patches[0].numel(),
            first_projected=int(skips_class),
            projected=projected,
            block_tokens=slots,
            num_slots=slots,
            num_threads=num_threads,
        )
        self._floor = np.float32(tower.encoder.layers[0].layer_norm1.eps)
        if release:
            for module in (*tower.encoder.layers, projector):
                _release(module)
        rows = {name: np.zeros(num_rows * hidden, np.float32) for name in _ROWS}
        self._buffers = TowerBuffers(
            weights=weights.numpy(),
            vectors=vectors.numpy(),
            patches=np.zeros((num_rows - 1) * self._sizes.patch, np.float32),
            cache=np.zeros(2 * heads * slots * dim, np.float32),
            gated=np.zeros(num_rows * inner, np.float32),
            bent=np.zeros(num_rows * projected, np.float32),
            features=np.zeros(num_rows * projected, np.float32),
            **rows,
        )
        self._first_row = first_row.numpy()
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

    def run(self, pixels: Tensor) -> Tensor:
        """(channels, side, side) to (tokens, projected), float32."""
        self.is_running = True
        try:
            return self._run(pixels)
        finally:
            self.is_running = False

    def _run(self, pixels: Tensor) -> Tensor:
        sizes, buffers = self._sizes, self._buffers
        self._fill_patches(pixels.numpy())
        buffers.hidden[: sizes.hidden] = self._first_row
        num_phases = sizes.num_layers * PHASES_PER_LAYER + PHASES_AROUND
        counters = np.zeros(count_counters(num_phases), np.int64)
        common = (sizes, buffers, self._reading, self._floor, counters)
        if self._is_alone():
            helping = [(*common, scratch, True) for scratch in self._scratch[1:]]
            self._helpers.call(run_tower, helping)
        run_tower(*common, self._scratch[0], False)
        features = torch.from_numpy(buffers.features).view(-1, sizes.projected)
        return features[: sizes.num_rows - sizes.first_projected].clone()

    def _fill_patches(self, pixels: NDArray[np.float32]) -> None:
        # As a convolution reads them whose stride is a patch's side; the rest is not read.
        side, channels = self._patch_side, self._num_channels
        num = pixels.shape[-1] // side
        cut = pixels[:, : num * side, : num * side].reshape(channels, num, side, num, side)
        patches = self._buffers.patches.reshape(num, num, channels, side, side)
        np.copyto(patches, cut.transpose(1, 3, 0, 2, 4))


_ROWS = ("hidden", "middle", "normed", "query", "mixed")


def compile_tower() -> None:
    """Compile everything, or read it from the disk: a tower of no layers."""
    nothing = np.zeros(1, np.int64)
    sizes = TowerSizes(0, 2, LANES, 1, 1, LANES, LANES, LANES, 1, LANES, LANES, LANES, 1)
    # Two rows at most, and three layers of 16 to 16.
    buffers = TowerBuffers(*[np.zeros(3 * LANES * LANES, np.float32)] * len(TowerBuffers._fields))
    reading = TowerReading(nothing, nothing, nothing)
    counters = np.zeros(count_counters(PHASES_AROUND), np.int64)
    scratch = np.zeros(count_tower_scratch(LANES), np.float32)
    run_tower(sizes, buffers, reading, np.float32(1.0), counters, scratch, False)


def _read_embeddings(tower: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The patches' weights (hidden, channels, side, side), the class token's row as the first layer
    has it, and the patches' positions (patches, hidden)."""
    own = tower.embeddings
    is_ours = hasattr(own, "patches")
    patches = own.patches if is_ours else own.patch_embedding.weight
    positions = own.positions if is_ours else own.position_embedding.weight
    first_row = tower.pre_layrnorm((own.class_embedding + positions[0]).view(1, 1, -1)).view(-1)
    return patches, first_row, positions[1:]


def _pack(
    tower: Any, projector: Any, num_layers: int, patches: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    weights: list[Tensor] = [cut_panels(patches.reshape(len(patches), -1))]
    vectors: list[Tensor] = [positions, tower.pre_layrnorm.weight, tower.pre_layrnorm.bias]
    for layer in list(tower.encoder.layers)[:num_layers]:
        own, mlp = layer.self_attn, layer.mlp
        vectors += [layer.layer_norm1.weight, layer.layer_norm1.bias]
        for module in (own.q_proj, own.k_proj, own.v_proj, own.out_proj):
            weights.append(cut_panels(module.weight))
            vectors.append(module.bias)
        vectors += [layer.layer_norm2.weight, layer.layer_norm2.bias]
        for module in (mlp.fc1, mlp.fc2):
            weights.append(cut_panels(module.weight))
            vectors.append(module.bias)
    for module in (projector.linear_1, projector.linear_2):
        weights.append(cut_panels(module.weight))
        has_bias = module.bias is not None
        vectors.append(module.bias if has_bias else torch.zeros(module.out_features))
    packed = torch.cat([panels.reshape(-1) for panels in weights])
    return packed, torch.cat([vector.reshape(-1).float() for vector in vectors])


def _release(modules: Any) -> None:
    for module in modules.modules():
        if hasattr(module, "in_features"):
            module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
