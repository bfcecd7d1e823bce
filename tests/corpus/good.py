"""Pictures that are taken: every format in every kind of colour, and where each colour ends up.

Most show the same: red on the left, blue on the right, 24 x 16 pixels.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pictures import encode
from PIL import Image

from corpus.containers import deflated_zeros, gif, jpeg_segment, png, png_chunk, with_segments

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
WIDTH, HEIGHT = 24, 16
LEFT, RIGHT = (4, 8), (19, 8)

MEGABYTES = 3
"""How many of them metadata is blown up to."""


@dataclass(frozen=True)
class Good:
    """A file that is taken.

    Args:
        name: of the case.
        make: the file's bytes.
        colours: what pixels have what colour, lossy formats by and large.
        media_type: what is told of it.
        size: of the upright picture.
        num_frames: that are told of it.
    """

    name: str
    make: Callable[[], bytes]
    colours: tuple[tuple[tuple[int, int], tuple[int, int, int]], ...] = ((LEFT, RED), (RIGHT, BLUE))
    media_type: str = "image/png"
    size: tuple[int, int] = (WIDTH, HEIGHT)
    num_frames: int = 1


def two_colours(mode: str = "RGB") -> Image.Image:
    """The picture that most cases show."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), RED)
    picture.paste(BLUE, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return picture.convert(mode)


def _greys(mode: str, dark: Any, light: Any) -> Image.Image:
    picture = Image.new(mode, (WIDTH, HEIGHT), dark)
    picture.paste(light, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return picture


def _half_clear() -> Image.Image:
    """Black that can not be seen on the left, blue on the right."""
    picture = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    picture.paste((*BLUE, 255), (WIDTH // 2, 0, WIDTH, HEIGHT))
    return picture


def _clear_palette() -> Image.Image:
    picture = Image.new("P", (WIDTH, HEIGHT), 0)
    picture.putpalette([10, 20, 30, *BLUE])
    picture.paste(1, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return picture


def _turned(orientation: int) -> bytes:
    """The picture as a camera held that way would store it."""
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    picture = _corner()
    return encode(
        picture if back is None else picture.transpose(back),
        "JPEG",
        exif=_exif(orientation),
        quality=95,
        subsampling=0,
    )


def _corner() -> Image.Image:
    """Red with a blue corner on the upper left: no turn of it looks like another."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), RED)
    picture.paste(BLUE, (0, 0, 8, 8))
    return picture


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _sixteen_bit_rgb() -> bytes:
    left, right = b"\xff\xff\0\0\0\0", b"\0\0\0\0\xff\xff"
    row = b"\0" + left * (WIDTH // 2) + right * (WIDTH // 2)
    return png(WIDTH, HEIGHT, row * HEIGHT, bits=16)


def _interlaced() -> bytes:
    """Seven passes, each a picture of its own. Source: PNG, section 8.2."""
    source, rows = two_colours(), b""
    for x0, y0, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        for y in range(y0, HEIGHT, dy):
            pixels = (source.getpixel((x, y)) for x in range(x0, WIDTH, dx))
            rows += b"\0" + b"".join(map(bytes, pixels))
    data = png(WIDTH, HEIGHT, rows)
    header = data[16:29][:12] + b"\1"
    return data[:8] + png_chunk(b"IHDR", header) + data[33:]


def _fat(*segments: bytes) -> bytes:
    return with_segments(encode(two_colours(), "JPEG", quality=95, subsampling=0), *segments)


def _fat_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    body = b"Exif\0\0" + exif.tobytes()[6:]
    return _fat(*[jpeg_segment(0xE1, body)] * (MEGABYTES * 16))


def _fat_profile() -> bytes:
    count = MEGABYTES * 16
    return _fat(
        *(
            jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, count)) + b"p" * 65_000)
            for number in range(1, count + 1)
        )
    )


def _fat_xmp() -> bytes:
    body = b"http://ns.adobe.com/xap/1.0/\0" + b"<x>" * 20_000
    return _fat(*[jpeg_segment(0xE1, body)] * (MEGABYTES * 16))


def _zip_after_gif() -> bytes:
    import zipfile

    file = io.BytesIO(encode(two_colours("P"), "GIF"))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("evil.sh", "rm -rf /")
    return file.getvalue()


def _animated(image_format: str, **options: Any) -> bytes:
    frames = [two_colours(), Image.new("RGB", (WIDTH, HEIGHT), "green")]
    return encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)


def _jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return encode(two_colours(mode), "JPEG", quality=95, subsampling=0, **options)


def _ycck() -> bytes:
    """A CMYK JPEG as print shops write it: inverted and as YCCK, by Adobe's marker."""
    data = encode(two_colours("CMYK"), "JPEG", quality=95)
    at = data.index(b"Adobe")
    assert data[at + 11] in (0, 2)
    return data


JPEG, WEBP, GIF = "image/jpeg", "image/webp", "image/gif"
GREYS = ((LEFT, (0, 0, 0)), (RIGHT, WHITE))

GOOD = (
    Good("JPEG", _jpeg, media_type=JPEG),
    Good("progressive JPEG", lambda: _jpeg(progressive=True), media_type=JPEG),
    Good("grey JPEG", lambda: encode(_greys("L", 0, 255), "JPEG"), GREYS, JPEG),
    Good("CMYK JPEG", _ycck, media_type=JPEG),
    *(
        Good(
            f"JPEG of orientation {number}",
            lambda number=number: _turned(number),  # type: ignore[misc]
            (((2, 2), BLUE), ((21, 2), RED), ((2, 13), RED), ((21, 13), RED)),
            JPEG,
        )
        for number in range(1, 9)
    ),
    Good("JPEG with megabytes of EXIF", _fat_exif, media_type=JPEG),
    Good("JPEG with megabytes of XMP", _fat_xmp, media_type=JPEG),
    Good("JPEG with a profile of megabytes", _fat_profile, media_type=JPEG),
    Good(
        "JPEG that is a web page as well",
        lambda: _fat(jpeg_segment(0xFE, b"<html><script>alert(1)</script>")) + b"</html>",
        media_type=JPEG,
    ),
    Good("PNG", lambda: encode(two_colours())),
    Good("palette PNG", lambda: encode(two_colours("P"))),
    Good("1-bit PNG", lambda: encode(_greys("1", 0, 255)), GREYS),
    Good("grey PNG", lambda: encode(_greys("L", 0, 255)), GREYS),
    Good(
        "16-bit grey PNG",
        lambda: encode(_greys("I;16", 0x1234, 0xFFFF)),
        ((LEFT, (0x12, 0x12, 0x12)), (RIGHT, WHITE)),
    ),
    Good(
        "16-bit grey PNG with a clear grey",
        lambda: encode(_greys("I;16", 0, 0x9C9C), transparency=0),
        ((LEFT, WHITE), (RIGHT, (0x9C, 0x9C, 0x9C))),
    ),
    Good("16-bit PNG", _sixteen_bit_rgb),
    Good("interlaced PNG", _interlaced),
    Good("PNG with alpha", lambda: encode(_half_clear()), ((LEFT, WHITE), (RIGHT, BLUE))),
    Good(
        "grey PNG with alpha",
        lambda: encode(_greys("LA", (0, 0), (128, 255))),
        ((LEFT, WHITE), (RIGHT, (128, 128, 128))),
    ),
    Good(
        "palette PNG with a clear colour",
        lambda: encode(_clear_palette(), transparency=0),
        ((LEFT, WHITE), (RIGHT, BLUE)),
    ),
    Good(
        "PNG with orientation",
        lambda: encode(_corner().transpose(Image.Transpose.ROTATE_90), exif=_exif(6)),
        (((2, 2), BLUE), ((21, 2), RED), ((2, 13), RED), ((21, 13), RED)),
    ),
    Good("animated PNG", lambda: _animated("PNG"), num_frames=2),
    Good("WebP", lambda: encode(two_colours(), "WEBP", quality=95), media_type=WEBP),
    Good("lossless WebP", lambda: encode(two_colours(), "WEBP", lossless=True), media_type=WEBP),
    Good(
        "WebP with alpha",
        lambda: encode(_half_clear(), "WEBP", lossless=True),
        ((LEFT, WHITE), (RIGHT, BLUE)),
        WEBP,
    ),
    Good("animated WebP", lambda: _animated("WEBP", lossless=True), media_type=WEBP, num_frames=2),
    Good(
        "WebP with orientation",
        lambda: encode(
            _corner().transpose(Image.Transpose.ROTATE_90), "WEBP", lossless=True, exif=_exif(6)
        ),
        (((2, 2), BLUE), ((21, 2), RED), ((2, 13), RED), ((21, 13), RED)),
        WEBP,
    ),
    Good("GIF", lambda: encode(two_colours("P"), "GIF"), media_type=GIF),
    Good(
        "GIF with a clear colour",
        lambda: encode(_clear_palette(), "GIF", transparency=0),
        ((LEFT, WHITE), (RIGHT, BLUE)),
        GIF,
    ),
    Good("animated GIF", lambda: _animated("GIF"), media_type=GIF, num_frames=2),
    Good("GIF of 10,000 frames", lambda: gif(10_000), (((1, 1), BLUE),), GIF, (8, 8), 10_000),
    Good("GIF of 12,000 frames", lambda: gif(12_000), (((1, 1), BLUE),), GIF, (8, 8), 10_000),
    Good("GIF that is an archive as well", _zip_after_gif, media_type=GIF),
    Good(
        "PNG of the longest side",
        lambda: png(16_384, 8, deflated_zeros(8 * (1 + 3 * 16_384)), is_compressed=True),
        (((0, 0), (0, 0, 0)),),
        size=(16_384, 8),
    ),
)
"""All of them."""
