"""Compiles the kernels in processes of their own, for this start and the next ones.

    python -m llavachat_server.engine.native.apart FOLDER decoder

The decoder's and the tower's at once, where one process would take one after the other; and
what compiling leaves in memory goes with them. It decides nothing: a process that compiles
by itself what it does not find is as right, and only slower and larger.
"""

import hashlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

from llavachat_server.engine import native

PARTS = ("decoder", "tower")


def compile_apart(folder: str | None) -> list[str]:
    """Have what is not kept yet compiled, and wait for it.

    Args:
        folder: see `native.keep_compiled`.

    Returns:
        The parts that were compiled.
    """
    if folder is None or not native.is_installed():
        return []
    own = native.find_folder(folder)
    missing = [part for part in PARTS if not _is_kept(own, part)]
    if not missing or native.find_obstacle() is not None:
        return []
    words = [sys.executable, "-P", "-m", __name__, folder]
    processes = {}
    for part in missing:
        try:
            processes[part] = subprocess.Popen(  # noqa: S603
                [*words, part],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            break
    return [part for part, process in processes.items() if process.wait() == 0]


def compile_part(folder: str, part: str) -> bool:
    """Compile one part in this process; whether it is kept.

    Args:
        folder: see `native.keep_compiled`.
        part: of `PARTS`.
    """
    if not native.keep_compiled(folder):
        return False
    if part == "decoder":
        from llavachat_server.engine.native.steps import compile_kernels

        compile_kernels()
    else:
        from llavachat_server.engine.native.tower import compile_tower

        compile_tower()
    _find_mark(native.find_folder(folder), part).write_text(_describe_machine())
    return True


def _is_kept(own: Path, part: str) -> bool:
    try:
        return _find_mark(own, part).read_text() == _describe_machine()
    except OSError:
        return False


def _find_mark(own: Path, part: str) -> Path:
    return own / f"{part}.kept"


def _describe_machine() -> str:
    # What numba looks at before it takes code from the disk, without importing it.
    flags = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "flags", "Features"))
    ]
    about = "\n".join(sorted(set(flags)))
    return "\n".join(
        (
            importlib.metadata.version("numba"),
            sys.version,
            hashlib.sha256(about.encode()).hexdigest(),
        )
    )


if __name__ == "__main__":
    sys.exit(not compile_part(sys.argv[1], sys.argv[2]))
