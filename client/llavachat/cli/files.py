"""A file that is written whole or not at all."""

import secrets
import stat
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write a file; what was there stays until all of the new one is on the disk.

    It keeps its mode, and a link to it stays a link. What is no regular file (a pipe, a
    terminal) is written to as it is.

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
        with part.open("xb") as file:
            if mode is not None:
                part.chmod(stat.S_IMODE(mode))
            file.write(data)
        part.replace(target)
    except BaseException:  # Ctrl-C among them
        part.unlink(missing_ok=True)
        raise


def _find_mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
