"""A file that is written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def draft_of(path: Path, mode: int = 0o600, *, is_lasting: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends.

    Whoever reads `path` finds what was there before, or all of what is new. Where the block or a
    disk fails, the folder is as it was.

    Args:
        path: of the file; its folder is there.
        mode: nobody can ever read more of it than this says.
        is_lasting: it is on the disk before it takes its place, so that a power cut leaves the one
            or the other. False for what can be made again.

    Raises:
        OSError: it can not be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            if is_lasting:
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:  # Ctrl-C among them
        draft.unlink(missing_ok=True)
        raise
