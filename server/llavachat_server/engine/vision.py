"""From an RGB picture to the features that the language model reads.

Pad, preprocess, hash, encode. Called on worker threads, one picture at a time: a picture's
features must not depend on which others happen to come along.
"""

import hashlib
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

from llavachat_server.images.preprocess import pad_to_square


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A preprocessed picture: `values` (1, 3, side, side) float32, and their SHA-256."""

    values: Tensor
    sha256: bytes


class VisionEncoder:
    """The vision tower and projector of a loaded model.

    Args:
        model: whole; only its image half is used.
        processor: the checkpoint's own.
    """

    def __init__(
        self, model: LlavaForConditionalGeneration, processor: CLIPImageProcessorPil
    ) -> None:
        self._model = model
        self._processor = processor
        weight = next(model.model.vision_tower.parameters())
        self._dtype, self._device = weight.dtype, weight.device

    def preprocess(self, picture: Image.Image) -> Pixels:
        """Pad to a square, resize and normalise.

        Args:
            picture: RGB, upright, of any size.
        """
        square = pad_to_square(picture)
        values = self._processor(images=square, return_tensors="pt")["pixel_values"]
        values = values.to(torch.float32).contiguous()
        return Pixels(values, hashlib.sha256(values.numpy().tobytes()).digest())

    @torch.inference_mode()
    def encode(self, pixels: Pixels) -> Tensor:
        """(1, 3, side, side) pixels to (tokens, hidden) features, on the model's device."""
        values = pixels.values.to(self._device, self._dtype)
        features: Tensor = self._model.get_image_features(pixel_values=values).pooler_output[0]
        return features
