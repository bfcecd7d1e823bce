"""A small picture made of half blocks, two pixels a character, for terminals with colour."""

from PIL import Image, ImageOps
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

MAX_COLUMNS = 40
MAX_ROWS = 16


def can_show(console: Console) -> bool:
    """True when the terminal has colours enough, and the user wants them."""
    return (
        console.is_terminal
        and not console.no_color
        and console.color_system in {"256", "truecolor", "windows"}
        and (console.encoding or "").lower().startswith("utf")
    )


def draw_thumbnail(
    picture: Image.Image, *, max_columns: int = MAX_COLUMNS, max_rows: int = MAX_ROWS
) -> Text:
    """A picture as text: each character an upper half block with two colours.

    Args:
        picture: any picture; what shows through is white.
        max_columns, max_rows: the largest size in characters, 1 or more.
    """
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    canvas = Image.new("RGBA", upright.size, "white")
    canvas.alpha_composite(upright)
    small = canvas.convert("RGB")
    small.thumbnail((max_columns, max_rows * 2), Image.Resampling.LANCZOS)
    width, height = small.size
    text = Text(no_wrap=True)
    for top in range(0, height, 2):
        for column in range(width):
            upper = Color.from_rgb(*_pixel(small, column, top))
            bottom = top + 1
            lower = Color.from_rgb(*_pixel(small, column, bottom)) if bottom < height else None
            text.append("▀", Style(color=upper, bgcolor=lower))
        text.append("\n")
    text.rstrip()
    return text


def _pixel(picture: Image.Image, column: int, row: int) -> tuple[int, int, int]:
    value = picture.getpixel((column, row))
    assert isinstance(value, tuple)
    return value[0], value[1], value[2]
