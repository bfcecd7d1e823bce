"""A picture's numbers are those that transformers' own processor makes, to the last bit."""

import random
from typing import Any

import numpy as np
import pytest
from llavachat_server.engine.pixels import parse_pixel_form
from PIL import Image
from transformers import CLIPImageProcessorPil

FORMS = {
    "defaults": {},
    "as bytes": {"do_rescale": False, "do_normalize": False, "do_center_crop": False},
    "small sizes": {"size": {"shortest_edge": 30}, "crop_size": {"height": 41, "width": 28}},
    "numbers": {"size": 33, "crop_size": 33, "rescale_factor": 0.5, "resample": 2},
    "both sides": {"size": {"height": 20, "width": 50}, "do_center_crop": False},
    "channels": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 1, 2], "do_resize": False},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_pixels_are_those_of_transformers(form: dict[str, Any]) -> None:
    """Pictures of any size, also smaller than what is cut out of them."""
    processor, rng = CLIPImageProcessorPil(**form), random.Random(5)
    for _ in range(8):
        size = (rng.randint(1, 120), rng.randint(1, 120))
        picture = Image.frombytes("RGB", size, rng.randbytes(size[0] * size[1] * 3))
        expected = processor(images=picture, return_tensors="np")["pixel_values"][0]
        pixels = parse_pixel_form(form).convert(picture)
        assert np.float32 == pixels.dtype
        np.testing.assert_array_equal(expected.astype(np.float32), pixels)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"size": {"longest_edge": 5}}, 'size must have "shortest_edge", or "height" and "width"'),
        ({"crop_size": {"height": 0, "width": 4}}, "crop_size must have"),
        ({"image_mean": [0.5]}, "image_mean must have 3 numbers"),
        ({"resample": "bicubic"}, "rescale_factor and resample must be numbers"),
    ],
)
def test_what_does_not_fit_is_named(form: dict[str, Any], message: str) -> None:
    """A processor that asks for other steps is refused, not half followed."""
    with pytest.raises(ValueError, match=message):
        parse_pixel_form(form)
