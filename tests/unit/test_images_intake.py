"""The picture intake: what is taken, what comes out, and how the rest is refused."""

import struct
import subprocess
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.images.intake import (
    MAX_JPEG_SCANS,
    MAX_KEPT_SIDE_PIXELS,
    BadImage,
    ImageLimits,
    Intake,
    check_header,
    decode,
)
from pictures import draw_shape, encode
from PIL import Image

LIMITS = ImageLimits()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def webp_header(width: int, height: int) -> bytes:
    """A lossless WebP of 34 bytes that promises a size."""
    bits = (width - 1) | (height - 1) << 14
    body = b"\x2f" + bits.to_bytes(4, "little") + b"\0" * 5
    chunk = b"VP8L" + len(body).to_bytes(4, "little") + body
    return b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> str:
    """The sentence that refuses a file."""
    with pytest.raises(BadImage) as caught:
        decode(data, limits)
    return str(caught.value)


@pytest.mark.parametrize(
    ("image_format", "media_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
    ],
)
def test_takes_each_format(image_format: str, media_type: str) -> None:
    """The four formats are taken and told apart by their bytes."""
    picture = decode(encode(draw_shape("circle", "red", (60, 40)), image_format), LIMITS)
    assert (60, 40, media_type) == (
        picture.info.width_pixels,
        picture.info.height_pixels,
        picture.info.media_type,
    )
    assert "RGB" == picture.pixels.mode
    red, green, blue = picture.pixels.getpixel((30, 20))
    assert (True, True, True) == (red > 240, green < 15, blue < 15)


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


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_transparency_becomes_white(image_format: str) -> None:
    """What shines through is white, whatever colour lies under it."""
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 4, 8))
    options = {"lossless": True} if image_format == "WEBP" else {}
    taken = decode(encode(picture, image_format, **options), LIMITS).pixels
    assert ((0, 0, 255), (255, 255, 255)) == (taken.getpixel((1, 4)), taken.getpixel((6, 4)))


def test_transparent_palette_becomes_white() -> None:
    """A GIF's transparent colour is white too."""
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.putpixel((0, 0), 1)
    taken = decode(encode(picture, "GIF", transparency=0), LIMITS).pixels
    assert ((200, 0, 0), (255, 255, 255)) == (taken.getpixel((0, 0)), taken.getpixel((2, 2)))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    """Half of 16-bit white is half of 8-bit white; Pillow alone would make it white."""
    picture = Image.new("I;16", (4, 4), 0x8000)
    assert (128, 128, 128) == decode(encode(picture), LIMITS).pixels.getpixel((1, 1))


def test_cmyk_becomes_rgb() -> None:
    """A print shop's JPEG is taken."""
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decode(encode(picture, "JPEG"), LIMITS).pixels.getpixel((8, 8))
    assert (True, True, True) == (red > 240, green < 15, blue < 15)


def test_gif_gives_its_first_frame() -> None:
    """Of a moving picture the first frame is taken."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (255, 0, 0) == decode(data, LIMITS).pixels.getpixel((1, 1))


def test_a_long_strip_is_kept_small() -> None:
    """A strip of the longest side can not become gigabytes when it is padded to a square."""
    taken = decode(encode(Image.new("RGB", (16_384, 16), "red")), LIMITS)
    assert (16_384, 16) == (taken.info.width_pixels, taken.info.height_pixels)
    assert (MAX_KEPT_SIDE_PIXELS, 4) == taken.pixels.size


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (b"%PDF-1.7 ...", "this is a PDF; send a JPEG, PNG, WebP or GIF file"),
        (b"BM" + b"\0" * 60, "this is a BMP picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "this is an HEIC picture"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "this is a video"),
        (b"  <svg xmlns='x'/>", "this is an SVG drawing"),
        (b"https://example.org/cat.png", "this is an address, not the picture behind it"),
        (b"/9j/4AAQSkZJRg", "this is Base64 text"),
        (b"hello", "the file is not a picture of a known kind"),
        (b"\x89PNG\r\n\x1a\nrubbish", "the file begins like a PNG but its header is damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8?rubbish", "the file begins like a WEBP but its header"),
    ],
)
def test_refusals_say_what_was_sent(data: bytes, says: str) -> None:
    """What is no picture is named as what it is."""
    assert refusal(data).startswith(says), refusal(data)


def test_limits_hold_at_their_edges() -> None:
    """A picture at a limit is taken, one past it is refused, for bytes, sides and pixels."""
    data = encode(Image.new("RGB", (30, 20)))
    fitting = ImageLimits(max_bytes=len(data), max_pixels=600, max_side_pixels=30)
    assert (30, 20) == decode(data, fitting).pixels.size
    assert "bytes" in refusal(data, ImageLimits(len(data) - 1, 600, 30))
    assert "600 pixels; at most 599" in refusal(data, ImageLimits(len(data), 599, 30))
    assert "no side may be longer than 29" in refusal(data, ImageLimits(len(data), 600, 29))


MEASURE = """
import resource, sys
from llavachat_server.images.intake import BadImage, ImageLimits, decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(sys.stdin.buffer.read(), ImageLimits())
except BadImage as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png_header(16_000, 9_000), "the picture is 16000 x 9000 = 144,000,000 pixels; at most"),
        (png_header(16_000, 16_000), "the picture has more than 25,000,000 pixels"),
        (webp_header(16_384, 16_384), "the picture is 16384 x 16384 = 268,435,456 pixels; at most"),
    ],
)
def test_a_lying_header_costs_nothing(data: bytes, says: str) -> None:
    """A few bytes that promise a huge picture are refused before memory is taken for it."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], input=data, capture_output=True, check=True
    )
    sentence, grown_mib = run.stdout.decode().splitlines()
    assert sentence.startswith(says), sentence
    assert int(grown_mib) < 20


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


def test_too_many_jpeg_scans_are_refused() -> None:
    """A JPEG that repeats a scan is refused; one with as many as encoders write is taken."""
    data = encode(draw_shape("circle", "red", (64, 64)), "JPEG", progressive=True)
    assert (64, 64) == decode(data, LIMITS).pixels.size
    start = data.rindex(b"\xff\xda")
    scan, end = data[start:-2], data[-2:]
    assert "more than 100 scans" in refusal(data[:-2] + scan * MAX_JPEG_SCANS + end)


def test_a_cut_file_is_refused() -> None:
    """Half a picture is no picture."""
    data = encode(draw_shape("circle", "red"), "JPEG")
    assert "the picture is damaged or cut short; save it anew" == refusal(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
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


async def test_intake_decodes_off_the_event_loop() -> None:
    """The intake answers with the picture, and refuses before it hands work over."""
    intake = Intake(LIMITS)
    picture = await intake.take(encode(draw_shape("circle", "red", (20, 20))))
    assert (20, 20) == picture.pixels.size
    assert 20 * 20 * 3 == picture.num_bytes
    with pytest.raises(BadImage):
        await intake.take(b"%PDF")
    intake.close()
