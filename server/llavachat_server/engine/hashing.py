"""SHA-256 of large files; it imports next to nothing."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_READ_BYTES = 16 * 1024**2
"""At a time: between two reads the thread takes Python's lock from who imports modules."""


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over some files, one after another; for a single one it is the file's own.

    Raises:
        OSError: one can not be read.
    """
    digest, block = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while num_bytes := file.readinto(block):
                digest.update(block[:num_bytes])
    return digest.hexdigest()
