"""The kernels for a CPU, compiled once for all tests: it takes many seconds of computing."""

import fcntl
import subprocess
import sys
from pathlib import Path

from llavachat_server.engine import native
from llavachat_server.engine.native import apart

_COMPILE = """
import sys
from llavachat_server.engine import native
native.keep_compiled(sys.argv[1])
from llavachat_server.engine.native import steps, tower
steps.compile_kernels()
tower.compile_tower()
"""


def compile_in_a_process(folder: Path) -> None:
    """Read the kernels in a folder, or compile them where they are not there, and end."""
    subprocess.run([sys.executable, "-c", _COMPILE, str(folder)], check=True, timeout=300)


def share_kernels(folder: Path) -> Path:
    """Have this process read the kernels in a folder, unless it has compiled its own.

    They are compiled when the folder is not there; whoever asks meanwhile waits.
    """
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            assert list(apart.PARTS) == apart.compile_apart(str(folder))
    native.keep_compiled(str(folder))
    return folder
