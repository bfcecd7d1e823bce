"""From a file's bytes to upright RGB pixels on white, or a refusal. Runs in the decoder process.

Contract: size, pixels and scans are read from the header and checked before a pixel is decoded;
what comes out carries no metadata. It knows Pillow; it must not know processes or the server.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageFile

from llavachat_server.images.header import (
    WANTED,
    check_scans,
    check_size,
    count_gif_frames,
    sniff,
    webp_size,
)
from llavachat_server.images.picture import (
    HEIC_MEDIA_TYPE,
    MAX_FRAMES,
    MEDIA_TYPES,
    BadImage,
    ImageInfo,
    ImageLimits,
    Picture,
    identify,
    kept_size,
)

# Pillow's own limit, above ours, still refuses; its warning below that is not needed.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ORIENTATION_TAG = 0x0112
_FEW_BITS = {"L;2": 3, "L;4": 15}
"""Pillow's names of a PNG's grey of 2 and 4 bits, and the largest value of each."""
_SIXTEEN_BITS, _SIXTEEN_BITS_SWAPPED = "RGB;16B", "RGB;16L"
"""Likewise of RGB in 16 bits, as PNG has it and with the bytes the other way about."""
_ROWS = 256
"""At a time when colours are converted."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts a picture of each EXIF orientation upright. Source: EXIF 2.32, tag 274."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A decoded picture: RGB pixels as they are kept, the upright size and the number of frames as
    it was sent."""

    pixels: Image.Image
    width_pixels: int
    height_pixels: int
    media_type: str
    num_frames: int


def load_heic() -> bool:
    """Have Pillow read HEIC, where the library for it is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    # One thread: the decoder process may not start any.
    register_heif_opener(thumbnails=False, decode_threads=1)
    return True


def check_header(data: bytes, limits: ImageLimits) -> str:
    """Check all that can be checked without decoding a pixel.

    Returns:
        Pillow's name of the format.

    Raises:
        BadImage: the file is no picture, of another format, too large, or damaged.
    """
    if len(data) > limits.max_bytes:
        raise BadImage(f"the file has {len(data):,} bytes; at most {limits.max_bytes:,} are taken")
    image_format = sniff(data)
    if image_format == "WEBP":
        # Pillow allocates a WebP's canvas on opening it, so its header is read here.
        check_size(webp_size(data), limits)
    if image_format == "JPEG":
        check_scans(data)
    with _open(data, image_format, limits) as picture:
        check_size(picture.size, limits)
    return image_format


def render(data: bytes, limits: ImageLimits) -> Rendered:
    """Decode one file into upright RGB pixels on white.

    Raises:
        BadImage: see `check_header`.
    """
    image_format = check_header(data, limits)
    with _open(data, image_format, limits) as picture:
        try:
            num_frames = _count_frames(picture, image_format, data)
            low = _read_clear(picture, data) if image_format == "PNG" else None
            picture.load()
            turn = _turn(picture)
            pixels = _to_rgb(picture, low)
        except MemoryError as error:
            raise BadImage(
                "decoding the picture takes more memory than one picture may have; "
                "scale it down or save it anew"
            ) from error
        except Exception as error:
            raise BadImage("the picture is damaged or cut short; save it anew") from error
    del picture, low  # and their memory, before more is taken
    if turn is not None:
        pixels = pixels.transpose(turn)
    width, height = pixels.size
    size = kept_size(width, height)
    if size != pixels.size:
        pixels = pixels.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    media_type = MEDIA_TYPES.get(image_format, HEIC_MEDIA_TYPE)
    return Rendered(pixels, width, height, media_type, num_frames)


def decode(data: bytes, limits: ImageLimits) -> Picture:
    """Decode one file in this process, unconfined: for files of our own. See `Intake.take`.

    Raises:
        BadImage: see `check_header`.
    """
    rendered = render(data, limits)
    size, rgb = rendered.pixels.size, rendered.pixels.tobytes()
    info = ImageInfo(
        identify(size, rgb),
        rendered.width_pixels,
        rendered.height_pixels,
        rendered.media_type,
        rendered.num_frames,
    )
    return Picture(info, Image.frombytes("RGB", size, rgb))


def _open(data: bytes, image_format: str, limits: ImageLimits) -> ImageFile.ImageFile:
    if image_format == "HEIF" and image_format not in Image.OPEN:
        raise BadImage(f"this is an HEIC picture, which this server does not read; {WANTED}")
    try:
        return Image.open(io.BytesIO(data), formats=[image_format])
    except Image.DecompressionBombError as error:
        raise BadImage(f"the picture has more than {limits.max_pixels:,} pixels") from error
    except Exception as error:
        raise BadImage(
            f"the file begins like a {image_format} but its header is damaged; save it anew"
        ) from error


def _count_frames(picture: Image.Image, image_format: str, data: bytes) -> int:
    if image_format == "GIF":
        return count_gif_frames(data, MAX_FRAMES)
    # Their headers say it. A JPEG's or HEIC's further pictures are previews and depths.
    is_told = image_format in ("PNG", "WEBP")
    return min(int(getattr(picture, "n_frames", 1)), MAX_FRAMES) if is_told else 1


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What puts the picture upright."""
    try:
        return _TURNS.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        # Broken metadata does not spoil the pixels: the picture is taken as it lies.
        return None


def _read_clear(picture: ImageFile.ImageFile, data: bytes) -> Image.Image | None:
    """Make ready for a PNG's one clear colour, before its pixels are read.

    Returns:
        The lower bytes of 16-bit RGB, of which Pillow keeps the higher; None where all is there.
    """
    raw_mode = picture.tile[0][3] if picture.tile else None
    clear = picture.info.get("transparency")
    if clear is None or raw_mode not in (*_FEW_BITS, _SIXTEEN_BITS):
        return None
    if raw_mode == _SIXTEEN_BITS:
        return _read_low(data)
    # Pillow stretches the greys to 255, and leaves the clear one as the file has it.
    largest = _FEW_BITS[raw_mode]
    picture.info["transparency"] = (clear & largest) * 255 // largest
    return None


def _read_low(data: bytes) -> Image.Image:
    """The lower bytes of a 16-bit RGB PNG: read as if they were the higher ones."""
    low = Image.open(io.BytesIO(data), formats=["PNG"])
    low.tile = [tile._replace(args=_SIXTEEN_BITS_SWAPPED) for tile in low.tile]
    low.load()
    return low


def _to_rgb(picture: Image.Image, low: Image.Image | None = None) -> Image.Image:
    has_alpha = picture.has_transparency_data
    if picture.mode == "RGB" and not has_alpha:
        return picture
    rgb = Image.new("RGB", picture.size)
    # Some rows at a time: whole layers would take the picture's memory three times more.
    for top in range(0, picture.height, _ROWS):
        box = (0, top, picture.width, min(top + _ROWS, picture.height))
        rows = picture.crop(box)
        if low is not None:
            _clear_deep(rows, low.crop(box), picture.info["transparency"])
            rgb.paste(rows, box)
        else:
            rgb.paste(_on_white(rows) if has_alpha else _opaque(rows), box)
    return rgb


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return _sixteen_bits_on_white(picture)
    canvas = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    canvas.alpha_composite(picture.convert("RGBA"))
    return canvas.convert("RGB")


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns 16-bit grey into white.
        return _split(picture)[0].convert("RGB")
    return picture.convert("RGB")


def _sixteen_bits_on_white(picture: Image.Image) -> Image.Image:
    high, low = _split(picture)
    _clear_deep(high, low, [int(picture.info["transparency"])])
    return high.convert("RGB")


def _clear_deep(high: Image.Image, low: Image.Image, clear: Sequence[int]) -> None:
    """Make one value of 16 bits white: that alone, not what looks like it in 8 bits.

    Args:
        high: the higher bytes, which become the picture.
        low: the lower ones.
        clear: a value for each band.
    """
    is_clear = Image.new("L", high.size, 255)
    for planes, value in zip(zip(high.split(), low.split(), strict=True), clear, strict=True):
        for plane, part in zip(planes, divmod(value, 256), strict=True):
            is_clear = ImageChops.darker(is_clear, _where(plane, part))
    high.paste("white", mask=is_clear)


def _split(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The higher and the lower byte of 16-bit grey; the higher one is the grey of 8 bits."""
    data, size = picture.tobytes(), picture.size
    first, second = (Image.frombytes("L", size, data[start::2]) for start in (0, 1))
    return (first, second) if picture.mode.endswith("B") else (second, first)


def _where(plane: Image.Image, value: int) -> Image.Image:
    """255 where a plane has a value, else 0."""
    return plane.point([255 if each == value else 0 for each in range(256)])
