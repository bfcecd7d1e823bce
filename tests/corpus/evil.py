"""Files that are refused, and what is said of each: bombs, damage, and what is no picture."""

import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from pictures import draw_shape, encode
from PIL import Image

from corpus.containers import (
    deflated_zeros,
    png,
    png_chunk,
    webp_canvas_claiming,
    webp_claiming,
    with_first_scans,
    with_scans,
)


@dataclass(frozen=True)
class Evil:
    """A file that is refused.

    Args:
        name: of the case.
        make: the file's bytes.
        says: what the refusal begins with.
    """

    name: str
    make: Callable[[], bytes]
    says: str


def _noise() -> Image.Image:
    """Speckles: they fill a file evenly, so that each part of it matters."""
    return Image.frombytes("RGB", (96, 64), random.Random(7).randbytes(96 * 64 * 3))


def _cut(image_format: str, percent: int) -> bytes:
    data = encode(_noise(), image_format)
    return data[: len(data) * percent // 100]


def _zip(*names: str) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "text")
    return file.getvalue()


def _inflating_text(kind: bytes) -> bytes:
    head = {b"zTXt": b"key\0\0", b"iTXt": b"key\0\1\0\0\0"}[kind]
    text = png_chunk(kind, head + deflated_zeros(64 * 2**20))
    return png(4, 4, b"\0" * 4 * 13, before=[text])


def _progressive(num_scans: int) -> bytes:
    data = encode(draw_shape("circle", "red", (64, 64)), "JPEG", progressive=True)
    return with_scans(data, num_scans)


@cache
def _slow() -> bytes:
    """As many scans as are let through, of as many pixels in four colours, within 10 MiB."""
    picture = Image.new("CMYK", (5000, 5000), (10, 200, 30, 0))
    data = encode(picture, "JPEG", progressive=True, quality=50, subsampling=0)
    return with_scans(with_first_scans(data, 45), 100)


WANTED = "send a JPEG, PNG, WebP or GIF file"

SLOW = Evil(
    "JPEG of 100 scans of 25 megapixels", _slow, "decoding the picture takes more than 1 s; scale"
)
"""Only the clock of the decoder's process stops it. It takes 2.3 s of computing where it was
measured, so that the limit that is tested is 1 s."""

BOMBS = (
    Evil(
        "PNG of 30,000 x 30,000 zeros",
        lambda: png(
            30_000, 30_000, deflated_zeros(30_000 * 3751), bits=1, colour=0, is_compressed=True
        ),
        "the picture has more than 25,000,000 pixels",
    ),
    Evil(
        "PNG that claims 16,000 x 9,000",
        lambda: png(16_000, 9_000),
        "the picture is 16000 x 9000 = 144,000,000 pixels; at most 25,000,000 are taken",
    ),
    Evil(
        "PNG that claims two thousand million a side",
        lambda: png(2**31 - 1, 2**31 - 1),
        "the picture has more than",
    ),
    Evil(
        "34 bytes of WebP that claim 16,383 x 16,383",
        lambda: webp_claiming(16_383, 16_383),
        "the picture is 16383 x 16383 = 268,402,689 pixels; at most",
    ),
    Evil(
        "WebP canvas of sixteen million a side",
        lambda: webp_canvas_claiming(2**24, 2**24),
        "the picture is 16777216 x 16777216 pixels; no side may be longer than 16,384",
    ),
    Evil(
        "JPEG that claims 65,500 x 65,500",
        lambda: _with_jpeg_size(65_500, 65_500),
        "the picture has more than 25,000,000 pixels",
    ),
    Evil(
        "GIF that claims 65,535 x 65,535",
        lambda: b"GIF89a\xff\xff\xff\xff\0\0\0\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0\x3b",
        "the picture has more than 25,000,000 pixels",
    ),
    Evil("PNG whose zTXt inflates to 64 MiB", lambda: _inflating_text(b"zTXt"), "the file begins"),
    Evil("PNG whose iTXt inflates to 64 MiB", lambda: _inflating_text(b"iTXt"), "the file begins"),
    Evil("JPEG of 810 scans", lambda: _progressive(810), "the JPEG has more than 100 scans"),
    Evil(
        "11 MiB of zeros after a PNG's signature",
        lambda: b"\x89PNG\r\n\x1a\n" + bytes(11 * 2**20),
        "the file has 11,534,344 bytes; at most 10,485,760 are taken",
    ),
)


def _with_jpeg_size(width: int, height: int) -> bytes:
    data = bytearray(encode(draw_shape("circle", "red", (64, 64)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


DAMAGED_FILES = (
    *(
        Evil(f"{image_format} cut at {percent} %", lambda f=image_format, p=percent: _cut(f, p), "")
        for image_format in ("JPEG", "PNG", "WEBP", "GIF")
        for percent in (1, 5, 25, 50, 75, 95)
    ),
    Evil("JPEG's first bytes and rubbish", lambda: b"\xff\xd8\xff" + b"rubbish" * 9, "the file be"),
    Evil("PNG's signature and rubbish", lambda: b"\x89PNG\r\n\x1a\nrubbish", "the file begins"),
    Evil("GIF's signature alone", lambda: b"GIF89a", "the file begins like a GIF but its header"),
    Evil("WebP of an unknown kind", lambda: b"RIFF\x10\0\0\0WEBPVP8?rubbish!", "the file begins"),
    Evil("PNG without a pixel", lambda: png(0, 0), ""),
)

OTHERS = (
    Evil("nothing", lambda: b"", f"the file is empty; {WANTED}"),
    Evil("PDF", lambda: b"%PDF-1.7\n%\xe2\xe3\n", f"this is a PDF; {WANTED}"),
    Evil("PDF after a blank line", lambda: b"\n%PDF-1.7\n", "this is a PDF"),
    Evil("SVG", lambda: b"  <svg xmlns='http://www.w3.org/2000/svg'/>", "this is an SVG drawing"),
    Evil(
        "SVG with a prologue",
        lambda: b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a drawing -->\n<svg width="9"/>',
        "this is an SVG drawing",
    ),
    Evil("HTML", lambda: b"<!DOCTYPE html><html>Not found</html>", "this is an HTML or XML page"),
    Evil("ZIP", lambda: _zip("a.txt"), "this is a ZIP archive"),
    Evil("docx", lambda: _zip("[Content_Types].xml", "word/x"), "this is an Office document"),
    Evil("odt", lambda: _zip("mimetype", "content.xml"), "this is an Office document"),
    Evil("old Office", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "this is an Offic"),
    Evil("MP4", lambda: b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "this is a video"),
    Evil("WebM", lambda: b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", "this is a video"),
    Evil("AVI", lambda: b"RIFF\x10\0\0\0AVI LIST", "this is a sound or video file"),
    Evil("TIFF", lambda: encode(_noise(), "TIFF"), "this is a TIFF picture"),
    Evil("BMP", lambda: encode(_noise(), "BMP"), "this is a BMP picture"),
    Evil("icon", lambda: encode(_noise().resize((16, 16)), "ICO"), "this is an icon"),
    Evil("AVIF", lambda: b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "this is an AVIF picture"),
    Evil(
        "AVIF of any codec's brand",
        lambda: b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf",
        "this is an AVIF picture",
    ),
    Evil("JPEG XL", lambda: b"\xff\x0a\xfa\x1f", "this is a JPEG XL picture"),
    Evil("JPEG 2000", lambda: b"\0\0\0\x0cjP  \r\n\x87\n", "this is a JPEG 2000 picture"),
    Evil(
        "DICOM",
        lambda: bytes(128) + b"DICM\2\0",
        "this is a DICOM file; export its picture as PNG or JPEG",
    ),
    Evil("Photoshop", lambda: b"8BPS\0\1", "this is a Photoshop file"),
    Evil("Base64", lambda: b"iVBORw0KGgoAAAANSUhEUg==", "this is Base64 text"),
    Evil("an address", lambda: b"https://example.org/cat.png", "this is an address, not the pict"),
    Evil("a data URL", lambda: b"data:image/png;base64,iVBO", "this is a data URL"),
    Evil("text", lambda: "Grüße aus dem Garten\n".encode() * 40, f"this is text; {WANTED}"),
    Evil("a program", lambda: b"\x7fELF\x02\x01\x01" + bytes(64), "this is a program"),
    Evil("gzip", lambda: b"\x1f\x8b\x08\0" + bytes(16), "this is a gzip archive"),
    Evil(
        "random bytes",
        lambda: b"\x93" + random.Random(1).randbytes(5000),
        f"the file is not a picture of a known kind; {WANTED}",
    ),
)

EVIL = BOMBS + DAMAGED_FILES + OTHERS
"""All of them."""
