"""Pictures for tests, drawn by Pillow with no help from the training code."""

import io
import math
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {
    "red": (255, 0, 0),
    "blue": (0, 0, 255),
    "green": (0, 160, 0),
    "yellow": (255, 221, 0),
    "purple": (128, 0, 128),
    "orange": (255, 140, 0),
    "black": (0, 0, 0),
    "pink": (255, 105, 180),
}


def draw_shape(
    shape: str,
    colour: str,
    size: tuple[int, int] = (320, 320),
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """One big circle, square, triangle or star in the middle."""
    picture = Image.new("RGB", size, background)
    pen = ImageDraw.Draw(picture)
    x, y, radius = size[0] / 2, size[1] / 2, min(size) * 0.26
    fill = COLOURS[colour]
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif shape == "square":
        pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif shape == "triangle":
        corners = [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)]
        pen.polygon(corners, fill=fill)
    elif shape == "star":
        points = []
        for index in range(10):
            length = radius * (1.1 if index % 2 == 0 else 0.45)
            angle = math.pi * (index / 5 - 0.5)
            points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
        pen.polygon(points, fill=fill)
    else:
        raise ValueError(f"no such shape: {shape}")
    return picture


def encode(picture: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """The picture as a file's bytes."""
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def red_circle() -> bytes:
    """A PNG of a red circle."""
    return encode(draw_shape("circle", "red"))
