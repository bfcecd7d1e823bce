"""The kernels for a CPU, compiled once for all tests: it takes many seconds of computing."""

import fcntl
from pathlib import Path

from llavachat_server.engine.native.apart import Kernels, get_kernels


def share_kernels(folder: Path) -> Kernels:
    """The kernels that are kept in a folder, compiled where they are not there.

    Whoever asks meanwhile waits.
    """
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return get_kernels(str(folder))
