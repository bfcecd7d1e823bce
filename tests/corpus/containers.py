"""The bytes of picture files, written by hand where no encoder would write them so."""

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import cache

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG's chunk with its checksum."""
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(
    width: int,
    height: int,
    rows: bytes = b"",
    *,
    bits: int = 8,
    colour: int = 2,
    before: Iterable[bytes] = (),
    is_compressed: bool = False,
) -> bytes:
    """A PNG that claims a size, whatever its rows hold.

    Args:
        width: in pixels.
        height: in pixels.
        rows: with a filter's byte before each.
        bits: of a sample.
        colour: PNG's type of colour: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA.
        before: chunks between the header and the rows.
        is_compressed: whether `rows` are so already.
    """
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = rows if is_compressed else zlib.compress(rows)
    return PNG_SIGNATURE + header + b"".join(before) + png_chunk(b"IDAT", body) + png_end()


def png_end() -> bytes:
    """The last chunk."""
    return png_chunk(b"IEND", b"")


@cache
def deflated_zeros(num_bytes: int) -> bytes:
    """A stream that inflates to so many zeros, made a megabyte at a time."""
    deflater, parts = zlib.compressobj(9), []
    for start in range(0, num_bytes, 2**20):
        parts.append(deflater.compress(bytes(min(2**20, num_bytes - start))))
    return b"".join([*parts, deflater.flush()])


def webp_claiming(width: int, height: int) -> bytes:
    """A lossless WebP of 34 bytes that claims a size of up to 16,384 pixels a side."""
    bits = (width - 1) | (height - 1) << 14
    body = b"\x2f" + bits.to_bytes(4, "little") + b"\0" * 9
    return riff(b"VP8L" + len(body).to_bytes(4, "little") + body)


def webp_canvas_claiming(width: int, height: int) -> bytes:
    """An animated WebP whose canvas claims a size of up to 16,777,216 pixels a side."""
    body = b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff(b"VP8X" + len(body).to_bytes(4, "little") + body)


def riff(chunks: bytes) -> bytes:
    """A WebP around its chunks."""
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks


def gif(num_frames: int, side_pixels: int = 8) -> bytes:
    """A GIF of red frames after a blue one, written without an encoder's care for each."""
    head = b"GIF89a" + struct.pack("<HHBBB", side_pixels, side_pixels, 0x80, 0, 0)
    palette = bytes((0, 0, 255, 255, 0, 0))
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, side_pixels, side_pixels, 0) + b"\x02"
    first, others = (_lzw([value] * side_pixels**2) for value in (0, 1))
    return head + palette + frame + first + (frame + others) * (num_frames - 1) + b"\x3b"


def _lzw(indices: Sequence[int]) -> bytes:
    """Indices of 2 bits as GIF packs them, cleared so often that codes stay 3 bits wide."""
    codes = []
    for position, index in enumerate(indices):
        if position % 2 == 0:
            codes.append(4)  # clear
        codes.append(index)
    codes.append(5)  # end
    number = sum(code << 3 * position for position, code in enumerate(codes))
    data = number.to_bytes((3 * len(codes) + 7) // 8, "little")
    blocks = (data[start : start + 255] for start in range(0, len(data), 255))
    return b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A JPEG's segment of at most 65,533 bytes."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments after its start."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def with_first_scans(jpeg: bytes, num_more: int) -> bytes:
    """A progressive JPEG with its first scan, which goes through all colours, so often again."""
    start = jpeg.index(b"\xff\xda")
    found = re.compile(b"\xff[\xc4\xda]").search(jpeg, start + 2)
    assert found is not None
    return jpeg[: found.start()] + jpeg[start : found.start()] * num_more + jpeg[found.start() :]


def with_scans(jpeg: bytes, num_scans: int) -> bytes:
    """A progressive JPEG with its last scan repeated until it has so many."""
    start = jpeg.rindex(b"\xff\xda")
    missing = num_scans - jpeg.count(b"\xff\xda")
    return jpeg[:-2] + jpeg[start:-2] * missing + jpeg[-2:]
