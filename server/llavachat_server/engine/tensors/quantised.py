"""A checkpoint's quantised weights, kept on disk for the next start.

Quantising reads the whole checkpoint, twice to four times as large as what comes of it. A copy of
what came of it is written once and read from then on, with the memory and the time of its own
size. A copy is used only while its source, the libraries and its own bytes are what they were.
"""

import errno
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

_LOG = logging.getLogger("llavachat.engine")
_MANIFEST = "copy.json"
_FORMAT = 1
_SHARD_BYTES = 2 * 1024**3
"""Bounds the host memory that writing takes: one file's worth is gathered at a time."""
_SPARE_PART = 0.25
"""Of a copy's size, left free beside it."""
_SOURCE_FILES = ("*.safetensors", "*.json")


@dataclass(frozen=True, slots=True)
class CopyForm:
    """What a copy's bytes depend on besides its source.

    Args:
        quantization: the form's name.
        int8_threshold: see `EngineSettings`; the copy's configuration holds it.
        dtype: of what is not quantised.
        libraries: releases of those that quantise and write, by name.
    """

    quantization: str
    int8_threshold: float
    dtype: str
    libraries: dict[str, str]


@dataclass(frozen=True, slots=True)
class QuantisedCopy:
    """A copy that fits by its manifest; `is_whole` says whether its bytes do too.

    `weights_sha256` is its source's, as `fingerprint.hash_weights` gave it.
    """

    folder: Path
    weights_sha256: str
    file_hashes: dict[str, str]

    def is_whole(self) -> bool:
        """Read every byte, and compare with what was written. Slow."""
        try:
            return self.file_hashes == _hash_files(self.folder)
        except OSError:
            return False


class CopyShelf:
    """One copy for each form of quantisation.

    Args:
        folder: is made when the first copy is kept. Whoever may write there decides what the
            model says: it belongs to the server alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, source: Path, form: CopyForm) -> QuantisedCopy | None:
        """The copy of a checkpoint, if there is one that fits.

        Args:
            source: the checkpoint's folder.
            form: what the copy must be like.
        """
        folder = self._folder / form.quantization
        try:
            manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
            wanted = _describe(source, form)
        except (OSError, ValueError):
            return None
        if not isinstance(manifest, dict) or manifest.get("about") != wanted:
            return None
        return QuantisedCopy(folder, str(manifest["weights_sha256"]), dict(manifest["files"]))

    def keep(
        self,
        model: "LlavaForConditionalGeneration",
        source: Path,
        form: CopyForm,
        weights_sha256: str,
    ) -> bool:
        """Write a copy in place of the last one of that form.

        A disk that is full or may not be written to costs the copy and nothing else.

        Args:
            model: as it was quantised from ``source``.
            source: the checkpoint's folder.
            form: what the copy is like.
            weights_sha256: the source's.

        Returns:
            Whether it was kept.
        """
        place = self._folder / form.quantization
        staging = self._folder / f".{form.quantization}-{uuid.uuid4().hex}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _check_room(model, self._folder)
            for left in self._folder.glob(f".{form.quantization}-*"):
                shutil.rmtree(left, ignore_errors=True)
            save: Any = model.save_pretrained
            save(staging, max_shard_size=_SHARD_BYTES)
            manifest = {
                "about": _describe(source, form),
                "weights_sha256": weights_sha256,
                "files": _hash_files(staging),
            }
            (staging / _MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
            shutil.rmtree(place, ignore_errors=True)
            staging.rename(place)
        except Exception as error:
            # Whatever the libraries raise here, the model in memory is whole.
            shutil.rmtree(staging, ignore_errors=True)
            _LOG.warning(
                "quantised copy not kept",
                extra={"fields": {"folder": str(self._folder), "error": type(error).__name__}},
            )
            return False
        return True

    def discard(self, copy: QuantisedCopy) -> None:
        """Remove a copy that is not what was written."""
        _LOG.warning("quantised copy damaged", extra={"fields": {"folder": str(copy.folder)}})
        shutil.rmtree(copy.folder, ignore_errors=True)


def _check_room(model: "LlavaForConditionalGeneration", folder: Path) -> None:
    # Others need the disk, too: a copy is not begun that would fill it.
    num_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if shutil.disk_usage(folder).free < num_bytes * (1 + _SPARE_PART):
        raise OSError(errno.ENOSPC, "no room for a quantised copy")


def _describe(source: Path, form: CopyForm) -> dict[str, Any]:
    # By size and time, as backups do: hashing would read the whole that a copy spares.
    files = [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for pattern in _SOURCE_FILES
        for path in sorted(source.glob(pattern))
    ]
    return {
        "format": _FORMAT,
        "source": files,
        "quantization": form.quantization,
        "int8_threshold": form.int8_threshold,
        "dtype": form.dtype,
        "libraries": dict(sorted(form.libraries.items())),
    }


def _hash_files(folder: Path) -> dict[str, str]:
    return {path.name: _hash_file(path) for path in _list_files(folder)}


def _list_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.name != _MANIFEST)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
