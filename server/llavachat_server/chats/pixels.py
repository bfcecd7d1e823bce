"""Pixels as bytes and back, losslessly: a picture's id is over its pixels, and must come again.

What is written is a plain PNG. It is written here and not by Pillow because a turn is not told
before its picture is kept: of a photograph, Pillow tries five filters a row and looks for matches
that are not there, which takes three to four times as long.
"""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEFT = 1
"""PNG's filter "Sub": each byte as its difference from the pixel to the left."""

_ZLIB_HEADER = b"\x78\x01"
"""Deflate with a window of 32 KiB, packed fast. Source: RFC 1950."""

_STRIP_ROWS = 256
"""Rows that are packed at once; bounds the memory that it takes beside the picture."""

_MAX_THREADS = 4
"""For one picture."""

_SAMPLE_BANDS, _BAND_ROWS = 8, 8
"""A photograph packs better and faster by runs alone, a page of text by matches. The smaller one
on so many bands of so many rows is taken for the whole picture."""


class DamagedPixels(Exception):
    """What should be a PNG is none, or is broken; the message is Pillow's."""


def write_png(pixels: Image.Image) -> bytes:
    """RGB pixels as a PNG without metadata. Large ones are packed on several threads."""
    rows: Pixels = np.asarray(pixels)  # (height, width, 3)
    height, width, _ = rows.shape
    # 8 bits a channel, RGB, deflate, adaptive filters, not interlaced.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            *_write_chunk(b"IHDR", header),
            *_write_chunk(b"IDAT", _pack(rows)),
            *_write_chunk(b"IEND", b""),
        )
    )


def read_png(data: bytes) -> Image.Image:
    """The pixels of a PNG that `write_png` wrote.

    Raises:
        DamagedPixels: it is not what was written.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            pixels = picture.copy()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        # Pillow has no one word for a broken file.
        raise DamagedPixels(str(error)) from error
    pixels.info = {}
    return pixels


def _pack(rows: Pixels) -> bytes:
    """The zlib stream of filtered rows: strips that are deflated apart, one after the other."""
    strategy = _choose_strategy(rows)

    def deflate(top: int) -> tuple[bytes, bytes]:
        filtered = _filter(rows[top : top + _STRIP_ROWS])
        is_last = top + _STRIP_ROWS >= len(rows)
        end = zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH
        return filtered, _deflate(filtered, strategy, end)

    parts, checksum = [_ZLIB_HEADER], zlib.adler32(b"")
    with ThreadPoolExecutor(_MAX_THREADS, "pixels") as pool:
        for filtered, deflated in pool.map(deflate, range(0, len(rows), _STRIP_ROWS)):
            parts.append(deflated)
            checksum = zlib.adler32(filtered, checksum)
    return b"".join((*parts, struct.pack(">I", checksum)))


def _filter(rows: Pixels) -> bytes:
    height, width, _ = rows.shape
    flat = rows.reshape(height, 3 * width)
    filtered = np.empty((height, 1 + 3 * width), np.uint8)
    filtered[:, 0] = _LEFT
    filtered[:, 1:4] = flat[:, :3]
    np.subtract(flat[:, 3:], flat[:, :-3], out=filtered[:, 4:])
    return filtered.tobytes()


def _deflate(data: bytes, strategy: int, end: int) -> bytes:
    packer = zlib.compressobj(level=1, wbits=-15, memLevel=9, strategy=strategy)
    return packer.compress(data) + packer.flush(end)


def _choose_strategy(rows: Pixels) -> int:
    tops = range(0, len(rows), max(_BAND_ROWS, len(rows) // _SAMPLE_BANDS))
    sample = b"".join(_filter(rows[top : top + _BAND_ROWS]) for top in tops)
    return min(
        (zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY),
        key=lambda strategy: len(_deflate(sample, strategy, zlib.Z_FINISH)),
    )


def _write_chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    """Source: https://www.w3.org/TR/png-3/#5Chunk-layout."""
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)
