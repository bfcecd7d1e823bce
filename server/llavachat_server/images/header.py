"""What a file is and how large it claims to be, read from its first bytes alone.

Contract: nothing is decoded, and no memory is taken that the file's own bytes do not take.
It must not know Pillow.
"""

import re

from llavachat_server.images.picture import BadImage, ImageLimits

WANTED = "send a JPEG, PNG, WebP or GIF file"

MAX_JPEG_SCANS = 100
"""A progressive JPEG can repeat its scans at almost no cost in bytes: 810 of them in 116 KiB
take Pillow five seconds. Encoders write about ten."""

_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_ANY_CODEC_BRANDS = frozenset((b"mif1", b"msf1"))
"""Source: ISO/IEC 23008-12, annex B, and AV1 Image File Format, section 8. Where the first brand
does not say the codec, the compatible ones do; without one that does it is HEVC, which phones
write."""
_MAX_BRANDS_BYTES = 256
"""That are looked at. Files name about five, of four bytes each."""

_DICOM = b"DICM"
"""Follows 128 bytes of anything. Source: DICOM PS3.10, section 7.1."""

_TEXT_SAMPLE_BYTES = 512

_MAX_GIF_BLOCKS = 200_000
"""That a count of frames reads: a twentieth of a second of computing. 10 MiB of data come in
41,000 blocks, unless somebody makes them short."""


def sniff(data: bytes) -> str:
    """Tell the format by its magic bytes, never by a name.

    Returns:
        Pillow's name of the format; "HEIF" for HEIC.

    Raises:
        BadImage: it is none that is taken; the message names it as what it is.
    """
    if not data:
        raise BadImage(f"the file is empty; {WANTED}")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if is_heic(data):
        return "HEIF"
    if data[128:132] == _DICOM:
        raise BadImage("this is a DICOM file; export its picture as PNG or JPEG, and send that")
    name = _other_kind(data)
    if name is None:
        raise BadImage(f"the file is not a picture of a known kind; {WANTED}")
    raise BadImage(f"this is {name}; {WANTED}")


def is_heic(data: bytes) -> bool:
    """Whether a file says that it is HEIC."""
    first, others = _brands(data)
    if first in _ANY_CODEC_BRANDS:
        return bool(others & _HEIC_BRANDS) or not others & _AVIF_BRANDS
    return first in _HEIC_BRANDS


def _brands(data: bytes) -> tuple[bytes, frozenset[bytes]]:
    """The kinds that a file of ISO's boxes says it is: the first, and those compatible with it.

    Source: ISO/IEC 14496-12, section 4.3.
    """
    if data[4:8] != b"ftyp":
        return b"", frozenset()
    end = min(int.from_bytes(data[:4], "big"), _MAX_BRANDS_BYTES)
    return data[8:12], frozenset(data[start : start + 4] for start in range(16, end, 4))


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Check a claimed width and height in pixels.

    Raises:
        BadImage: a limit is passed, or there is not one pixel.
    """
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


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP from its first chunk. Source: RFC 9649, sections 2.5 to 2.7.

    Raises:
        BadImage: there is no such chunk.
    """
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


def check_scans(data: bytes) -> None:
    """Check how often a JPEG goes over the picture.

    Raises:
        BadImage: more often than any encoder does.
    """
    # Walking through megabytes takes milliseconds; nearly every file has too few of these bytes.
    if data.count(_START_OF_SCAN) > MAX_JPEG_SCANS and _num_jpeg_scans(data) > MAX_JPEG_SCANS:
        raise BadImage(f"the JPEG has more than {MAX_JPEG_SCANS} scans; save it anew")


_START_OF_SCAN = b"\xff\xda"
_JPEG_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
"""What stands alone is left out: restarts and the start of the picture; and all below C0, though
T.81 reserves them: where a restart is due, libjpeg steps over those by their two bytes."""


def _num_jpeg_scans(data: bytes) -> int:
    """Count start-of-scan markers, skipping segments that may hold a thumbnail's own.

    Source: ITU-T T.81, annex B.
    """
    scans, position = 0, 2
    while match := _JPEG_SEGMENT.search(data, position):
        marker, position = match[1][0], match.end()
        if marker == 0xD9:  # end of image
            break
        if marker == 0xDA:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                break
        position += int.from_bytes(data[position : position + 2], "big")
    return scans


_KINDS = {
    b"%PDF": "a PDF",
    b"BM": "a BMP picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"\0\0\1\0": "an icon",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
    b"8BPS": "a Photoshop file",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x1aE\xdf\xa3": "a video",
    b"\xd0\xcf\x11\xe0": "an Office document",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"https:": "an address, not the picture behind it",
    b"http:": "an address, not the picture behind it",
    b"data:": "a data URL, not the bytes in it",
    b"iVBORw0KGgo": "Base64 text, not the bytes in it",
    b"/9j/": "Base64 text, not the bytes in it",
    b"R0lGOD": "Base64 text, not the bytes in it",
    b"UklGR": "Base64 text, not the bytes in it",
    b"{\\rtf": "an Office document",
}


def _other_kind(data: bytes) -> str | None:
    """Name what people send by mistake, so that the refusal helps."""
    if data[4:8] == b"ftyp":
        first, others = _brands(data)
        return "an AVIF picture" if {first, *others} & _AVIF_BRANDS else "a video"
    if data.startswith(b"RIFF"):
        return "a sound or video file"
    if data.startswith(b"PK\3\4"):
        is_office = any(name in data[:4096] for name in (b"[Content_Types].xml", b"mimetype"))
        return "an Office document" if is_office else "a ZIP archive"
    text = data[: 2 * _TEXT_SAMPLE_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, name in _KINDS.items():
        if data.startswith(magic) or text.startswith(magic):
            return name
    if text.startswith(b"<"):
        is_svg = b"<svg" in text.lower()
        return "an SVG drawing" if is_svg else "an HTML or XML page"
    return "text" if _is_text(data[:_TEXT_SAMPLE_BYTES]) else None


def _is_text(sample: bytes) -> bool:
    try:
        # A character may be cut in two at the sample's end.
        text = sample.decode("utf-8", "strict" if len(sample) < _TEXT_SAMPLE_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    if 4 * len(text.encode()) < 3 * len(sample):
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)


def count_gif_frames(data: bytes, max_frames: int) -> int:
    """The frames of a GIF, by its blocks: at least 1, and at most `max_frames`.

    A file that is cut short has those that begin before its end.

    Source: https://www.w3.org/Graphics/GIF/spec-gif89a.txt
    """
    position = 13 + _colour_table_bytes(data, 10)
    num_frames, num_blocks = 0, 0
    while num_frames < max_frames and num_blocks < _MAX_GIF_BLOCKS:
        kind = data[position : position + 1]
        if kind == b"!":  # an extension
            position += 2
        elif kind == b",":  # a frame
            num_frames += 1
            position += 11 + _colour_table_bytes(data, position + 9)
        else:
            break
        while num_blocks < _MAX_GIF_BLOCKS:
            num_blocks += 1
            size = data[position] if position < len(data) else 0
            position += 1 + size
            if not size:
                break
    return max(1, num_frames)


def _colour_table_bytes(data: bytes, position: int) -> int:
    """Of the table that the flags at `position` announce."""
    flags = data[position] if position < len(data) else 0
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
