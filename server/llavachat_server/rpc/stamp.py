"""By what a file is known to have changed, without reading it."""

from pathlib import Path

Stamp = tuple[int, int, int]


def read_stamp(path: Path) -> Stamp | None:
    """Another one for another content; None where there is no file, or none that may be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
