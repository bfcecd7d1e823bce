"""Pictures on their way to the server: read, set upright, scaled down, encoded.

A small file in a format that the server reads goes as it is, byte for byte (metadata too).
Everything else is re-encoded: what is larger than the model can use, turned by its EXIF
orientation, animated, or in a format that the server does not read. HEIC that can not be read here
goes as it is too: the server may read it, and says so if not. Knows no gRPC.
"""

import contextlib
import io
import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError, features

from llavachat._download import MAX_DOWNLOAD_BYTES, download
from llavachat._kinds import WANTED, describe_refusal, find_modern_type
from llavachat.errors import ImageError
from llavachat.types import ImageInfo

MAX_SIDE_PIXELS = 1344
"""The longer side of what is sent. LLaVA-1.5 sees 336 x 336 pixels: four times that leaves the
server's own scaling nothing to lose, and a photograph shrinks from megabytes to some 300 kB.

Source: ``crop_size`` of CLIP ViT-L/14-336, the vision tower of LLaVA-1.5."""

MAX_PLAIN_BYTES = 4 * 1024 * 1024
"""A larger file is re-encoded even when its sides are small."""

MAX_LOSSLESS_BYTES = 2 * 1024 * 1024
"""A larger PNG is sent as JPEG (or WebP, with transparency) instead."""

MAX_FRAMES = 10_000
"""Of a moving picture, as many are counted; the first is sent."""

_MAX_HEAD_BYTES = 512
"""Where a file says what it is."""

_QUALITY = 92

_MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
# Formats that Pillow decodes by itself: those that run other programs (EPS) stay out.
_READABLE = (*_MEDIA_TYPES, "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM", "TGA")
_SCALABLE = {"RGB", "L", "YCbCr", "CMYK"}
_LOSSY = {"JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture ready to be sent: `data` is a whole file of `media_type`.

    `width_pixels` and `height_pixels` are 0 where they are not known: those of HEIC that can not be
    read here. `num_frames` is how many frames or pages its source has, counted up to
    10,000; the model looks at the first alone.
    """

    data: bytes
    media_type: str
    width_pixels: int
    height_pixels: int
    num_frames: int = 1


ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | Image.Image | BinaryIO | Picture | ImageInfo
)
"""A path, an http(s) address, a file's bytes, a PIL image, an open binary file (such as
``sys.stdin.buffer``), a picture prepared by `load_picture`, or the `ImageInfo` of one that the
server knows already."""

Images = ImageSource | Iterable[ImageSource] | None
"""One picture, several, or none."""


def list_sources(images: Images) -> tuple[ImageSource, ...]:
    """One, several or no pictures as a tuple.

    Raises:
        ImageError: something among them can not be a picture.
    """
    if images is None:
        return ()
    single = isinstance(
        images, str | os.PathLike | bytes | bytearray | Image.Image | Picture | ImageInfo
    ) or hasattr(images, "read")
    if not single and not isinstance(images, Iterable):
        raise ImageError(_refuse_kind(images))
    return (cast(ImageSource, images),) if single else tuple(cast(Iterable[ImageSource], images))


def load_pictures(images: Images) -> tuple[Picture | ImageInfo, ...]:
    """Make one, several or no pictures ready; see `load_picture`."""
    return tuple(
        source if isinstance(source, ImageInfo) else load_picture(source)
        for source in list_sources(images)
    )


def load_picture(source: ImageSource, *, max_side_pixels: int = MAX_SIDE_PIXELS) -> Picture:
    """Read a picture from wherever it is and make it ready to be sent.

    Args:
        source: see `ImageSource`.
        max_side_pixels: the longer side of what is sent, 1 or more.

    Returns:
        The picture: the very bytes where they can go as they are, else encoded anew (PNG where
        it is lossless and small, JPEG, or WebP where a large picture has transparency). HEIC
        without pillow-heif is the very bytes whatever their size: the server judges them.

    Raises:
        ImageError: it can not be read or fetched, is no picture, or is damaged.
    """
    if max_side_pixels < 1:
        raise ImageError(f"max_side_pixels is {max_side_pixels}; it must be 1 or more.")
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image):
        with _refusing_damage("The picture"):
            # A copy: what is the caller's own is never changed.
            return _encode(source.copy(), max_side_pixels, lossless=True)
    name, data = _read(source)
    return _prepare(name, data, max_side_pixels)


def is_address(text: str) -> bool:
    """True for what is fetched by http(s) rather than opened as a file."""
    return text.lower().startswith(("http://", "https://"))


def is_picture_file(path: Path) -> bool:
    """True for a file that begins as a picture does; it may be damaged further on.

    Raises:
        OSError: it can not be read.
    """
    try:
        with Image.open(path, formats=_list_readable()):
            return True
    except UnidentifiedImageError:
        with path.open("rb") as file:
            return find_modern_type(file.read(_MAX_HEAD_BYTES)) is not None
    except OSError:
        raise
    except Exception:  # its decoder's, as in `_refusing_damage`
        return True


def _read(source: ImageSource) -> tuple[str, bytes]:
    if isinstance(source, str) and is_address(source):
        return source, download(source)
    if isinstance(source, bytes | bytearray):
        return "The data", bytes(source)
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):  # which as a Path is this very folder
            raise ImageError("The path of the picture is empty.")
        return _read_file(Path(source))
    if hasattr(source, "read"):
        name = getattr(source, "name", "")
        label = name if isinstance(name, str) and name not in {"", "<stdin>"} else "The input"
        data: object = None
        try:
            data = cast(BinaryIO, source).read(MAX_DOWNLOAD_BYTES + 1)
        except UnicodeDecodeError:
            pass
        except OSError as error:
            raise ImageError(f"{label} can not be read: {error.strerror}.") from None
        if not isinstance(data, bytes):
            raise ImageError(f"{label} was opened as text; open it as binary.")
        if len(data) > MAX_DOWNLOAD_BYTES:
            raise ImageError(f"{label} is larger than {MAX_DOWNLOAD_BYTES >> 20} MiB.")
        return label, data
    raise ImageError(_refuse_kind(source))


def _read_file(path: Path) -> tuple[str, bytes]:
    try:
        path = path.expanduser()
        if path.is_dir():
            raise ImageError(f"{path} is a folder; give a picture.")
        if path.stat().st_size > MAX_DOWNLOAD_BYTES:
            raise ImageError(f"{path} is larger than {MAX_DOWNLOAD_BYTES >> 20} MiB.")
        return str(path), path.read_bytes()
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read.") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "its name is not a path"
        raise ImageError(f"{path} can not be read: {reason}.") from None


def _prepare(name: str, data: bytes, max_side_pixels: int) -> Picture:
    if not data:
        raise ImageError(f"{name} is empty.")
    with _refusing_damage(name):
        image = _open(name, data)
        if isinstance(image, Picture):
            return image
        as_is = (
            image.format in _MEDIA_TYPES
            and max(image.size) <= max_side_pixels
            and len(data) <= MAX_PLAIN_BYTES
            and image.getexif().get(_ORIENTATION, 1) == 1
            and not getattr(image, "is_animated", False)
        )
        if as_is:
            image.load()
            return Picture(data, _MEDIA_TYPES[str(image.format)], *image.size)
        num_frames = _count_frames(image)
        if image.format == "PPM" and image.mode == "I":
            # Pillow has stretched what it read to 16 bits, and holds it in 32.
            image = image.convert("I;16")
        picture = _encode(image, max_side_pixels, lossless=image.format not in _LOSSY)
        return replace(picture, num_frames=num_frames)


_ORIENTATION = 0x0112  # EXIF tag


def _open(name: str, data: bytes) -> Image.Image | Picture:
    try:
        return Image.open(io.BytesIO(data), formats=_list_readable())
    except UnidentifiedImageError:
        pass
    media_type = find_modern_type(data)
    if media_type is None:
        raise ImageError(f"{name} is {describe_refusal(data)}.")
    if media_type == "image/avif":  # which no server reads
        if "AVIF" in _list_readable() and features.check("avif"):
            raise ImageError(f"{name} is damaged or cut short.")
        raise ImageError(f"{name} is AVIF, which the Pillow here does not read; {WANTED}.")
    # What is not read here may be read there, and the server says what it takes instead.
    return _open_heic(data) or Picture(data, media_type, 0, 0)


def _open_heic(data: bytes) -> Image.Image | None:
    """Open HEIC by pillow-heif; None where that is not installed."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    # Not by registering it with Pillow, whose formats are the caller's own affair.
    image = cast(Image.Image, cast(Any, HeifImageFile)(io.BytesIO(data)))
    if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError
    return image


@contextlib.contextmanager
def _refusing_damage(name: str) -> Iterator[None]:
    """Whatever Pillow raises is about the file: its decoders name no kinds of errors that they
    keep to, and a damaged one has come out of them as RuntimeError and as KeyError."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(_refuse_size(name)) from None
    except MemoryError:
        raise ImageError(f"{name} takes more memory than there is; scale it down first.") from None
    except Exception as error:
        raise ImageError(f"{name} is damaged or cut short.") from error


@cache
def _list_readable() -> tuple[str, ...]:
    """Those of `_READABLE` that this build of Pillow knows."""
    Image.init()
    return tuple(name for name in _READABLE if name in Image.OPEN)


def _count_frames(image: Image.Image) -> int:
    """How many frames an opened file has, which stays at its first."""
    if image.format in {"MPO", "HEIF"}:  # a photograph, with previews and depths
        return 1
    num_frames = getattr(image, "n_frames", 1)
    image.seek(0)
    return min(num_frames, MAX_FRAMES)


def _encode(image: Image.Image, max_side_pixels: int, *, lossless: bool) -> Picture:
    """Encode a picture that may be changed in place."""
    if image.mode not in _SCALABLE:
        # Turned first: the orientation does not outlive the conversion in every format.
        image = _to_eight_bits(ImageOps.exif_transpose(image))
    if max(image.size) > max_side_pixels:
        # Before the turn: so JPEG's decoder can skip most of a large photograph.
        image.thumbnail((max_side_pixels, max_side_pixels), Image.Resampling.LANCZOS)
    upright = _to_eight_bits(ImageOps.exif_transpose(image))
    if lossless:
        data = _save(upright, "PNG", optimize=False)
        if len(data) <= MAX_LOSSLESS_BYTES:
            return Picture(data, "image/png", *upright.size)
    if upright.mode == "RGBA":
        data = _save(upright, "WEBP", quality=_QUALITY)
        return Picture(data, "image/webp", *upright.size)
    data = _save(upright, "JPEG", quality=_QUALITY)
    return Picture(data, "image/jpeg", *upright.size)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something shows through."""
    if image.mode.startswith("I;16"):
        image = _keep_higher_bytes(image)
    if image.mode in {"I", "F"}:
        # Pillow's own conversion clips instead of scaling.
        low, high = cast(tuple[float, float], image.getextrema())
        top = _find_white(low, high, is_float=image.mode == "F")
        image = image.convert("F").point(lambda value: value * (255.0 / top)).convert("L")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    clear = image if image.mode == "RGBA" else image.convert("RGBA")
    lowest, _ = cast(tuple[int, int], clear.getchannel("A").getextrema())
    return clear if lowest < 255 else clear.convert("RGB")


def _keep_higher_bytes(image: Image.Image) -> Image.Image:
    """16-bit grey in 8 bits, as the server does it: whatever values there are, white is 65,535."""
    data, clear = image.tobytes(), image.info.get("transparency")
    planes = [Image.frombytes("L", image.size, data[start::2]) for start in (0, 1)]
    is_big = image.mode.endswith("B") or (image.mode.endswith("N") and sys.byteorder == "big")
    high, low = planes if is_big else reversed(planes)
    if not isinstance(clear, int):
        return high
    # One value is clear: that alone, not all those that look like it in 8 bits.
    parts = zip((high, low), divmod(clear, 256), strict=True)
    masks = [plane.point([255 * (each == part) for each in range(256)]) for plane, part in parts]
    alpha = ImageChops.invert(ImageChops.darker(*masks))
    return Image.merge("LA", (high, alpha))


def _find_white(low: float, high: float, *, is_float: bool) -> float:
    """Which value is white, by those that there are: of 16 bits, of 8 or, of fractions, 1."""
    if is_float and 0 < high <= 1:
        return 1.0
    return 65535.0 if 255 < high <= 65535 and low >= 0 else max(high, 255.0)


def _save(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    # What the camera wrote (place, time, thumbnail) has done its work and stays behind.
    image.info = {}
    with contextlib.suppress(AttributeError):
        image.getexif().clear()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _refuse_size(name: str) -> str:
    limit = (Image.MAX_IMAGE_PIXELS or 0) * 2 // 1_000_000
    return f"{name} has more than {limit} megapixels; scale it down first."


def _refuse_kind(source: object) -> str:
    return (
        f"A picture can not be a {type(source).__name__}; give a path, an http(s) address, "
        "bytes, a PIL image or an open binary file."
    )
