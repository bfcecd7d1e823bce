"""A CLIP vision tower and LLaVA's projector, packed, and the threads that compute with them.

It knows pixels as the tower takes them, and features; no pictures.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llavachat_server.engine.llava.config import LlavaConfig
from llavachat_server.engine.native.calls import point_to, write_words
from llavachat_server.engine.native.code import Kernel
from llavachat_server.engine.native.plan import (
    LANES,
    TOWER_PHASES_AROUND,
    TOWER_PHASES_PER_LAYER,
    TowerBuffers,
    TowerReading,
    TowerSizes,
    count_counters,
    count_tower_scratch,
)
from llavachat_server.engine.native.threads import Helpers
from llavachat_server.engine.native.weights import TowerWeights, count_tower_layers

Floats = NDArray[np.float32]


class NativeTower:
    """A tower up to the layer that is read, and the projector; one picture at a time.

    Args:
        kernel: see `kernels.tower.run_tower`.
        weights: see `weights.pack_tower`.
        config: of the same checkpoint; see `weights.find_misfit`.
        num_threads: that compute one picture where nothing else is computed.
    """

    def __init__(
        self,
        kernel: Kernel,
        weights: TowerWeights,
        config: LlavaConfig,
        num_threads: int,
    ) -> None:
        vision = config.vision_config
        num_rows = (vision.image_size // vision.patch_size) ** 2 + 1
        slots = num_rows + -num_rows % LANES
        self._sizes = sizes = TowerSizes(
            num_layers=count_tower_layers(config),
            num_rows=num_rows,
            hidden=vision.hidden_size,
            num_heads=vision.num_attention_heads,
            num_kv_heads=vision.num_attention_heads,
            head_dim=vision.hidden_size // vision.num_attention_heads,
            inner=vision.intermediate_size,
            patch=vision.num_channels * vision.patch_size**2,
            first_projected=int(config.vision_feature_select_strategy == "default"),
            projected=config.text_config.hidden_size,
            is_quick=int(vision.hidden_act == "quick_gelu"),
            block_tokens=slots,
            num_slots=slots,
            num_threads=num_threads,
        )
        self._buffers = TowerBuffers(
            weights=np.empty(0, np.float32),
            vectors=weights.vectors,
            patches=np.zeros((num_rows - 1) * sizes.patch, np.float32),
            cache=np.zeros(2 * slots * sizes.hidden, np.float32),
            gated=np.zeros(num_rows * sizes.inner, np.float32),
            bent=np.zeros(num_rows * sizes.projected, np.float32),
            features=np.zeros(num_rows * sizes.projected, np.float32),
            **{name: np.zeros(num_rows * sizes.hidden, np.float32) for name in _ROWS},
        )
        self.panels = weights.panels
        """May be replaced at any time by others of the same content; a picture keeps its own."""
        self._reading = TowerReading(
            positions=np.full(num_rows, num_rows - 1, np.int64),
            first_blocks=np.zeros(num_rows, np.int64),
            tables=np.zeros(1, np.int64),
        )
        self._kernel = kernel
        self._floor = np.array([vision.layer_norm_eps], np.float32)
        self._first_row = weights.first_row
        self._patch_side, self._num_channels = vision.patch_size, vision.num_channels
        size = count_tower_scratch(slots)
        self._scratch = [np.zeros(size, np.float32) for _ in range(num_threads)]
        self._helpers = Helpers("llavachat-tower", num_threads - 1)
        self._is_alone: Callable[[], bool] = lambda: True
        self.is_running = False
        """A picture is being encoded; from any thread."""

    def leave_cores(self, is_alone: Callable[[], bool]) -> None:
        """Encode on one thread while others compute.

        Args:
            is_alone: whether nobody does; asked at each picture.
        """
        self._is_alone = is_alone

    def run(self, pixels: Floats) -> Floats:
        """(channels, side, side) to (tokens, projected)."""
        self.is_running = True
        try:
            return self._run(pixels)
        finally:
            self.is_running = False

    def _run(self, pixels: Floats) -> Floats:
        sizes, buffers = self._sizes, self._buffers._replace(weights=self.panels)
        self._fill_patches(pixels)
        buffers.hidden[: sizes.hidden] = self._first_row
        num_phases = sizes.num_layers * TOWER_PHASES_PER_LAYER + TOWER_PHASES_AROUND
        counters = np.zeros(count_counters(num_phases), np.int64)
        common = [*sizes, *point_to((*buffers, *self._reading, self._floor, counters))]
        main, *helping = (
            write_words(common, scratch, is_helper=number > 0)
            for number, scratch in enumerate(self._scratch)
        )
        if self._is_alone():
            self._helpers.call(self._kernel, [(words, counters) for words in helping])
        self._kernel(main, counters)
        features: Floats = buffers.features.reshape(-1, sizes.projected)
        return features[: sizes.num_rows - sizes.first_projected].copy()

    def _fill_patches(self, pixels: Floats) -> None:
        # As a convolution reads them whose stride is a patch's side; the rest is not read.
        side, channels = self._patch_side, self._num_channels
        num = pixels.shape[-1] // side
        cut = pixels[:, : num * side, : num * side].reshape(channels, num, side, num, side)
        patches = self._buffers.patches.reshape(num, num, channels, side, side)
        np.copyto(patches, cut.transpose(1, 3, 0, 2, 4))


_ROWS = ("hidden", "middle", "normed", "query", "mixed")
