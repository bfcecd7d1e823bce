"""Pictures are padded to a square as in training; nothing is cut off."""

from pathlib import Path

import llavachat_server
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.images.preprocess import PAD_COLOUR, pad_to_square
from PIL import Image
from transformers import CLIPImageProcessorPil

FOLDER = Path(llavachat_server.__file__).parent / "models" / "shapes"
sides = st.integers(1, 90)


def pad_as_in_training(picture: Image.Image) -> Image.Image:
    """``expand2square`` of the LLaVA-1.5 release, ``llava/mm_utils.py``, in its own words."""
    width, height = picture.size
    mean = (0.48145466, 0.4578275, 0.40821073)
    colour = tuple(int(x * 255) for x in mean)
    if width == height:
        return picture
    if width > height:
        result = Image.new(picture.mode, (width, width), colour)
        result.paste(picture, (0, (width - height) // 2))
        return result
    result = Image.new(picture.mode, (height, height), colour)
    result.paste(picture, ((height - width) // 2, 0))
    return result


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(0, 2**32 - 1))
def test_padding_is_that_of_training(width: int, height: int, seed: int) -> None:
    """Pixel for pixel, for every size."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)

    expected = np.array(pad_as_in_training(picture))
    assert np.array_equal(expected, np.array(pad_to_square(picture)))


def test_a_square_is_left_as_it_is() -> None:
    """Not even copied."""
    picture = Image.new("RGB", (5, 5))

    assert pad_to_square(picture) is picture


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_the_ends_of_a_long_picture_reach_the_model(size: tuple[int, int]) -> None:
    """The processor alone would cut them off: that is why pictures are padded."""
    picture = Image.new("RGB", size, "blue")
    ends = [(0, 0, 20, 20), (size[0] - 20, size[1] - 20, size[0], size[1])]
    for end in ends:
        picture.paste("red", end)
    processor = CLIPImageProcessorPil.from_pretrained(FOLDER)

    def find_reds(prepared: Image.Image) -> int:
        values = processor(images=prepared, return_tensors="np")["pixel_values"][0]
        return int(((values[0] > 1) & (values[2] < 0)).sum())

    assert 0 == find_reds(picture)
    assert 40 < find_reds(pad_to_square(picture))


def test_the_border_is_nearly_nothing_to_the_model() -> None:
    """The mean colour is zero after normalisation, to within a grey level."""
    processor = CLIPImageProcessorPil.from_pretrained(FOLDER)
    border = Image.new("RGB", (96, 96), PAD_COLOUR)
    values = processor(images=border, return_tensors="np")["pixel_values"]

    assert np.abs(values).max() < 0.02
