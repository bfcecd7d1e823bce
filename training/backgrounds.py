"""Backgrounds: flat, shaded and textured, all of one namable colour."""

import random

import numpy as np
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]

_TEXTURES = ("clouds", "grain", "stripes", "checks", "paper", "dots", "patches")


def draw_background(
    rng: random.Random, size: tuple[int, int], rgb: Rgb, textured: bool | None = None
) -> Image.Image:
    """Draw a background.

    Args:
        rng: the only source of chance.
        size: width and height in pixels.
        rgb: the colour the background is called by.
        textured: True for a texture, False for a flat colour, None for chance.
    """
    if textured is None:
        kind = rng.choices(("flat", "shaded", "textured"), (50, 10, 40))[0]
    else:
        kind = "textured" if textured else "flat"
    if kind == "flat":
        return Image.new("RGB", size, rgb)
    if kind == "shaded":
        return _shade_linearly(rng, size, rgb)
    texture = rng.choice(_TEXTURES)
    reach = rng.uniform(8, 34)
    if texture in ("clouds", "grain", "patches"):
        return _add_noise(rng, size, rgb, reach, texture)
    picture = Image.new("RGB", size, rgb)
    _draw_pattern(rng, picture, _offset(rgb, rng.choice((-1, 1)) * reach), texture)
    return picture


def _shade_linearly(rng: random.Random, size: tuple[int, int], rgb: Rgb) -> Image.Image:
    reach = rng.uniform(8, 30)
    corners = np.array(
        [[_offset(rgb, rng.uniform(-reach, reach)) for _ in range(2)] for _ in range(2)],
        dtype=np.uint8,
    )
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)


def _add_noise(
    rng: random.Random, size: tuple[int, int], rgb: Rgb, reach: float, texture: str
) -> Image.Image:
    # Drawn coarsely and enlarged: textures are smooth at the scale of a pixel.
    longer = max(size)
    cells = {"clouds": rng.randint(3, 12), "patches": rng.randint(5, 16), "grain": 96}[texture]
    shape = (max(1, size[1] * cells // longer), max(1, size[0] * cells // longer))
    source = np.random.default_rng(rng.getrandbits(32))
    channels = 3 if rng.random() < 0.4 else 1
    noise = source.normal(0, reach * (0.8 if texture == "grain" else 0.6), (*shape, channels))
    coarse = (np.array(rgb, dtype=np.float32) + noise).clip(0, 255).astype(np.uint8)
    method = Image.Resampling.NEAREST if texture == "patches" else Image.Resampling.BICUBIC
    return Image.fromarray(coarse).resize(size, method)


def _draw_pattern(rng: random.Random, picture: Image.Image, rgb: Rgb, texture: str) -> None:
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    step = max(4, round(rng.uniform(0.04, 0.16) * max(width, height)))
    if texture == "stripes":
        slant = rng.choice((0, 0, height, -height))
        thick = max(1, round(step * rng.uniform(0.15, 0.5)))
        if rng.random() < 0.4:
            for y in range(0, height, step):
                draw.line((0, y, width, y), fill=rgb, width=thick)
        else:
            for x in range(-height, width + height, step):
                draw.line((x, 0, x + slant, height), fill=rgb, width=thick)
    elif texture == "checks":
        for row, y in enumerate(range(0, height, step)):
            for x in range(step * (row % 2), width, 2 * step):
                draw.rectangle((x, y, x + step - 1, y + step - 1), fill=rgb)
    elif texture == "paper":
        for y in range(step // 2, height, step):
            draw.line((0, y, width, y), fill=rgb, width=max(1, step // 10))
        if rng.random() < 0.5:
            for x in range(step // 2, width, step):
                draw.line((x, 0, x, height), fill=rgb, width=max(1, step // 10))
    else:
        radius = max(1, round(step * rng.uniform(0.1, 0.25)))
        for y in range(step // 2, height, step):
            for x in range(step // 2, width, step):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rgb)


def _offset(rgb: Rgb, by: float) -> Rgb:
    # A texture at the edge of the range turns inward, or it would vanish.
    if all(not 0 <= channel + by <= 255 for channel in rgb):
        by = -by
    red, green, blue = (max(0, min(255, round(channel + by))) for channel in rgb)
    return red, green, blue
