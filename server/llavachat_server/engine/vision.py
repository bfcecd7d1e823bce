"""From an RGB picture to the features that the language model reads.

Pad, preprocess, encode. Called on worker threads, one picture at a time: a picture's
features must not depend on which others happen to come along.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from llavachat_server.engine.llava.config import CLIP_VISION
from llavachat_server.engine.pixels import PixelForm
from llavachat_server.images.preprocess import pad_to_square

if TYPE_CHECKING:
    from llavachat_server.engine.native.tower import NativeTower

_log = logging.getLogger(__name__)


class VisionEncoder:
    """The vision tower and projector of a loaded model.

    Args:
        model: whole, `llava.model` or transformers'; only its image half is used.
        form: what becomes of a picture first.
    """

    def __init__(self, model: Any, form: PixelForm) -> None:
        self._model = model
        self._form = form
        weight = next(model.model.vision_tower.parameters())
        self._dtype, self._device = weight.dtype, weight.device
        self._native: NativeTower | None = None

    def use_kernels(self, num_threads: int, is_alone: Callable[[], bool], *, release: bool) -> None:
        """Encode by the kernels for a CPU, if they compute this tower; see `engine.native`.

        Args:
            num_threads: of the kernels, where nothing else is computed.
            is_alone: whether nothing else is; asked at each picture.
            release: give the modules' own weights back; the model can not be run by itself then.
        """
        tower: Any = self._model.model.vision_tower
        projector: Any = self._model.model.multi_modal_projector
        config = self._model.config
        layer = config.vision_feature_layer
        if config.vision_config.model_type != CLIP_VISION or not isinstance(layer, int):
            return
        if config.projector_hidden_act != "gelu":
            return
        try:
            from llavachat_server.engine.native.tower import (
                NativeTower,
                can_pack_tower,
                compile_tower,
            )

            if not can_pack_tower(tower, projector):
                return
            compile_tower()
        except Exception as error:
            # What fails here costs speed, and nothing else.
            _log.info("encoding by torch's operations: %s: %s", type(error).__name__, error)
            return
        # States before the first layer count as well, as in transformers' list of them.
        num_states = config.vision_config.num_hidden_layers + 1
        self._native = NativeTower(
            tower,
            projector,
            layer % num_states,
            skips_class=config.vision_feature_select_strategy == "default",
            release=release,
            num_threads=num_threads,
            is_alone=is_alone,
        )

    @property
    def is_on_a_core(self) -> bool:
        """The kernels encode a picture now, on one core at least; from any thread."""
        return self._native is not None and self._native.is_running

    def preprocess(self, picture: Image.Image) -> Tensor:
        """Pad to a square, resize and normalise.

        Args:
            picture: RGB, upright, of any size.

        Returns:
            (1, 3, side, side) float32.
        """
        square = pad_to_square(picture)
        return torch.from_numpy(self._form.convert(square)).unsqueeze(0)

    @torch.inference_mode()
    def encode(self, values: Tensor) -> Tensor:
        """(1, 3, side, side) pixels to (tokens, hidden) features, on the model's device."""
        values = values.to(self._device, self._dtype)
        if self._native is not None:
            return self._native.run(values[0])
        features: Tensor = self._model.get_image_features(pixel_values=values).pooler_output[0]
        return features
