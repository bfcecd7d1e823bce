"""From an RGB picture to the numbers that the vision tower reads, as CLIP's processor makes them.

By Pillow alone: the picture library, and with it the pixels, would otherwise depend on what
else is installed. It knows ``preprocessor_config.json`` and no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Source: ``OPENAI_CLIP_MEAN`` and ``OPENAI_CLIP_STD`` in transformers' ``image_utils.py``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelForm:
    """What is done with a picture, step by step. Defaults: CLIP's processor in transformers.

    Args:
        shortest_edge: pixels that the shorter side is resized to; None where `size` says both.
        size: (height, width) that it is resized to.
        crop: (height, width) that is cut out of the middle; None for all of it.
        resample: Pillow's number of a filter; 3 is bicubic.
        scale: factor of the bytes 0-255; None for none.
        mean: of each channel, subtracted; None for none.
        std: of each channel, divided by.
    """

    shortest_edge: int | None = 224
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = (224, 224)
    resample: int = Image.Resampling.BICUBIC
    scale: float | None = 1 / 255
    mean: tuple[float, ...] | None = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def convert(self, picture: Image.Image) -> NDArray[np.float32]:
        """(3, height, width), float32, of an RGB picture."""
        picture = self._cut(self._resize(picture))
        # A byte has 256 values: what becomes of each is computed once, in transformers' order.
        values = np.arange(256)
        scaled = values.astype(np.float64) * self.scale if self.scale is not None else values
        table: NDArray[Any] = np.repeat(scaled.astype(np.float32)[:, None], 3, 1)
        if self.mean is not None:
            table = (table - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        pixels = np.asarray(picture)
        return np.stack([table[:, channel][pixels[..., channel]] for channel in range(3)])

    def _resize(self, picture: Image.Image) -> Image.Image:
        if self.size is not None:
            height, width = self.size
        elif self.shortest_edge is not None:
            short, long = sorted(picture.size)
            ends = (self.shortest_edge, int(self.shortest_edge * long / short))
            width, height = ends if picture.width <= picture.height else ends[::-1]
        else:
            return picture
        return picture.resize((width, height), self.resample)

    def _cut(self, picture: Image.Image) -> Image.Image:
        if self.crop is None:
            return picture
        height, width = self.crop
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        # What lies outside is black, as there.
        return picture.crop((left, top, left + width, top + height))


def parse_pixel_form(content: Mapping[str, Any]) -> PixelForm:
    """Read a processor's configuration.

    Args:
        content: of ``preprocessor_config.json``, or the part "image_processor" of
            ``processor_config.json``.

    Raises:
        ValueError: a field is not what it must be, or asks for something else than CLIP's steps.
    """

    def wants(name: str) -> bool:
        return content.get(name) is not False

    default = PixelForm()
    size = _parse_size(content.get("size", {"shortest_edge": 224}), "size")
    crop = _parse_size(content.get("crop_size", {"height": 224, "width": 224}), "crop_size")
    if isinstance(crop, int):
        crop = (crop, crop)
    channels = {
        name: _parse_channels(content.get(name), name, own)
        for name, own in (("image_mean", default.mean), ("image_std", default.std))
    }
    scale = content.get("rescale_factor", default.scale)
    resample = content.get("resample", int(default.resample))
    if not isinstance(scale, int | float) or not isinstance(resample, int):
        raise ValueError("rescale_factor and resample must be numbers")
    return PixelForm(
        shortest_edge=size if wants("do_resize") and isinstance(size, int) else None,
        size=size if wants("do_resize") and isinstance(size, tuple) else None,
        crop=crop if wants("do_center_crop") else None,
        resample=resample,
        scale=float(scale) if wants("do_rescale") else None,
        mean=channels["image_mean"] if wants("do_normalize") else None,
        std=channels["image_std"],
    )


def _parse_size(value: Any, name: str) -> int | tuple[int, int]:
    found = value if isinstance(value, Mapping) else {"shortest_edge": value}
    sizes = {key: size for key, size in found.items() if size is not None}
    if all(type(size) is int and size > 0 for size in sizes.values()):
        if set(sizes) == {"shortest_edge"}:
            return int(sizes["shortest_edge"])
        if set(sizes) == {"height", "width"}:
            return sizes["height"], sizes["width"]
    raise ValueError(f'{name} must have "shortest_edge", or "height" and "width", in pixels')


def _parse_channels(value: Any, name: str, default: Sequence[float] | None) -> tuple[float, ...]:
    numbers = default if value is None else value
    found = list(numbers) if isinstance(numbers, list | tuple) else []
    if len(found) != 3 or not all(isinstance(number, int | float) for number in found):
        raise ValueError(f"{name} must have 3 numbers")
    return tuple(float(number) for number in found)
