"""A file that is written whole or not at all."""

import os
import secrets
import stat
from pathlib import Path


def replace_file(path: Path, data: bytes, *, is_private: bool = False) -> None:
    """Write a file; what was there stays until all of the new one is on the disk.

    It keeps its mode, and a link to it stays a link. What is no regular file (a pipe, a
    terminal) is written to as it is.

    Args:
        path: its folder is there.
        data: all of it.
        is_private: nobody but its owner may read it, whatever its mode was.

    Raises:
        OSError: it can not be written, and is as it was.
    """
    mode = _find_mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        path.write_bytes(data)
        return
    if mode is not None:
        # One that may not be written is not to be replaced either, which its folder would allow.
        path.open("ab").close()
    target = path.resolve()
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(part, flags, 0o600 if is_private else 0o666), "wb") as file:
            if mode is not None and not is_private:
                part.chmod(stat.S_IMODE(mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:  # Ctrl-C among them
        part.unlink(missing_ok=True)
        raise


def _find_mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
