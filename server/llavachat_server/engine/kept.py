"""What is made of a checkpoint's weights, read from its kept copy where that is right."""

import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.progress import Progress, stage
from llavachat_server.engine.shelf import Shelf

T = TypeVar("T")

_LOG = logging.getLogger("llavachat.engine")


class CopyUnreadable(Exception):
    """A copy's files do not give what they should; says why."""


@dataclass(frozen=True, slots=True)
class Recipe(Generic[T]):
    """How something is made of a checkpoint, kept and read again.

    Args:
        kind: see `Shelf`.
        form: see `Shelf.find`.
        make: makes it from the checkpoint.
        read: reads it from a copy's folder; raises `CopyUnreadable` where the files are to blame,
            and anything else where making it anew would fail as well.
        write: writes it into a copy's folder.
        count_bytes: how large a copy is, about.
        min_bytes: smaller ones are not kept.
    """

    kind: str
    form: Mapping[str, Any]
    make: Callable[[], T]
    read: Callable[[Path], T]
    write: Callable[[T, Path], None]
    count_bytes: Callable[[T], int]
    min_bytes: int = 0


def read_by_copy(
    recipe: Recipe[T],
    source: Path,
    shelf: Shelf | None,
    fingerprint: Fingerprint,
    progress: Progress,
) -> tuple[T, str]:
    """Read a kept copy, or make it and keep one.

    Args:
        recipe: of what.
        source: the checkpoint's folder.
        shelf: where copies are kept; None: nowhere.
        fingerprint: of the source, by the copy that is on the shelf.
        progress: told about the stages "weights" and "fingerprint", and "copy" where one is
            written.

    Returns:
        It, and the hash of the checkpoint's weights.
    """
    copy = fingerprint.copy
    # The files are hashed meanwhile: reading them twice at once costs one reading.
    if copy is not None and shelf is not None:
        found: T | None = None
        why = ""
        with stage("weights", progress):
            try:
                found = recipe.read(copy.folder)
            except CopyUnreadable as error:
                # Not the exception itself, which holds what was half read.
                why = str(error)
        with stage("fingerprint", progress):
            is_whole = fingerprint.has_whole_copy()
        # Another server may have put its own model's in this place between hashing and reading.
        is_same = shelf.find(recipe.kind, source, recipe.form) == copy
        if found is not None and is_whole and is_same:
            return found, fingerprint.result()
        # Two of them at once may not fit. bitsandbytes' nf4 weights and layers refer to each other:
        # only the collector lets go of them, and it is off at a start.
        del found
        gc.collect()
        if is_same and is_whole:
            # Its bytes are what was written: what stays until its successor is whole is no damage.
            fields = {"kind": recipe.kind, "folder": str(copy.folder), "error": why}
            _LOG.warning("copy of the weights not read", extra={"fields": fields})
        elif is_same:
            shelf.discard(copy)
    with stage("weights", progress):
        made = recipe.make()
    with stage("fingerprint", progress):
        weights_sha256 = fingerprint.result()
    num_bytes = recipe.count_bytes(made)
    if shelf is not None and num_bytes >= recipe.min_bytes:
        with stage("copy", progress):
            shelf.keep(
                recipe.kind,
                source,
                recipe.form,
                weights_sha256,
                num_bytes,
                lambda folder: recipe.write(made, folder),
            )
    return made, weights_sha256
