"""What became of a checkpoint's weights, kept on disk for the next start.

Quantising reads the whole checkpoint, twice to four times as large as what comes of it, and putting
it into another order takes memory that the system must find first. A copy of what came of it is
written once and read from then on. It is used only while its source, what it was made by and its
own bytes are what they were.
"""

import errno
import fcntl
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavachat_server.engine.hashing import hash_files
from llavachat_server.engine.shortage import is_shortage

_LOG = logging.getLogger("llavachat.engine")
_MANIFEST = "copy.json"
_FORMAT = 2
_SPARE_PART = 0.25
"""Of a copy's size, left free beside it."""
_SOURCE_FILES = ("*.safetensors", "*.json")
_HUB_CONTENTS = "blobs"
"""Source: "Understand caching" in the documentation of huggingface_hub."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that fits by its manifest; `is_whole` says whether its bytes do too.

    `weights_sha256` is its source's, as `fingerprint.hash_weights` gave it.
    """

    folder: Path
    weights_sha256: str
    file_hashes: dict[str, str]

    def hold(self) -> None:
        """Let other servers know, until this process ends, that it is in use."""
        with suppress(OSError):
            _lock(self.folder)

    def is_whole(self) -> bool:
        """Read every byte, and compare with what was written. Slow.

        Raises:
            OSError: there is no handle or memory left to read it, which says nothing of the copy.
        """
        try:
            return self.file_hashes == _hash_each(self.folder)
        except OSError as error:
            if is_shortage(error):
                raise
            return False


class Shelf:
    """One copy of each kind.

    Args:
        folder: is made when the first copy is kept. Whoever may write there decides what the
            model says: it belongs to the server alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, kind: str, source: Path, form: Mapping[str, Any]) -> Copy | None:
        """The copy of a checkpoint, if there is one that fits.

        Args:
            kind: its place on the shelf.
            source: the checkpoint's folder.
            form: what a copy's bytes depend on besides its source; JSON.
        """
        folder = self._folder / kind
        try:
            manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
            wanted = _describe(source, form)
        except (OSError, ValueError):
            return None
        if not isinstance(manifest, dict) or manifest.get("about") != wanted:
            return None
        return Copy(folder, str(manifest["weights_sha256"]), dict(manifest["files"]))

    def keep(
        self,
        kind: str,
        source: Path,
        form: Mapping[str, Any],
        weights_sha256: str,
        num_bytes: int,
        write: Callable[[Path], None],
    ) -> bool:
        """Write a copy in place of the last one of its kind.

        That one goes when this one is whole, or before, where there is not room for both and
        nobody uses it or would find it by this form. A disk that is full or may not be written to
        costs the copy and nothing else.

        Args:
            kind: its place on the shelf.
            source: the checkpoint's folder.
            form: see `find`.
            weights_sha256: the source's.
            num_bytes: of the copy, about.
            write: writes its files into a folder.

        Returns:
            Whether it was kept.
        """
        place = self._folder / kind
        staging = self._folder / f".{kind}-{uuid.uuid4().hex}"
        lock = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob(f".{kind}-*"):
                # A server was ended while it wrote. Another may be writing just now.
                _remove_unused(left)
            self._make_room(kind, source, form, num_bytes)
            staging.mkdir()
            with suppress(OSError):
                lock = _lock(staging)
            write(staging)
            manifest = {
                "about": _describe(source, form),
                "weights_sha256": weights_sha256,
                "files": _hash_each(staging),
            }
            (staging / _MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
            shutil.rmtree(place, ignore_errors=True)
            staging.rename(place)
        except Exception as error:
            # Whatever the libraries raise here, the model in memory is whole.
            shutil.rmtree(staging, ignore_errors=True)
            fields = {"kind": kind, "folder": str(self._folder), "error": type(error).__name__}
            _LOG.warning("copy of the weights not kept", extra={"fields": fields})
            return False
        finally:
            if lock is not None:
                os.close(lock)
        return True

    def discard(self, copy: Copy) -> None:
        """Remove a copy that is not what was written."""
        fields = {"kind": copy.folder.name, "folder": str(copy.folder)}
        _LOG.warning("copy of the weights damaged", extra={"fields": fields})
        shutil.rmtree(copy.folder, ignore_errors=True)

    def _make_room(self, kind: str, source: Path, form: Mapping[str, Any], num_bytes: int) -> None:
        # Others need the disk, too: a copy is not begun that would fill it.
        wanted = num_bytes * (1 + _SPARE_PART)
        missing = wanted - shutil.disk_usage(self._folder).free
        last = self._folder / kind
        if 0 < missing <= _count_bytes(last) and self.find(kind, source, form) is None:
            # Of other weights, or by other libraries: this copy is to replace it anyway.
            _remove_unused(last)
        if shutil.disk_usage(self._folder).free < wanted:
            raise OSError(errno.ENOSPC, "no room for a copy of the weights")


def _lock(folder: Path) -> int:
    # Of the folder itself: the lock stays through a new name, and ends with its process.
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _remove_unused(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        # In use; or nobody can tell, where a file system has no locks.
        return
    finally:
        os.close(handle)


def _count_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _describe(source: Path, form: Mapping[str, Any]) -> dict[str, Any]:
    files = [
        [path.name, path.stat().st_size, _tell_state(path)]
        for pattern in _SOURCE_FILES
        for path in sorted(source.glob(pattern))
    ]
    return {"format": _FORMAT, "source": files, **form}


def _tell_state(path: Path) -> str | int:
    # In the hub's cache a name leads to a file that is named by its content's hash, and whose time
    # is that of its download. Else by time, as backups do: hashing would read the whole that a
    # copy spares.
    content = path.resolve()
    if path.is_symlink() and content.parent.name == _HUB_CONTENTS:
        return content.name
    return path.stat().st_mtime_ns


def _hash_each(folder: Path) -> dict[str, str]:
    return {path.name: hash_files([path]) for path in _list_files(folder)}


def _list_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.name != _MANIFEST)
