"""Draws a scene in as many ways as people and programs draw shapes.

Facts come from `training.scenes` and stay true whatever is drawn: fills, outlines, textures,
noise, compression and size only make them harder to see.
"""

import io
import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from training.backgrounds import draw_background
from training.network import GRID_SIDE_PATCHES, IMAGE_SIDE_PIXELS, PATCH_SIDE_PIXELS
from training.scenes import BACKGROUND_COLOURS, COLOURS, SHAPES, SIZES, Item, Rgb, Scene

_MIN_PATCH_PIXELS = 26
NO_LABEL = -100


@dataclass(frozen=True, slots=True)
class Style:
    """What an evaluation fixes about drawing; None leaves it to chance.

    Attributes:
        textured: every background textured, or none.
        outlined: every item an outline only, or none.
        side_pixels: longer side of the picture.
        jpeg_quality: 1 to 95; 0 for no compression.
    """

    textured: bool | None = None
    outlined: bool | None = None
    side_pixels: int | None = None
    jpeg_quality: int | None = None


def draw_scene(scene: Scene, rng: random.Random, style: Style = Style()) -> Image.Image:
    """Draw an RGB picture as a user might send it: any size, not yet padded to a square."""
    side = style.side_pixels or _sample_side(rng)
    smooth = rng.random() < 0.65
    scale = side * (2 if smooth and side <= 300 else 1)
    size = (max(1, round(scene.width * scale)), max(1, round(scene.height * scale)))
    picture = draw_background(rng, size, scene.background_rgb, style.textured)
    draw = ImageDraw.Draw(picture)
    outlined = rng.random() < 0.14 if style.outlined is None else style.outlined
    shadow = rng.random() < 0.07
    mode = rng.choices(("plain", "edged", "hatched", "mixed"), (60, 18, 5, 17))[0]
    for item in scene.items:
        hollow = outlined or (style.outlined is None and mode == "mixed" and rng.random() < 0.4)
        look = rng.choice(("plain", "edged")) if mode == "mixed" else mode
        _draw_item(draw, item, scale, rng, "hollow" if hollow else look, shadow, scene)
    if scale != side:
        picture = picture.reduce(2)
    return _degrade(picture, rng, style)


def outline_points(item: Item, rng: random.Random) -> list[tuple[float, float]]:
    """The item's outline as a polygon, in parts of the longer side."""
    turn = rng.uniform(-0.2, 0.2) if rng.random() < 0.5 else rng.uniform(-math.pi, math.pi)
    if rng.random() < 0.45:
        turn = 0.0
    unit = _UNIT_OUTLINES[item.shape](rng)
    if item.shape == "heart":
        turn = max(-0.4, min(0.4, turn))
    cosine, sine = math.cos(turn), math.sin(turn)
    return [
        (
            item.x + item.radius * (x * cosine - y * sine),
            item.y + item.radius * (x * sine + y * cosine),
        )
        for x, y in unit
    ]


def label_patches(scene: Scene) -> NDArray[Any]:
    """What each patch shows, for training the vision tower alone.

    Returns:
        (5, patches) of int64: shape (0 is none), colour (the background's where there is no
        item, `NO_LABEL` in the padding), size, row and column (`NO_LABEL` where there is no item).
    """
    side = IMAGE_SIDE_PIXELS
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    left, top = (1 - scene.width) / 2, (1 - scene.height) / 2
    for index, item in enumerate(scene.items, 1):
        x, y, radius = ((item.x + left) * side, (item.y + top) * side, item.radius * side * 0.92)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=index)
    grid, patch = GRID_SIDE_PATCHES, PATCH_SIDE_PIXELS
    blocks = np.asarray(canvas).reshape(grid, patch, grid, patch).swapaxes(1, 2)
    cells = blocks.reshape(grid * grid, patch * patch)
    labels = np.full((5, grid * grid), NO_LABEL, dtype=np.int64)
    labels[0] = 0
    labels[1] = BACKGROUND_COLOURS.index(scene.background)
    labels[1, ~_inside(scene)] = NO_LABEL
    for index, item in enumerate(scene.items, 1):
        covered = (cells == index).sum(1) >= _MIN_PATCH_PIXELS
        labels[0, covered] = SHAPES.index(item.shape) + 1
        labels[1, covered] = COLOURS.index(item.colour)
        labels[2, covered] = SIZES.index(item.size)
        labels[3, covered] = item.row
        labels[4, covered] = item.column
    return labels


def _inside(scene: Scene) -> NDArray[Any]:
    # Patches whose centre is picture, not the border that padding adds.
    centres = (np.arange(GRID_SIDE_PATCHES) + 0.5) / GRID_SIDE_PATCHES - 0.5
    across, down = np.abs(centres) < scene.width / 2, np.abs(centres) < scene.height / 2
    return (down[:, None] & across[None, :]).reshape(-1)


def _sample_side(rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.12:
        return rng.randint(48, 95)
    if kind < 0.85:
        return rng.choice((96, 128, 160, 200, 224, 256, rng.randint(96, 256)))
    return rng.choice((300, 320, 336, 384, 400))


def _draw_item(
    draw: ImageDraw.ImageDraw,
    item: Item,
    scale: int,
    rng: random.Random,
    look: str,
    shadow: bool,
    scene: Scene,
) -> None:
    points = [(x * scale, y * scale) for x, y in outline_points(item, rng)]
    if shadow:
        offset = 0.015 * scale
        dark = _shade(scene.background_rgb, 0.72)
        draw.polygon([(x + offset, y + offset) for x, y in points], fill=dark)
    ring = [*points, points[0], points[1]]
    if look == "hollow":
        width = max(2, round(rng.uniform(0.018, 0.05) * scale))
        draw.line(ring, fill=item.rgb, width=width, joint="curve")
    elif look == "hatched":
        draw.polygon(points, fill=_shade(item.rgb, rng.uniform(0.8, 1.2)))
        draw.line(ring, fill=item.rgb, width=max(2, round(0.02 * scale)), joint="curve")
        step = max(4, round(0.03 * scale))
        for x, y in points[:: max(1, len(points) // 8)]:
            draw.line((x, y, item.x * scale, item.y * scale), fill=item.rgb, width=step // 2)
    else:
        draw.polygon(points, fill=item.rgb)
        if look == "edged":
            edge = (0, 0, 0) if rng.random() < 0.6 else _shade(item.rgb, rng.uniform(0.5, 0.8))
            width = max(1, round(rng.uniform(0.005, 0.016) * scale))
            draw.line(ring, fill=edge, width=width, joint="curve")


def _degrade(picture: Image.Image, rng: random.Random, style: Style) -> Image.Image:
    if rng.random() < 0.07:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.008 * picture.width)))
    if rng.random() < 0.12:
        reach = rng.uniform(3, 18)
        noise = np.random.default_rng(rng.getrandbits(32)).normal(
            0, reach, (picture.height, picture.width, 3)
        )
        noisy = np.asarray(picture, dtype=np.float32) + noise
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    quality = style.jpeg_quality
    if quality is None:
        quality = rng.randint(8, 95) if rng.random() < 0.22 else 0
    if quality:
        kind = "WEBP" if style.jpeg_quality is None and rng.random() < 0.15 else "JPEG"
        buffer = io.BytesIO()
        picture.save(buffer, kind, quality=quality, **({"method": 0} if kind == "WEBP" else {}))
        picture = Image.open(buffer).convert("RGB")
    return picture


def _shade(rgb: Rgb, factor: float) -> Rgb:
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in rgb)
    return red, green, blue


Outline = list[tuple[float, float]]


def _circle(rng: random.Random) -> Outline:
    squash = rng.uniform(0.86, 1.0) if rng.random() < 0.3 else 1.0
    angles = (2 * math.pi * step / 40 for step in range(40))
    return [(math.cos(angle), squash * math.sin(angle)) for angle in angles]


def _square(rng: random.Random) -> Outline:
    half = rng.uniform(0.82, 0.94)
    squash = rng.uniform(0.84, 1.0) if rng.random() < 0.3 else 1.0
    return [
        (-half, -half * squash),
        (half, -half * squash),
        (half, half * squash),
        (-half, half * squash),
    ]


def _triangle(rng: random.Random) -> Outline:
    half = rng.uniform(0.85, 1.0)
    tip = rng.choice((0.0, 0.0, rng.uniform(-0.4, 0.4)))
    top = rng.uniform(-1.0, -0.8)
    return [(tip, top), (half, 0.82), (-half, 0.82)]


def _star(rng: random.Random) -> Outline:
    inner = rng.uniform(0.36, 0.5)
    points = []
    for step in range(10):
        angle = math.pi * step / 5 - math.pi / 2
        reach = 1.06 if step % 2 == 0 else inner
        points.append((reach * math.cos(angle), reach * math.sin(angle)))
    return points


def _cross(rng: random.Random) -> Outline:
    arm = rng.uniform(0.2, 0.36)
    return [
        (-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm),
        (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm),
    ]  # fmt: skip


def _heart(rng: random.Random) -> Outline:
    points = []
    for step in range(36):
        angle = 2 * math.pi * step / 36
        x = 16 * math.sin(angle) ** 3
        y = (
            13 * math.cos(angle)
            - 5 * math.cos(2 * angle)
            - 2 * math.cos(3 * angle)
            - math.cos(4 * angle)
        )
        points.append((x / 16, -(y + 2.5) / 15.5))
    return points


_UNIT_OUTLINES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
}
