"""What decoding makes of pictures, in this process: what is taken, what comes out, the refusals."""

import struct

import pytest
from corpus.containers import gif, png, png_chunk, with_scans
from corpus.evil import EVIL, Evil
from corpus.good import GOOD, Good
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.images.decoding import _to_rgb
from llavachat_server.images.header import MAX_JPEG_SCANS, count_gif_frames, sniff
from llavachat_server.images.intake import (
    MAX_KEPT_SIDE_PIXELS,
    BadImage,
    ImageLimits,
    check_header,
    decode,
)
from pictures import draw_shape, encode
from PIL import Image, ImageColor

LIMITS = ImageLimits()

LOSS = 40
"""How far a lossy format may be from a colour, of 255."""


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> str:
    """The sentence that refuses a file."""
    with pytest.raises(BadImage) as caught:
        decode(data, limits)
    return str(caught.value)


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_the_good_are_taken(good: Good) -> None:
    """Every kind of picture comes out upright, in its colours, on white, and named as it was."""
    picture = decode(good.make(), LIMITS)
    info = picture.info
    assert (good.size, good.media_type, good.num_frames) == (
        (info.width_pixels, info.height_pixels),
        info.media_type,
        info.num_frames,
    )
    assert ("RGB", {}) == (picture.pixels.mode, dict(picture.pixels.info))
    for place, colour in good.colours:
        found = picture.pixels.getpixel(place)
        assert max(abs(a - b) for a, b in zip(colour, found, strict=True)) < LOSS, (place, found)


@pytest.mark.parametrize(
    ("clear", "greys"),
    [
        (0, [255, 78, 78, 156, 255]),
        (20_000, [0, 255, 78, 156, 255]),
        (20_001, [0, 78, 255, 156, 255]),
        (40_000, [0, 78, 78, 255, 255]),
        (1, [0, 78, 78, 156, 255]),
    ],
)
def test_the_clear_value_of_sixteen_bits_alone_is_clear(clear: int, greys: list[int]) -> None:
    """Both its bytes count, and every other value is its grey."""
    values = struct.pack("<5H", 0, 20_000, 20_001, 40_000, 65_535)
    rows = Image.frombytes("I;16", (5, 1), values).resize((5, 300), Image.Resampling.NEAREST)
    pixels = decode(encode(rows, transparency=clear), LIMITS).pixels
    for row in (0, 255, 256, 299):
        assert [(grey, grey, grey) for grey in greys] == [
            pixels.getpixel((x, row)) for x in range(5)
        ]


@pytest.mark.parametrize(
    ("bits", "row", "clear", "greys"),
    [
        (1, b"\x60", 1, [0, 255, 255, 0]),
        (1, b"\x60", 0, [255, 255, 255, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (2, b"\x1b", 0, [255, 85, 170, 255]),
        (2, b"\x1b", 85, [0, 255, 170, 255]),  # of which the lower bits count
        (4, b"\x08\xf1", 8, [0, 255, 255, 17]),
        (8, b"\x00\x08\xff\x01", 8, [0, 255, 255, 1]),
    ],
)
def test_the_clear_grey_of_few_bits_is_found(
    bits: int, row: bytes, clear: int, greys: list[int]
) -> None:
    """The file counts it in its own bits, and the pixels come out in eight."""
    tells = png_chunk(b"tRNS", struct.pack(">H", clear))
    pixels = decode(png(4, 1, b"\0" + row, bits=bits, colour=0, before=[tells]), LIMITS).pixels
    assert greys == list(pixels.getchannel(0).tobytes())


@pytest.mark.parametrize(
    ("clear", "colours"),
    [
        ((0x1234, 0, 0), ["white", "#340000", "#120000", "blue"]),
        ((0x3400, 0, 0), ["#120000", "white", "#120000", "blue"]),
        ((0x0034, 0, 0), ["#120000", "#340000", "#120000", "blue"]),
        ((0, 0, 0xFFFF), ["#120000", "#340000", "#120000", "white"]),
    ],
)
def test_the_clear_colour_of_sixteen_bits_alone_is_clear(
    clear: tuple[int, int, int], colours: list[str]
) -> None:
    """Both bytes of all three count, though Pillow keeps the higher ones alone."""
    row = b"\0" + struct.pack(">12H", 0x1234, 0, 0, 0x3400, 0, 0, 0x1235, 0, 0, 0, 0, 0xFFFF)
    tells = png_chunk(b"tRNS", struct.pack(">3H", *clear))
    pixels = decode(png(4, 300, row * 300, bits=16, before=[tells]), LIMITS).pixels
    for y in (0, 255, 256, 299):
        found = [pixels.getpixel((x, y)) for x in range(4)]
        assert [ImageColor.getrgb(colour) for colour in colours] == found


@pytest.mark.parametrize(("mode", "form"), [("I;16", "<4H"), ("I;16B", ">4H")])
def test_both_orders_of_bytes_are_read(mode: str, form: str) -> None:
    """Which of them a picture comes in is Pillow's business."""
    values = struct.pack(form, 0, 20_000, 40_000, 65_535)
    picture = Image.frombytes(mode, (4, 1), values)
    assert [0, 78, 156, 255] == list(_to_rgb(picture).getchannel(0).tobytes())
    picture.info["transparency"] = 40_000
    assert [0, 78, 255, 255] == list(_to_rgb(picture).getchannel(0).tobytes())


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("evil", EVIL, ids=lambda evil: evil.name)
def test_the_evil_are_refused(evil: Evil) -> None:
    """Bombs, damage and what is no picture are refused in the sentence that fits."""
    sentence = refusal(evil.make())
    assert sentence.startswith(evil.says), sentence


@given(st.integers(1, 30), st.integers(0, 2_000))
def test_frames_of_a_gif_are_counted_as_far_as_it_goes(num_frames: int, cut: int) -> None:
    """A whole one has as many as it was made of; a cut one no more, whatever is left of it."""
    data = gif(num_frames)
    assert num_frames == count_gif_frames(data, 100)
    assert min(num_frames, 7) == count_gif_frames(data, 7)
    assert 1 <= count_gif_frames(data[: max(0, len(data) - cut)], 100) <= num_frames


def test_short_blocks_do_not_keep_the_counter() -> None:
    """A GIF of ten million blocks of a byte is not read to its end."""
    head = gif(1)[:19]
    extension = b"!\xfe" + b"\x01." * 5_000_000 + b"\0"
    assert 1 == count_gif_frames(head + extension + gif(9)[19:], 100)


def test_same_pixels_have_the_same_id_in_any_container() -> None:
    """The id is that of the pixels: lossless files of one picture share it."""
    picture = draw_shape("square", "blue", (50, 50))
    ids = {decode(encode(picture, kind), LIMITS).info.id for kind in ("PNG", "GIF")}
    ids.add(decode(encode(picture, "WEBP", lossless=True), LIMITS).info.id)
    assert 1 == len(ids)


def test_id_tells_the_shape_from_its_bytes() -> None:
    """Pictures with the same bytes in other proportions have other ids."""
    wide, tall = Image.new("RGB", (4, 2)), Image.new("RGB", (2, 4))
    assert decode(encode(wide), LIMITS).info.id != decode(encode(tall), LIMITS).info.id


def test_exif_orientation_is_applied_and_dropped() -> None:
    """A photograph that lies on its side is put upright, and its metadata is gone."""
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste((255, 0, 0), (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    exif[0x010E] = "a secret place"
    taken = decode(encode(picture, exif=exif), LIMITS)
    assert (20, 40) == (taken.info.width_pixels, taken.info.height_pixels)
    assert (255, 0, 0) == taken.pixels.getpixel((10, 2))
    assert {} == dict(taken.pixels.info)
    assert {} == dict(taken.pixels.getexif())


def test_a_long_strip_is_kept_small() -> None:
    """A strip of the longest side can not become gigabytes when it is padded to a square."""
    taken = decode(encode(Image.new("RGB", (16_384, 16), "red")), LIMITS)
    assert (16_384, 16) == (taken.info.width_pixels, taken.info.height_pixels)
    assert (MAX_KEPT_SIDE_PIXELS, 4) == taken.pixels.size


def test_limits_hold_at_their_edges() -> None:
    """A picture at a limit is taken, one past it is refused, for bytes, sides and pixels."""
    data = encode(Image.new("RGB", (30, 20)))
    fitting = ImageLimits(max_bytes=len(data), max_pixels=600, max_side_pixels=30)
    assert (30, 20) == decode(data, fitting).pixels.size
    assert "bytes" in refusal(data, ImageLimits(len(data) - 1, 600, 30))
    assert "600 pixels; at most 599" in refusal(data, ImageLimits(len(data), 599, 30))
    assert "no side may be longer than 29" in refusal(data, ImageLimits(len(data), 600, 29))


def test_webp_size_is_read_as_pillow_reads_it() -> None:
    """Our reading of a WebP's header agrees with Pillow's for all three kinds of it."""
    plain, clear = draw_shape("star", "pink", (33, 57)), Image.new("RGBA", (33, 57), (1, 2, 3, 4))
    files = [
        encode(plain, "WEBP"),
        encode(plain, "WEBP", lossless=True),
        encode(clear, "WEBP"),
    ]
    assert [b"VP8 ", b"VP8L", b"VP8X"] == [data[12:16] for data in files]
    tight = ImageLimits(max_pixels=33 * 57, max_side_pixels=57)
    for data in files:
        assert "WEBP" == check_header(data, tight)
        with pytest.raises(BadImage):
            check_header(data, ImageLimits(max_side_pixels=56))


@pytest.mark.parametrize(
    "brands", ["heic", "heicmif1", "mif1", "mif1miaf", "mif1heicavif", "msf1hevc"]
)
def test_heic_is_told_by_its_brands(brands: str) -> None:
    """By the first; where that is for any codec, by the others, and without one it is HEVC."""
    first, others = brands[:4].encode(), brands[4:].encode()
    size = (16 + len(others)).to_bytes(4, "big")
    # What follows them is no brand.
    assert "HEIF" == sniff(size + b"ftyp" + first + bytes(4) + others + b"avif")


def test_too_many_jpeg_scans_are_refused() -> None:
    """A JPEG may have a hundred scans, ten times what encoders write, and not one more."""
    data = encode(draw_shape("circle", "red", (64, 64)), "JPEG", progressive=True)
    assert (64, 64) == decode(with_scans(data, MAX_JPEG_SCANS), LIMITS).pixels.size
    assert "more than 100 scans" in refusal(with_scans(data, MAX_JPEG_SCANS + 1))


@pytest.mark.parametrize("marker", [0x01, 0x02, 0x4F, 0xBF])
def test_scans_behind_a_marker_that_means_nothing_are_counted(marker: int) -> None:
    """Where a restart is due, libjpeg skips it by two bytes and not by what looks its length."""
    picture = Image.new("L", (64, 64), 130)
    data = encode(picture, "JPEG", progressive=True, restart_marker_blocks=32)
    restart = data.index(b"\xff\xd0", data.index(b"\xff\xda"))
    data = data[:restart] + bytes((0xFF, marker, 0xFF, 0xFF)) + data[restart:]
    assert (64, 64) == decode(with_scans(data, MAX_JPEG_SCANS), LIMITS).pixels.size
    assert "more than 100 scans" in refusal(with_scans(data, MAX_JPEG_SCANS + 1))


def test_scans_of_a_thumbnail_are_not_counted() -> None:
    """Start-of-scan bytes inside metadata are no scans of the picture."""
    data = encode(draw_shape("circle", "red", (64, 64)), "JPEG", comment=b"\xff\xda" * 200)
    assert (64, 64) == decode(data, LIMITS).pixels.size


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_never_escapes(data: st.DataObject) -> None:
    """However a file is bent, it is taken or refused in our words; nothing else happens."""
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]))
    bent = bytearray(encode(draw_shape("square", "green", (24, 24)), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        bent[data.draw(st.integers(0, len(bent) - 1))] = data.draw(st.integers(0, 255))
    bent = bent[: data.draw(st.integers(0, len(bent)))]
    try:
        mode = decode(bytes(bent), LIMITS).pixels.mode
    except BadImage:
        return
    assert "RGB" == mode
