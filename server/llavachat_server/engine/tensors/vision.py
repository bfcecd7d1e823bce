"""From an RGB picture to the features that the language model reads.

Pad, preprocess, encode. Called on worker threads, one picture at a time: a picture's
features must not depend on which others happen to come along.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llavachat_server.engine.pixels import PixelForm
from llavachat_server.images.preprocess import pad_to_square


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
        features: Tensor = self._model.get_image_features(pixel_values=values).pooler_output[0]
        return features
