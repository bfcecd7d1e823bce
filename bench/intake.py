"""What the decoder processes cost: a picture through the intake, beside decoding it here.

    python -m bench.intake

The kinds of pictures are interleaved, so that a busy moment hits both sides alike. Run it on a
quiet machine.
"""

import argparse
import asyncio
import io
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from llavachat_server.images.intake import ImageLimits, Intake, decode
from PIL import Image, ImageFilter

ROUNDS = 40
LIMITS = ImageLimits()


def photograph(width: int, height: int) -> Image.Image:
    """Something as rough as a photograph, so that encoders have to work for it."""
    noise = Image.effect_noise((width // 4, height // 4), 70).resize((width, height))
    layers = [noise.rotate(turn).filter(ImageFilter.GaussianBlur(1)) for turn in (0, 90, 180)]
    return Image.merge("RGB", [layer.resize((width, height)) for layer in layers])


def encode(picture: Image.Image, image_format: str, **options: object) -> bytes:
    """The file."""
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def files() -> dict[str, bytes]:
    """The pictures, by name."""
    one, twelve = photograph(1152, 896), photograph(4000, 3000)
    return {
        "320 x 320 PNG of a shape": encode(Image.new("RGB", (320, 320), "red"), "PNG"),
        "1 MP JPEG": encode(one, "JPEG", quality=88),
        "1 MP PNG": encode(one, "PNG"),
        "1 MP WebP": encode(one, "WEBP"),
        "12 MP JPEG": encode(twelve, "JPEG", quality=85),
        "25 MP JPEG": encode(photograph(5760, 4320), "JPEG", quality=75),
    }


async def clock(act: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds of one act."""
    began = time.perf_counter()
    await act()
    return (time.perf_counter() - began) * 1000


def private_mib(pid: int) -> float:
    """Memory that would be free without a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


async def main() -> None:
    """Print the table."""
    intake = Intake(LIMITS)
    began = time.perf_counter()
    await intake.start_all()
    print(f"{len(intake.process_ids)} decoders started in {time.perf_counter() - began:.2f} s")
    print("| picture | bytes | in a thread, ms | through the intake, ms | more, ms |")
    print("|---|---|---|---|---|")
    for name, data in files().items():
        here: list[float] = []
        there: list[float] = []
        for _ in range(ROUNDS if len(data) < 2**20 else ROUNDS // 4):
            here.append(await clock(lambda: asyncio.to_thread(decode, data, LIMITS)))  # noqa: B023
            there.append(await clock(lambda: intake.take(data)))  # noqa: B023
        a, b = statistics.median(here), statistics.median(there)
        print(f"| {name} | {len(data):,} | {a:.1f} | {b:.1f} | {b - a:+.1f} |")
    memory = [private_mib(pid) for pid in intake.process_ids]
    print(f"memory of a decoder's own: {statistics.mean(memory):.1f} MiB")
    print(f"load: {os.getloadavg()[0]:.1f}")
    intake.close()


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m bench.intake", description=__doc__.splitlines()[0]
    ).parse_args()
    asyncio.run(main())
