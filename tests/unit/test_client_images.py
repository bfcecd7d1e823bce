"""Pictures from everywhere: which go as they are, and what becomes of the others."""

import io
import struct
import sys
from pathlib import Path

import pillow_heif
import pytest
from llavachat import images
from llavachat.errors import ImageError
from llavachat.images import MAX_SIDE_PIXELS, Picture, list_sources, load_picture, load_pictures
from llavachat.types import ImageInfo
from llavachat_server.images.decoding import decode as read_by_server
from llavachat_server.images.picture import ImageLimits
from PIL import Image, features

INFO = ImageInfo("ab" * 32, 1, 1, 64, "image/png")


def encode(picture, image_format, **options):
    """A picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def decode(picture):
    """What the server would see."""
    return Image.open(io.BytesIO(picture.data))


def read_row(picture):
    """The values of its first row."""
    return [picture.getpixel((x, 0)) for x in range(picture.width)]


def red(size=(60, 40), mode="RGB"):
    """A red picture."""
    return Image.new("RGB", size, (220, 20, 20)).convert(mode)


def halves(width=40, height=20):
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), "red")
    picture.paste("blue", (width // 2, 0, width, height))
    return picture


@pytest.mark.parametrize(
    ("image_format", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_a_good_small_file_goes_as_it_is(image_format, media_type):
    """Byte for byte, in each format that the server reads."""
    data = encode(red(), image_format)
    assert Picture(data, media_type, 60, 40) == load_picture(data)


@pytest.mark.parametrize("image_format", ["BMP", "TIFF", "PPM", "ICO", "TGA"])
def test_other_formats_are_converted(image_format):
    """What the server does not read arrives as PNG, pixel for pixel."""
    picture = load_picture(encode(red((32, 32)), image_format))
    assert "image/png" == picture.media_type
    assert (220, 20, 20) == decode(picture).convert("RGB").getpixel((5, 5))


def test_exif_orientation_is_applied():
    """A photograph taken with the camera on its side arrives upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    picture = load_picture(encode(halves(), "JPEG", exif=exif, quality=95))
    upright = decode(picture)
    assert (20, 40) == upright.size == (picture.width_pixels, picture.height_pixels)
    top, bottom = (
        upright.convert("RGB").getpixel((10, 5)),
        upright.convert("RGB").getpixel((10, 35)),
    )
    assert top[0] > 200 > 60 > top[2]
    assert bottom[2] > 200 > 60 > bottom[0]
    assert 1 == upright.getexif().get(0x0112, 1)


@pytest.mark.parametrize(
    ("image_format", "mode"),
    [
        *((name, mode) for name in ("PNG", "TIFF") for mode in ("P", "RGBA", "RGB", "I;16")),
        *(("WEBP", mode) for mode in ("RGBA", "RGB")),
    ],
)
@pytest.mark.parametrize("width", [40, 2000])
def test_every_kind_of_picture_is_set_upright(image_format, mode, width):
    """Orientation outlives scaling and every change of format and mode."""
    source = Image.new("I;16", (width, 20)) if mode == "I;16" else red((width, 20), mode)
    exif = Image.Exif()
    exif[0x0112] = 8
    picture = load_picture(encode(source, image_format, exif=exif))
    assert picture.width_pixels < picture.height_pixels == min(width, MAX_SIDE_PIXELS)


def test_a_large_photograph_is_scaled_down():
    """The longer side becomes what the model can use, the shape stays, JPEG stays JPEG."""
    noise = Image.effect_noise((4000, 3000), 60).convert("RGB")
    data = encode(noise, "JPEG")
    picture = load_picture(data)
    assert (MAX_SIDE_PIXELS, 1008) == decode(picture).size
    assert "image/jpeg" == picture.media_type
    assert len(picture.data) < len(data) / 2


def test_a_large_drawing_stays_lossless():
    """A scaled PNG of few colours is sent as PNG."""
    picture = load_picture(encode(red((3000, 1500)), "PNG"))
    assert ("image/png", 1344, 672) == (
        picture.media_type,
        picture.width_pixels,
        picture.height_pixels,
    )


def test_a_scaled_picture_leaves_its_metadata_behind():
    """Place and time are not sent once a picture is encoded anew."""
    exif = Image.Exif()
    exif[0x010E] = "at home"
    data = encode(red((2000, 100)), "JPEG", exif=exif, comment=b"at home")
    assert b"at home" in data
    assert b"at home" not in load_picture(data).data


def test_transparency_is_kept():
    """What shows through is for the server to put on white."""
    clear = Image.new("RGBA", (2000, 100), (0, 0, 255, 128))
    picture = load_picture(encode(clear, "PNG"))
    assert "RGBA" == decode(picture).mode
    noisy = Image.effect_noise((1344, 1344), 90).convert("RGBA")
    noisy.putalpha(Image.effect_noise((1344, 1344), 90))
    assert "image/webp" == load_picture(noisy).media_type


def test_a_pil_image_is_not_changed():
    """The caller's object keeps its size, mode and metadata."""
    original = red((3000, 100), "P")
    original.info["note"] = "mine"
    load_picture(original)
    assert ((3000, 100), "P", "mine") == (original.size, original.mode, original.info["note"])


def test_a_damaged_pil_image_is_told():
    """Pillow decodes late; what it finds then is our sentence."""
    data = encode(Image.effect_noise((200, 200), 80), "PNG")
    with pytest.raises(ImageError, match="damaged or cut short"):
        load_picture(Image.open(io.BytesIO(data[:5000])))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_every_mode_of_pil_is_sent(mode):
    """Whatever Pillow holds becomes RGB or RGBA, large or small."""
    source = Image.new("L", (1500, 10), 200)
    source = source.convert("I").convert("I;16") if mode == "I;16" else source.convert(mode)
    picture = load_picture(source)
    assert 1344 == picture.width_pixels
    assert decode(picture).mode in {"RGB", "RGBA"}


def test_sixteen_bits_are_scaled_not_clipped():
    """Half of 16-bit white is mid grey."""
    grey = Image.new("I;16", (1500, 10), 32768)
    low, high = decode(load_picture(grey)).convert("L").getextrema()
    assert 126 <= low <= high <= 129


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_sixteen_bits_are_read_in_either_order(mode):
    """A TIFF of a Motorola machine has the greys of one of Intel's."""
    order = "big" if mode == "I;16B" else "little"
    values = (0, 0x40FF, 0x8000, 0xFFFF)
    samples = b"".join(value.to_bytes(2, order) for value in values)
    grey = Image.frombytes(mode, (4, 1), samples)
    sources = [grey] if mode == "I;16L" else [grey, encode(grey, "TIFF")]
    for source in sources:
        sent = decode(load_picture(source)).convert("L")
        assert [0, 65, 127, 255] == pytest.approx(read_row(sent), abs=1)


GREYS = (0, 1, 100, 255, 256, 4095, 0x8000, 0xFFFF)
"""Of 16 bits; a picture of the first four alone is dark, not one of 8 bits."""


def bands(values, width):
    """A 16-bit grey picture, a band for each value."""
    row = b"".join(value.to_bytes(2, "little") * (width // len(values)) for value in values)
    return Image.frombytes("I;16", (width, 8), row * 8)


def read_bands(picture, number):
    """The middle of each band."""
    size = picture.width // number
    return [picture.getpixel((index * size + size // 2, 4)) for index in range(number)]


@pytest.mark.parametrize("values", [GREYS, GREYS[:4]])
@pytest.mark.parametrize("clear", [None, 255, 0x80FF])
def test_sixteen_bits_come_out_as_the_server_reads_them(values, clear):
    """A large PNG that is encoded here as one that goes as it is: by the upper byte, whatever
    values there are, and with the one clear value clear."""
    options = {} if clear is None else {"transparency": clear}
    small = load_picture(encode(bands(values, 800), "PNG", **options))
    large = load_picture(encode(bands(values, 1600), "PNG", **options))
    assert (800, 1344) == (small.width_pixels, large.width_pixels)
    seen = [
        read_bands(read_by_server(each.data, ImageLimits()).pixels, len(values))
        for each in (small, large)
    ]
    assert seen[0] == seen[1]
    expected = [255 if value == clear else value >> 8 for value in values]
    assert [(grey,) * 3 for grey in expected] == seen[1]


def test_a_portable_grey_map_has_its_sixteen_bits():
    """Pillow stretches these to 16 bits in a mode of 32."""
    samples = b"".join(value.to_bytes(2, "big") for value in (0, 100, 200, 255))
    sent = decode(load_picture(b"P5 4 1 65535\n" + samples)).convert("L")
    assert [0, 0, 0, 0] == read_row(sent)


@pytest.fixture
def photograph():
    """A HEIC file of 40 x 20 pixels, red and blue."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(halves()).save(buffer, format="HEIF")
    return buffer.getvalue()


def test_heic_is_read_where_its_library_is(photograph):
    """It is sent as other pictures are, and Pillow's own formats stay the caller's affair."""
    picture = load_picture(photograph)
    assert ("image/jpeg", 40, 20) == (
        picture.media_type,
        picture.width_pixels,
        picture.height_pixels,
    )
    left, right = (decode(picture).getpixel((x, 10)) for x in (5, 35))
    assert left[0] > 220 > 40 > left[2]
    assert right[2] > 220 > 40 > right[0]
    assert "HEIF" not in Image.OPEN


def test_damaged_heic_is_told(photograph, monkeypatch):
    """As of any other picture; so is one with too many pixels."""
    with pytest.raises(ImageError, match="damaged or cut short"):
        load_picture(photograph[:-50])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="megapixels"):
        load_picture(photograph)


def test_heic_goes_as_it_is_without_its_library(photograph, monkeypatch):
    """The server may have it."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert Picture(photograph, "image/heic", 0, 0) == load_picture(photograph)


def name_brands(brands):
    """The beginning of a file with these brands."""
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"mdat"


@pytest.mark.parametrize("brands", [b"mif1\0\0\0\0mif1heic", b"msf1\0\0\0\0msf1hevc"])
def test_heic_is_the_servers_to_judge_by_what_it_says_that_it_is(monkeypatch, brands):
    """Whatever its first brand is, where it can not be read here."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = name_brands(brands)
    assert Picture(data, "image/heic", 0, 0) == load_picture(data)


@pytest.mark.parametrize("brands", [b"avif\0\0\0\0avifmif1", b"mif1\0\0\0\0mif1avif"])
@pytest.mark.parametrize(
    ("readable", "sentence"),
    [
        (("PNG", "AVIF"), "The data is damaged or cut short."),
        (
            ("PNG",),
            "The data is AVIF, which the Pillow here does not read; send JPEG, PNG, WebP or GIF.",
        ),
    ],
)
def test_avif_that_is_not_read_here_is_told_here(monkeypatch, brands, readable, sentence):
    """No server reads it: where Pillow does, the file is damaged."""
    monkeypatch.setattr(images, "_list_readable", lambda: readable)
    monkeypatch.setattr(features, "check", lambda feature: feature == "avif")
    with pytest.raises(ImageError) as refusal:
        load_picture(name_brands(brands))
    assert sentence == str(refusal.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0, 0.25, 0.5, 1.0), [0, 64, 128, 255]),
        ((0.0, 0.25, 0.5, 0.5), [0, 64, 128, 128]),
        ((0.0, 64.0, 128.0, 255.0), [0, 64, 128, 255]),
        ((0.0, 16384.0, 32768.0, 65535.0), [0, 64, 128, 255]),
        ((0.0, 0.0, 0.0, 0.0), [0, 0, 0, 0]),
        ((-1.0, 0.5, 1.0, 1.0), [0, 128, 255, 255]),
    ],
)
def test_fractions_are_greys(values, expected):
    """A TIFF of floating point: up to 1, white is 1; else it is read as 8 or 16 bits."""
    grey = Image.frombytes("F", (4, 1), struct.pack("<4f", *values))
    sent = decode(load_picture(encode(grey, "TIFF"))).convert("L")
    assert expected == pytest.approx(read_row(sent), abs=1)


def test_an_animation_is_its_first_frame():
    """Only what the model sees is sent."""
    frames = [red((20, 20)), Image.new("RGB", (20, 20), "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = load_picture(data)
    red_level, _, blue_level = decode(picture).convert("RGB").getpixel((3, 3))
    assert red_level > 200 > 60 > blue_level
    assert not getattr(decode(picture), "is_animated", False)
    assert 2 == picture.num_frames


def test_every_source_is_read(tmp_path):
    """A path as text, as Path, bytes, a bytearray, an open file, a PIL image, a Picture."""
    data = encode(red(), "PNG")
    path = tmp_path / "red.png"
    path.write_bytes(data)
    expected = Picture(data, "image/png", 60, 40)
    with path.open("rb") as file:
        sources = [str(path), path, data, bytearray(data), file, expected]
        assert (expected,) * 6 == load_pictures(sources)
    assert (220, 20, 20) == decode(load_picture(red())).getpixel((1, 1))


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    """`~/red.png` is a path too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "red.png").write_bytes(encode(red(), "PNG"))
    assert "image/png" == load_picture("~/red.png").media_type


def test_a_known_picture_is_named_only():
    """What the server told of a picture stands for it."""
    assert (INFO,) == load_pictures(INFO)


def test_one_several_or_none():
    """A single source needs no list."""
    assert () == list_sources(None)
    assert ("a.png",) == list_sources("a.png")
    assert (b"data",) == list_sources(b"data")
    assert ("a.png", Path("b.png")) == list_sources(name for name in ("a.png", Path("b.png")))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("report.pdf", b"%PDF-1.7 ...", "report.pdf is a PDF; send JPEG, PNG, WebP or GIF."),
        ("notes.txt", b"hello there", "notes.txt is text; send JPEG, PNG, WebP or GIF."),
        ("page.png", b"<!DOCTYPE html><p>", "page.png is a web page; send JPEG, PNG, WebP or GIF."),
        (
            "logo.svg",
            b"<svg xmlns=''/>",
            "logo.svg is an SVG drawing; send JPEG, PNG, WebP or GIF.",
        ),
        ("clip.mp4", b"\0\0\0\x20ftypisom", "clip.mp4 is a video; send JPEG, PNG, WebP or GIF."),
        ("empty.png", b"", "empty.png is empty."),
        (
            "scan.dcm",
            bytes(128) + b"DICM\x02\0",
            "scan.dcm is a DICOM file; export its picture as PNG or JPEG, and send that.",
        ),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, monkeypatch, name, content, sentence):
    """One sentence says what it is, and what would be right."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(ImageError) as refusal:
        load_picture(name)
    assert sentence == str(refusal.value)


def test_a_postscript_file_is_never_run():
    """Formats for which Pillow starts another program are not opened."""
    with pytest.raises(ImageError, match="PostScript"):
        load_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


def test_missing_files_and_folders_are_told(tmp_path):
    """The sentence names the path."""
    with pytest.raises(ImageError, match=r"nowhere\.png does not exist\.$"):
        load_picture(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_picture(tmp_path)
    with pytest.raises(ImageError, match="can not be read"):
        load_picture("a\0b")
    with pytest.raises(ImageError, match=r"^The path of the picture is empty\.$"):
        load_picture("")


@pytest.mark.parametrize("source", [42, object(), {"a": 1}.keys, None])
def test_other_things_are_refused(source):
    """A picture is a path, an address, bytes, a PIL image or an open file."""
    with pytest.raises(ImageError, match="A picture can not be a"):
        load_picture(source)


def test_a_text_file_object_is_refused():
    """A file must be open as binary."""
    with pytest.raises(ImageError, match="open it as binary"):
        load_picture(io.StringIO("text"))
