"""What a picture shows: items on a three by three grid, before anything is drawn.

A scene is pure facts. `training.rendering` draws it, `training.answers` tells the truth about it.
"""

import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "grey",
)
BACKGROUND_COLOURS = (*COLOURS, "white")
SIZES = ("small", "big")

Rgb = tuple[int, int, int]

ITEM_ANCHORS: dict[str, tuple[Rgb, ...]] = {
    "red": ((255, 0, 0), (255, 0, 0), (220, 20, 30), (230, 45, 40), (205, 0, 0), (240, 60, 55)),
    "orange": ((255, 165, 0), (255, 128, 0), (245, 130, 32), (255, 140, 0), (235, 115, 20)),
    "yellow": ((255, 255, 0), (255, 221, 0), (250, 215, 60), (240, 220, 20), (255, 240, 90)),
    "green": (
        (0, 128, 0),
        (0, 255, 0),
        (0, 160, 60),
        (50, 205, 50),
        (34, 139, 34),
        (76, 175, 80),
        (110, 200, 90),
        (0, 95, 20),
    ),
    "blue": (
        (0, 0, 255),
        (0, 0, 255),
        (30, 60, 220),
        (65, 105, 225),
        (0, 0, 170),
        (33, 150, 243),
        (31, 119, 180),
        (100, 160, 240),
    ),
    "purple": (
        (128, 0, 128),
        (128, 0, 128),
        (120, 40, 180),
        (150, 60, 200),
        (148, 0, 211),
        (85, 10, 135),
        (148, 103, 189),
    ),
    "pink": ((255, 192, 203), (255, 105, 180), (255, 130, 190), (250, 160, 190), (255, 60, 160)),
    "brown": (
        (165, 42, 42),
        (139, 69, 19),
        (120, 72, 30),
        (101, 67, 33),
        (150, 90, 50),
        (160, 82, 45),
    ),
    "black": ((0, 0, 0), (0, 0, 0), (18, 18, 18), (35, 32, 36)),
    "grey": ((128, 128, 128), (128, 128, 128), (150, 150, 150), (105, 105, 110), (169, 169, 169)),
}
"""Colours as people and drawing tools name them; CSS names and common palettes among them."""

BACKGROUND_ANCHORS: dict[str, tuple[Rgb, ...]] = {
    "white": ((255, 255, 255), (255, 255, 255), (255, 255, 255), (248, 248, 248), (250, 248, 244)),
    "grey": ((128, 128, 128), (211, 211, 211), (190, 190, 195), (160, 160, 160), (100, 100, 100)),
    "black": ((0, 0, 0), (0, 0, 0), (15, 15, 18), (28, 28, 30)),
    "red": ((255, 0, 0), (200, 40, 40), (150, 15, 20)),
    "orange": ((255, 165, 0), (250, 190, 110)),
    "yellow": ((255, 255, 0), (255, 250, 190), (250, 235, 130), (255, 245, 160)),
    "green": ((0, 128, 0), (200, 240, 200), (144, 238, 144), (20, 70, 35), (120, 190, 110)),
    "blue": ((0, 0, 255), (200, 222, 255), (173, 216, 230), (20, 28, 85), (135, 180, 240)),
    "purple": ((128, 0, 128), (222, 205, 245), (60, 20, 90)),
    "pink": ((255, 192, 203), (255, 220, 228), (255, 170, 205)),
    "brown": ((139, 69, 19), (195, 155, 115), (90, 60, 35)),
}
_BACKGROUND_WEIGHTS = {"white": 9.0, "grey": 2.5, "black": 2.5, "blue": 2.0, "green": 1.5}
_MIN_RGB_DISTANCE = 95.0

SMALL_RADIUS = (0.090, 0.116)
BIG_RADIUS = (0.150, 0.280)
"""Half an item's extent, as a part of the picture's longer side. Nothing lies between, so that
'big' and 'small' are facts."""

_CELL_MARGIN = 0.035
_ITEM_GAP = 0.02


@dataclass(frozen=True, slots=True)
class Item:
    """One shape. Position and radius are parts of the picture's longer side."""

    shape: str
    colour: str
    size: str
    row: int
    column: int
    x: float
    y: float
    radius: float
    rgb: Rgb


@dataclass(frozen=True, slots=True)
class Scene:
    """Items in reading order, on a background.

    Attributes:
        items: top to bottom, then left to right.
        background: one of `BACKGROUND_COLOURS`.
        background_rgb: the colour the name stands for.
        width: part of the longer side, at most 1.
        height: part of the longer side, at most 1.
    """

    items: tuple[Item, ...]
    background: str
    background_rgb: Rgb
    width: float
    height: float


def sample_scene(rng: random.Random, num_items: int | None = None) -> Scene:
    """Draw a scene whose every fact is unambiguous.

    Args:
        rng: the only source of chance.
        num_items: 0 to 3; drawn when None.
    """
    while True:
        scene = _try_scene(rng, num_items)
        if scene is not None:
            return scene


def _try_scene(rng: random.Random, num_items: int | None) -> Scene | None:
    count = rng.choices((0, 1, 2, 3), (5, 28, 40, 27))[0] if num_items is None else num_items
    width = height = 1.0
    if rng.random() < 0.25:
        short = rng.uniform(0.6, 0.95)
        width, height = (1.0, short) if rng.random() < 0.6 else (short, 1.0)
    names = list(BACKGROUND_ANCHORS)
    weights = [_BACKGROUND_WEIGHTS.get(name, 0.7) for name in names]
    background = rng.choices(names, weights)[0]
    background_rgb = jitter_rgb(rng, rng.choice(BACKGROUND_ANCHORS[background]), 6)
    items: list[Item] = []
    for _ in range(count):
        item = _try_item(rng, items, background, background_rgb, width, height, count)
        if item is None:
            return None
        items.append(item)
    items.sort(key=lambda item: (item.row, item.column))
    if len({(item.row, item.column) for item in items}) < len(items):
        return None
    return Scene(tuple(items), background, background_rgb, width, height)


def _try_item(
    rng: random.Random,
    others: list[Item],
    background: str,
    background_rgb: Rgb,
    width: float,
    height: float,
    count: int,
) -> Item | None:
    shape, colour = _sample_kind(rng, others, background)
    rgb = jitter_rgb(rng, rng.choice(ITEM_ANCHORS[colour]), 10)
    if rgb_distance(rgb, background_rgb) < _MIN_RGB_DISTANCE:
        return None
    size = rng.choice(SIZES)
    low, high = SMALL_RADIUS if size == "small" else BIG_RADIUS
    if size == "big" and count > 1:
        high = 0.21
    radius = rng.uniform(low, high)
    for _ in range(12):
        column, row = rng.randrange(3), rng.randrange(3)
        x = _sample_centre(rng, column, radius, width)
        y = _sample_centre(rng, row, radius, height)
        if x is None or y is None:
            continue
        clear = all(
            (x - other.x) ** 2 + (y - other.y) ** 2 > (radius + other.radius + _ITEM_GAP) ** 2
            for other in others
        )
        if clear:
            return Item(shape, colour, size, row, column, x, y, radius, rgb)
    return None


def _sample_kind(rng: random.Random, others: list[Item], background: str) -> tuple[str, str]:
    # Shared shapes and colours make counting and 'which one' worth asking.
    taken = {(other.shape, other.colour) for other in others}
    while True:
        shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
        if others and rng.random() < 0.3:
            shape = rng.choice(others).shape
        elif others and rng.random() < 0.3:
            colour = rng.choice(others).colour
        if colour != background and (shape, colour) not in taken:
            return shape, colour


def _sample_centre(rng: random.Random, cell: int, radius: float, extent: float) -> float | None:
    low = max((cell / 3 + (_CELL_MARGIN if cell else 0)) * extent, radius + 0.005)
    high = min(
        ((cell + 1) / 3 - (_CELL_MARGIN if cell < 2 else 0)) * extent, extent - radius - 0.005
    )
    return rng.uniform(low, high) if low < high else None


def jitter_rgb(rng: random.Random, rgb: Rgb, reach: int) -> Rgb:
    """Move each channel by at most ``reach``, within 0-255; half of the time not at all."""
    if rng.random() < 0.5:
        return rgb
    red, green, blue = (min(255, max(0, channel + rng.randint(-reach, reach))) for channel in rgb)
    return red, green, blue


def rgb_distance(first: Rgb, second: Rgb) -> float:
    """Distance in the RGB cube, 0 to about 441."""
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)
