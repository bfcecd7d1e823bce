"""What a picture is once it was taken in, what is taken at all, and the refusal.

Plain values. It knows Pillow's image class; it must not know how pictures are decoded.
"""

import hashlib
from dataclasses import dataclass

from PIL import Image

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
"""Pillow's name of each format that is always taken, and its media type."""

HEIC_MEDIA_TYPE = "image/heic"
"""Taken where the library for it is installed."""

MAX_FRAMES = 10_000
"""Of a moving picture, as many are counted; one is looked at."""

MAX_KEPT_SIDE_PIXELS = 4096
"""Longer pictures are scaled down to this side: padding to a square would otherwise make
gigabytes of a strip of 16,384 x 1. Twelve times the vision tower's 336 pixels."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest picture that is taken: bytes of the file, pixels, pixels of the longer side, and
    whole seconds of computing to decode it."""

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 25_000_000
    max_side_pixels: int = 16_384
    max_cpu_seconds: int = 2


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is told about a picture.

    `id` is the SHA-256 of size and RGB pixels in hexadecimal; width and height are those of the
    upright picture as it was sent. `num_frames` is how many it had, counted up to `MAX_FRAMES`, of
    which the first was taken; 0: not known.
    """

    id: str
    width_pixels: int
    height_pixels: int
    media_type: str
    num_frames: int = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was taken in: what is told about it, and its upright RGB pixels.

    `original` is the file as it came, where such files are to be kept; with all its metadata.
    """

    info: ImageInfo
    pixels: Image.Image
    original: bytes | None = None

    @property
    def num_bytes(self) -> int:
        """Memory that the pixels take."""
        return self.pixels.width * self.pixels.height * 3


class BadImage(Exception):
    """The bytes are not a picture that can be taken. The message is fit for the caller's eyes."""


def kept_size(width: int, height: int) -> tuple[int, int]:
    """The size in pixels that a picture is kept in; its own where that is not too long."""
    if max(width, height) <= MAX_KEPT_SIDE_PIXELS:
        return width, height
    scale = MAX_KEPT_SIDE_PIXELS / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def identify(size: tuple[int, int], rgb: bytes) -> str:
    """The id of a picture: of its size in pixels and its RGB bytes, row by row."""
    digest = hashlib.sha256(f"{size[0]}x{size[1]}:".encode())
    digest.update(rgb)
    return digest.hexdigest()
