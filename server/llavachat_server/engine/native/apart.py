"""Compiles the kernels in processes of their own, for this start and the next ones.

    python -m llavachat_server.engine.native.apart step

Both at once, where one process would take one after the other; and what compiles is in nobody's
memory afterwards. A process writes what came of it to its output.
"""

import hashlib
import importlib.metadata
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llavachat_server.engine import native
from llavachat_server.engine.native.code import (
    Image,
    Kernel,
    format_image,
    keep_content,
    load,
    parse_image,
    read_image,
)

_log = logging.getLogger(__name__)

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
        folder: where they are kept for the next start; of the service alone, since what lies there
            is run. None, or one that can not be written to: they are compiled at every start.

    Raises:
        NoKernels: they can not be compiled, or can not be run here.
    """
    obstacle = native.find_obstacle()
    if obstacle is not None:
        raise NoKernels(obstacle)
    images = _get_images(None if folder is None else find_folder(folder))
    try:
        return Kernels(**{part: load(image) for part, image in images.items()})
    except (OSError, AttributeError) as error:
        raise NoKernels(f"the kernels can not be run: {error}") from error


def find_folder(folder: str) -> Path:
    """Where in a folder this version's machine code lies, named by the digest of its sources."""
    own = Path(__file__).parent
    sources = [*sorted((own / "kernels").glob("*.py")), own / "plan.py", own / "code.py"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return Path(folder) / digest[:16]


def find_file(own: Path, part: str) -> Path:
    """Where in it one part lies."""
    return own / f"{part}.code"


def compile_apart(parts: Sequence[str]) -> list[bytes]:
    """What comes of some parts, see `code.format_image`.

    Args:
        parts: of `PARTS`.

    Raises:
        NoKernels: a process could not be started, or could not compile its part.
    """
    words = [sys.executable, "-P", "-m", __name__]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for part in parts:
            processes.append(
                subprocess.Popen(  # noqa: S603
                    [*words, part],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
    except OSError as error:
        for process in processes:
            process.kill()
            process.communicate()
        raise NoKernels(f"the kernels could not be compiled: {error}") from error
    said = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        if process.returncode:
            reason = errors.decode(errors="replace").strip().rpartition("\n")[2]
            raise NoKernels(f"the kernels could not be compiled: {reason or process.returncode}")
    return [content for content, _ in said]


@cache
def describe_machine() -> str:
    """What machine code depends on besides its sources."""
    flags = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("vendor_id", "cpu family", "model", "flags", "Features"))
    ]
    about = "\n".join(sorted(set(flags)))
    compilers = [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite")]
    return ", ".join((*compilers, hashlib.sha256(about.encode()).hexdigest()[:16]))


def _get_images(own: Path | None) -> dict[str, Image]:
    machine, images = describe_machine(), dict[str, Image]()
    if own is not None:
        found = {part: read_image(find_file(own, part), machine) for part in PARTS}
        images.update({part: image for part, image in found.items() if image is not None})
    missing = [part for part in PARTS if part not in images]
    for part, content in zip(missing, compile_apart(missing), strict=True):
        image = parse_image(content, machine)
        if image is None:
            raise NoKernels("the kernels could not be compiled: what came of it is broken")
        images[part] = image
        if own is not None:
            _keep(own, part, content)
    return images


def _keep(own: Path, part: str, content: bytes) -> None:
    try:
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        keep_content(find_file(own, part), content)
    except OSError as error:
        # It costs the next start its time, and nothing else.
        _log.warning("kernels not kept: %s", error)


def main(part: str) -> None:
    """Compile a part, or end with one line that says why not."""
    try:
        from llavachat_server.engine.native.kernels.entries import compile_entry

        content = format_image(compile_entry(part), describe_machine())
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        sys.exit(f"{type(error).__name__}: {first_line}")
    sys.stdout.buffer.write(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
