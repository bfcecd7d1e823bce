"""Compiles the kernels in processes of their own, for this start and the next ones.

    python -m llavachat_server.engine.native.apart FOLDER step

Both at once, where one process would take one after the other; and what compiles is in nobody's
memory afterwards.
"""

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llavachat_server.engine import native
from llavachat_server.engine.native.code import Image, Kernel, load, read_image, write_image

PARTS = ("step", "tower")


class NoKernels(Exception):
    """The kernels can not be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """A decoder's step and a picture's way through the tower, see `kernels`."""

    step: Kernel
    tower: Kernel


def get_kernels(folder: str | None) -> Kernels:
    """The kernels in this process; compiled where they are not kept, which takes many seconds.

    Args:
        folder: of the service alone, since what lies there is run. None, or one that can not be
            written to: they are compiled at every start.

    Raises:
        NoKernels: they can not be compiled, or can not be run here.
    """
    obstacle = native.find_obstacle()
    if obstacle is not None:
        raise NoKernels(obstacle)
    own = None if folder is None else _make_folder(find_folder(folder))
    if own is not None:
        return _load(_compile_missing(own))
    with tempfile.TemporaryDirectory(prefix="llavachat-kernels-") as passing:
        return _load(_compile_missing(Path(passing)))


def find_folder(folder: str) -> Path:
    """Where in a folder this version's machine code lies, named by the digest of its sources."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return Path(folder) / digest[:16]


def find_file(own: Path, part: str) -> Path:
    """Where in it one part lies."""
    return own / f"{part}.code"


def compile_part(own: Path, part: str) -> None:
    """Compile one part in this process, and keep it.

    Args:
        own: see `find_folder`.
        part: of `PARTS`.
    """
    from llavachat_server.engine.native.kernels.entries import compile_entry

    write_image(find_file(own, part), compile_entry(part), describe_machine())


@cache
def describe_machine() -> str:
    """What machine code depends on besides its sources."""
    flags = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "flags", "Features"))
    ]
    about = "\n".join(sorted(set(flags)))
    compilers = [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite")]
    return ", ".join((*compilers, hashlib.sha256(about.encode()).hexdigest()[:16]))


def _make_folder(own: Path) -> Path | None:
    try:
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    return own if os.access(own, os.W_OK) else None


def _compile_missing(own: Path) -> dict[str, Image]:
    machine = describe_machine()
    found = {part: read_image(find_file(own, part), machine) for part in PARTS}
    words = [sys.executable, "-P", "-m", __name__, str(own)]
    processes = {
        part: subprocess.Popen(  # noqa: S603
            [*words, part],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part, image in found.items()
        if image is None
    }
    images = {}
    for part in PARTS:
        said = processes[part].communicate()[1] if part in processes else ""
        image = found[part] or read_image(find_file(own, part), machine)
        if image is None:
            reason = said.strip().rpartition("\n")[2] or "nothing was said"
            raise NoKernels(f"the kernels could not be compiled: {reason}")
        images[part] = image
    return images


def _load(images: dict[str, Image]) -> Kernels:
    try:
        return Kernels(**{part: load(image) for part, image in images.items()})
    except (OSError, AttributeError) as error:
        raise NoKernels(f"the kernels can not be run: {error}") from error


def main(own: str, part: str) -> None:
    """Compile a part, or end with one line that says why not."""
    try:
        compile_part(Path(own), part)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        sys.exit(f"{type(error).__name__}: {first_line}")


if __name__ == "__main__":
    main(*sys.argv[1:])
