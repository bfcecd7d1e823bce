"""SHA-256 of large files; it imports next to nothing."""

import hashlib
import mmap
from collections.abc import Iterable
from pathlib import Path


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over some files, one after another; for a single one it is the file's own.

    Raises:
        OSError: one can not be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            if not path.stat().st_size:
                continue
            # In one call, which leaves Python's lock to who imports modules meanwhile, and without
            # memory of its own.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                content.madvise(mmap.MADV_SEQUENTIAL)
                digest.update(content)
    return digest.hexdigest()
