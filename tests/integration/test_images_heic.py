"""HEIC: read where the library for it is installed, refused in a sentence that helps elsewhere."""

import subprocess
import sys

import pytest
from llavachat_server.images.intake import BadImage, Intake
from processes import wait_for_child

MAKE = """
import io, sys
import pillow_heif
from PIL import Image
pillow_heif.register_heif_opener()
picture = Image.new("RGB", (64, 48), (255, 0, 0))
picture.paste((0, 0, 255), (32, 0, 64, 48))
picture.save(sys.stdout.buffer, "HEIF", quality=90)
"""

WITHOUT = """
import sys
sys.modules["pillow_heif"] = None
from llavachat_server.images.decoding import load_heic, decode
from llavachat_server.images.intake import BadImage, ImageLimits
print(load_heic())
try:
    decode(sys.stdin.buffer.read(), ImageLimits())
except BadImage as error:
    print(error)
"""


@pytest.fixture(scope="module")
def photograph() -> bytes:
    """A HEIC file, made in a process of its own: what reads HEIC here is not to know how."""
    return subprocess.run([sys.executable, "-c", MAKE], capture_output=True, check=True).stdout


async def test_heic_is_taken_where_it_can_be(intake: Intake, photograph: bytes) -> None:
    """Its library needs a thread, which the confinement lets it have."""
    assert "image/heic" in await intake.start()
    picture = await intake.take(photograph)
    assert ((64, 48), "image/heic") == (picture.pixels.size, picture.info.media_type)
    red, blue = picture.pixels.getpixel((10, 24)), picture.pixels.getpixel((54, 24))
    assert red[0] > 220
    assert red[2] < 30
    assert blue[2] > 220
    assert blue[0] < 30


async def test_damaged_heic_is_refused(intake: Intake, photograph: bytes) -> None:
    """Cut or bent, it is refused like other formats, and the decoders stay."""
    await intake.start_all()
    before = intake.process_ids
    for cut in range(12, len(photograph), 37):
        with pytest.raises(BadImage, match="damaged"):
            await intake.take(photograph[:cut])
    bent = bytearray(photograph)
    for place in range(40, len(bent), 11):
        bent[place] ^= 0xFF
    with pytest.raises(BadImage):
        await intake.take(bytes(bent))
    assert before == intake.process_ids
    # Each has its next child ready again, in a moment.
    assert all(wait_for_child(pid) for pid in before)


def test_without_the_library_heic_is_named(photograph: bytes) -> None:
    """Where it is not installed, the refusal says what the file is and what to send."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], input=photograph, capture_output=True, check=True
    )
    assert [
        "False",
        "this is an HEIC picture, which this server does not read; "
        "send a JPEG, PNG, WebP or GIF file",
    ] == run.stdout.decode().splitlines()
