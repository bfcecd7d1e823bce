"""Which copy of packed weights fits a checkpoint and the kernels.

It is looked for before anything else is imported, so it stays out of `native`, which needs NumPy.
"""

import hashlib
from pathlib import Path

from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.shelf import Shelf

KIND = "packed"

MIN_COPY_BYTES = 32 * 1024**2
"""Below this, packing takes some milliseconds, and a copy would be one thing more on a disk."""

_SOURCES = ("native/weights.py", "native/packed.py", "native/plan.py", "llava/files.py")
"""What a copy's bytes come from."""


def describe_form() -> dict[str, str]:
    """What a copy's bytes depend on besides the checkpoint."""
    own = Path(__file__).parent
    content = b"".join((own / name).read_bytes() for name in _SOURCES)
    return {"packing": hashlib.sha256(content).hexdigest()}


def begin_fingerprint(folder: Path, shelf: Shelf | None) -> Fingerprint:
    """Begin to hash a checkpoint's packed copy, where there is one that fits, or the checkpoint.

    Args:
        folder: of the checkpoint.
        shelf: may hold a copy.
    """
    copy = None if shelf is None else shelf.find(KIND, folder, describe_form())
    return Fingerprint(folder, copy)
