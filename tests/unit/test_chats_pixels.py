"""Pixels come back as they were, from a PNG that anybody can read."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.chats.pixels import read_png, write_png
from PIL import Image, ImageDraw

SIDE = 600
"""More rows than are filtered at once."""


def photograph() -> Image.Image:
    """Soft light with a sensor's noise."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    light = 127 + 80 * np.sin(columns / 90) * np.cos(rows / 70)
    noise = np.random.default_rng(0).normal(0, 4, (SIDE, SIDE, 3))
    return Image.fromarray((light[..., None] + noise).clip(0, 255).astype(np.uint8))


def page() -> Image.Image:
    """Lines of text."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(picture)
    for top in range(0, SIDE, 14):
        pen.text((5, top), f"{top} words upon words upon words " * 3, fill="black")
    return picture


def write_by_pillow(pixels: Image.Image) -> bytes:
    """The same, by Pillow."""
    file = io.BytesIO()
    pixels.save(file, "PNG", compress_level=1)
    return file.getvalue()


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 2**16))
def test_pixels_come_back(width: int, height: int, seed: int) -> None:
    """Of every size; noise, and few colours."""
    draw = np.random.default_rng(seed)
    for values in (256, 2):
        noise = draw.integers(0, values, (height, width, 3), dtype=np.uint8)
        pixels = Image.fromarray(noise)
        again = read_png(write_png(pixels))
        assert (pixels.size, "RGB", {}) == (again.size, again.mode, again.info)
        assert pixels.tobytes() == again.tobytes()


@pytest.mark.parametrize("draw", [photograph, page, lambda: Image.new("RGB", (SIDE, SIDE), "red")])
def test_a_picture_takes_about_what_it_takes_by_pillow(draw) -> None:  # type: ignore[no-untyped-def]
    """Whatever is in it, text among them; every checksum is right; and it comes back."""
    pixels = draw()
    png = write_png(pixels)
    assert len(png) < 1.25 * len(write_by_pillow(pixels)) + 1024
    with Image.open(io.BytesIO(png)) as picture:
        picture.verify()
    assert pixels.tobytes() == read_png(png).tobytes()
