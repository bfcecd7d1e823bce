"""Pictures that are damaged, cut short or too large: a sentence, whatever their decoder makes of
them."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat.errors import ImageError
from llavachat.images import load_picture
from pictures import encode
from PIL import Image

DAMAGED = Path(__file__).parent.parent / "corpus" / "damaged"


def red(size):
    """A red picture."""
    return Image.new("RGB", size, (220, 20, 20))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "WEBP", "AVIF"])
def test_half_a_picture_is_refused(image_format):
    """A file that was cut short is told here, not by the server."""
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    data = encode(noise, image_format)
    with pytest.raises(ImageError, match=r"cut short|not a picture"):
        load_picture(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["frame.avif", "item.avif", "compression.tiff", "tag.tiff"])
def test_damage_is_told_whatever_the_decoder_makes_of_it(name):
    """Files found by mutation, at which Pillow raises RuntimeError and KeyError."""
    with pytest.raises(ImageError, match=rf"{name} is damaged or cut short\.$"):
        load_picture(DAMAGED / name)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit memory so")
def test_a_picture_for_which_there_is_no_memory_is_told():
    """In a process that may take 30 MB more, where it needs 64."""
    code = """if True:
        import io, resource
        from PIL import Image
        from llavachat import ImageError, load_picture
        file = io.BytesIO()
        Image.new("RGB", (4000, 4000)).save(file, "PNG", compress_level=1)
        with open("/proc/self/statm") as sizes:
            taken = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 30_000_000, -1))
        try:
            load_picture(file.getvalue())
        except ImageError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    sentence = "The data takes more memory than there is; scale it down first.\n"
    assert (sentence, "") == (done.stdout, done.stderr)


def test_a_bomb_is_refused():
    """A header that claims a giant picture is not decoded."""
    data = bytearray(encode(red((8, 8)), "BMP"))
    data[18:26] = (60_000).to_bytes(4, "little") + (60_000).to_bytes(4, "little")
    with pytest.raises(ImageError, match="megapixels"):
        load_picture(bytes(data))


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"]),
    st.integers(0, 2000),
    st.binary(max_size=12),
)
def test_damaged_files_end_in_a_picture_or_a_sentence(image_format, position, patch):
    """No damage to a file makes anything but ImageError."""
    data = bytearray(encode(red((24, 16)), image_format))
    position %= len(data)
    data[position : position + len(patch)] = patch
    with contextlib.suppress(ImageError):
        assert load_picture(bytes(data)).data
