"""The one way in for pictures: bytes from anywhere become upright RGB pixels, or a refusal.

Contract: the format is told by its magic bytes, never by a name; size, pixels and scans are
read from the header and checked before a pixel is decoded; what comes out carries no metadata.
It knows Pillow and numpy; it must not know gRPC, chats or the model.
"""

import asyncio
import hashlib
import io
import re
import warnings
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
"""Pillow's name of each format that is taken, and its media type."""

MAX_KEPT_SIDE_PIXELS = 4096
"""Longer pictures are scaled down to this side: padding to a square would otherwise make
gigabytes of a strip of 16,384 x 1. Twelve times the vision tower's 336 pixels."""

MAX_JPEG_SCANS = 100
"""A progressive JPEG can repeat its scans at almost no cost in bytes: 810 of them in 116 KiB
take Pillow five seconds. Encoders write about ten."""

# Pillow's own limit, above ours, still refuses; its warning below that is not needed.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_WANTED = "send a JPEG, PNG, WebP or GIF file"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest picture that is taken: bytes of the file, pixels, pixels of the longer side."""

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 25_000_000
    max_side_pixels: int = 16_384


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is told about a picture.

    `id` is the SHA-256 of size and RGB pixels in hexadecimal; width and height are those of the
    upright picture as it was sent.
    """

    id: str
    width_pixels: int
    height_pixels: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was taken in: what is told about it, and its upright RGB pixels."""

    info: ImageInfo
    pixels: Image.Image

    @property
    def num_bytes(self) -> int:
        """Memory that the pixels take."""
        return self.pixels.width * self.pixels.height * 3


class BadImage(Exception):
    """The bytes are not a picture that can be taken. The message is fit for the caller's eyes."""


class Intake:
    """Decodes pictures off the event loop, a few at a time.

    Args:
        limits: what is taken.
        executor: where decoding runs. Threads by default; `decode` is picklable, so a pool of
            confined processes fits as well.
    """

    def __init__(self, limits: ImageLimits, executor: Executor | None = None) -> None:
        self.limits = limits
        self._executor = executor or ThreadPoolExecutor(2, thread_name_prefix="images")

    async def take(self, data: bytes, *, max_bytes: int | None = None) -> Picture:
        """Decode one file.

        Args:
            data: the file.
            max_bytes: another limit for its bytes than the usual one.

        Raises:
            BadImage: it is no picture, of another format, too large, or damaged.
        """
        limits = self.limits if max_bytes is None else replace(self.limits, max_bytes=max_bytes)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, decode, data, limits)

    async def check(self, data: bytes) -> None:
        """Check one file's header without decoding it.

        Raises:
            BadImage: see `take`, as far as a header shows it.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, check_header, data, self.limits)

    def close(self) -> None:
        """Take no more pictures."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def check_header(data: bytes, limits: ImageLimits) -> str:
    """Check all that can be checked without decoding a pixel.

    Returns:
        Pillow's name of the format.

    Raises:
        BadImage: see `Intake.take`.
    """
    if not data:
        raise BadImage(f"the file is empty; {_WANTED}")
    if len(data) > limits.max_bytes:
        raise BadImage(f"the file has {len(data):,} bytes; at most {limits.max_bytes:,} are taken")
    image_format = _sniff(data)
    if image_format == "WEBP":
        # Pillow allocates a WebP's canvas on opening it, so its header is read here.
        _check_size(_webp_size(data), limits)
    if image_format == "JPEG" and _num_jpeg_scans(data) > MAX_JPEG_SCANS:
        raise BadImage(f"the JPEG has more than {MAX_JPEG_SCANS} scans; save it anew")
    with _open(data, image_format, limits) as picture:
        _check_size(picture.size, limits)
    return image_format


def decode(data: bytes, limits: ImageLimits) -> Picture:
    """Decode one file into upright RGB pixels on white, without metadata.

    Raises:
        BadImage: see `Intake.take`.
    """
    image_format = check_header(data, limits)
    with _open(data, image_format, limits) as picture:
        try:
            picture.load()
            pixels = _to_rgb(_upright(picture))
        except Exception as error:
            raise BadImage("the picture is damaged or cut short; save it anew") from error
    width, height = pixels.size
    size = kept_size(width, height)
    if size != pixels.size:
        pixels = pixels.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    digest = hashlib.sha256(f"{pixels.width}x{pixels.height}:".encode())
    digest.update(pixels.tobytes())
    info = ImageInfo(digest.hexdigest(), width, height, MEDIA_TYPES[image_format])
    return Picture(info, pixels)


def kept_size(width: int, height: int) -> tuple[int, int]:
    """The size in pixels that a picture is kept in; its own where that is not too long."""
    if max(width, height) <= MAX_KEPT_SIDE_PIXELS:
        return width, height
    scale = MAX_KEPT_SIDE_PIXELS / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _open(data: bytes, image_format: str, limits: ImageLimits) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=[image_format])
    except Image.DecompressionBombError as error:
        raise BadImage(f"the picture has more than {limits.max_pixels:,} pixels") from error
    except Exception as error:
        raise BadImage(
            f"the file begins like a {image_format} but its header is damaged; save it anew"
        ) from error


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadImage("the picture has no pixels")
    if max(width, height) > limits.max_side_pixels:
        raise BadImage(
            f"the picture is {width} x {height} pixels; "
            f"no side may be longer than {limits.max_side_pixels:,}"
        )
    if width * height > limits.max_pixels:
        raise BadImage(
            f"the picture is {width} x {height} = {width * height:,} pixels; "
            f"at most {limits.max_pixels:,} are taken"
        )


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        # Broken metadata does not spoil the pixels: the picture is taken as it lies.
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns 16-bit grey into white.
        grey = (np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        canvas.alpha_composite(layer)
        rgb = canvas.convert("RGB")
    else:
        rgb = picture.convert("RGB")
    clean = rgb if rgb is not picture else rgb.copy()
    clean.info = {}
    return clean


def _sniff(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    name = _other_kind(data)
    if name is None:
        raise BadImage(f"the file is not a picture of a known kind; {_WANTED}")
    raise BadImage(f"this is {name}; {_WANTED}")


def _other_kind(data: bytes) -> str | None:
    """Name what people send by mistake, so that the refusal helps."""
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
            return "an HEIC picture"
        return "an AVIF picture" if brand in (b"avif", b"avis") else "a video"
    kinds = {
        b"%PDF": "a PDF",
        b"BM": "a BMP picture",
        b"II*\0": "a TIFF picture",
        b"MM\0*": "a TIFF picture",
        b"\0\0\1\0": "an icon",
        b"\xff\x0a": "a JPEG XL picture",
        b"\0\0\0\x0cJXL ": "a JPEG XL picture",
        b"8BPS": "a Photoshop file",
        b"PK\3\4": "a ZIP archive",
        b"<svg": "an SVG drawing",
        b"<?xml": "an XML or SVG file",
        b"<": "an HTML or XML page",
        b"https:": "an address, not the picture behind it",
        b"http:": "an address, not the picture behind it",
        b"data:": "a data URL, not the bytes in it",
        b"iVBORw0KGgo": "Base64 text, not the bytes in it",
        b"/9j/": "Base64 text, not the bytes in it",
    }
    head = data[:64].lstrip() if data[:1].isspace() else data[:64]
    return next((name for magic, name in kinds.items() if head.startswith(magic)), None)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk. Source: RFC 9649, sections 2.5 to 2.7."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) >= 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(body) >= 10:
        width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
        return width & 0x3FFF, height & 0x3FFF
    raise BadImage("the file begins like a WEBP but its header is damaged; save it anew")


_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")


def _num_jpeg_scans(data: bytes) -> int:
    """Count start-of-scan markers, skipping segments that may hold a thumbnail's own.

    Source: ITU-T T.81, annex B.
    """
    scans, position = 0, 2
    while match := _JPEG_MARKER.search(data, position):
        marker, position = match[1][0], match.end()
        if marker == 0xD9:  # end of image
            break
        if marker in (0x01, 0xD8):  # stand alone, without a length
            continue
        if marker == 0xDA:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                break
        position += int.from_bytes(data[position : position + 2], "big")
    return scans
