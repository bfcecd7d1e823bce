"""Where the server keeps its things, by its settings and by what systemd gives it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path, user_state_path

if TYPE_CHECKING:
    from llavachat_server.settings import Settings

KEYS_NAME = "keys"
"""The file of keys in the state folder."""


def is_file(path: Path) -> bool:
    """Whether there is such a file, as far as this process may know."""
    try:
        return path.is_file()
    except OSError:
        # Python 3.11 raises where a folder can not be entered, or a name is too long.
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, as far as this process may know."""
    try:
        return path.is_dir()
    except OSError:
        return False


def expand(path: Path) -> Path:
    """The path with the user's home folder for a ``~``, as a shell has it; a file has no shell."""
    try:
        return path.expanduser()
    except RuntimeError:
        # Nobody knows of a home; it will be said that there is no such file.
        return path


def find_state_folder(settings: "Settings") -> Path:
    """Where the server keeps what must outlast it: systemd's StateDirectory= where there is one."""
    if settings.state_folder is not None:
        return settings.state_folder
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else user_state_path("llavachat")


def find_quantized_folder(settings: "Settings") -> Path:
    """Where quantised weights are kept: in systemd's CacheDirectory= where there is one."""
    if settings.quantized_folder is not None:
        return settings.quantized_folder
    given = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    return (Path(given) if given else user_cache_path("llavachat")) / "quantized"


def find_keys_files(settings: "Settings") -> tuple[Path, ...]:
    """Where keys may be: the file that was named, and the one that ``keys add`` writes."""
    kept = find_state_folder(settings) / KEYS_NAME
    return (kept,) if settings.keys_file is None else (settings.keys_file, kept)
