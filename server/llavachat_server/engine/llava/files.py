"""A checkpoint's files of weights: which they are, and the names in them.

Matrices stay in the mapped files until somebody needs them otherwise: the system may take their
pages back. It knows no torch.
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

INDEX_NAME, WEIGHTS_NAME = "model.safetensors.index.json", "model.safetensors"

_RENAMED = (
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "language_model."),
    ("vision_tower.vision_model.", "vision_tower."),
)
"""From the hub's layout to transformers 5's, which is this one's, less its first "model."."""

_LENGTH_BYTES = 8
"""A file begins with its header's length, little-endian. Source: the format's own description, in
the safetensors repository."""
_KINDS: Mapping[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""Types of weights; NumPy has no bfloat16."""


class WeightsMissing(Exception):
    """A weight is not there, or has another shape."""


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    array: NDArray[Any]
    is_bfloat16: bool


class ArrayWeights:
    """Weights of one checkpoint as NumPy's arrays, each to be taken by its name.

    Args:
        stored: by `rename`d names.
    """

    def __init__(self, stored: Mapping[str, _Stored]) -> None:
        self._stored = stored

    def take(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A weight in float32, as it lies in its file where that is its type; not to be written to.

        Args:
            name: of the weight.
            shape: that it must have.

        Raises:
            WeightsMissing: it is not there, or has another shape.
        """
        stored = self._stored.get(name)
        if stored is None or stored.array.shape != shape:
            raise WeightsMissing(name)
        if stored.is_bfloat16:
            # The upper half of a float32's bits.
            return (stored.array.astype(np.uint32) << 16).view(np.float32)
        return stored.array.astype(np.float32, copy=False)

    def has(self, name: str) -> bool:
        """Whether a weight is there."""
        return name in self._stored


def map_weights(folder: Path) -> ArrayWeights:
    """Map the weights' files.

    Args:
        folder: of the checkpoint.

    Raises:
        WeightsMissing: no file has the name that transformers gives it.
        OSError, ValueError, safetensors.SafetensorError: a file can not be read.
    """
    stored = {}
    for path in list_files(folder):
        for name, weight in _map_file(path).items():
            stored[rename(name)] = weight
    return ArrayWeights(stored)


def rename(name: str) -> str:
    """A weight's name here, from the hub's layout or transformers 5's."""
    name = name.removeprefix("model.")
    for there, here in _RENAMED:
        if name.startswith(there):
            return here + name.removeprefix(there)
    return name


def list_files(folder: Path) -> list[Path]:
    """The files of a checkpoint's weights.

    Raises:
        WeightsMissing: no file has the name that transformers gives it.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    if not (folder / INDEX_NAME).is_file():
        raise WeightsMissing(WEIGHTS_NAME)
    names = json.loads((folder / INDEX_NAME).read_text("utf-8"))["weight_map"].values()
    # A name is a file's beside the index, whatever an index says.
    return [folder / Path(str(name)).name for name in sorted(set(names))]


def _map_file(path: Path) -> dict[str, _Stored]:
    # The library looks at the header as a whole; what it hands to NumPy it copies first.
    with safe_open(path, framework="numpy"):
        pass
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = _LENGTH_BYTES + int.from_bytes(mapped[:_LENGTH_BYTES], "little")
    header = json.loads(mapped[_LENGTH_BYTES:start])
    found = {}
    for name, entry in header.items():
        kind = None if name == "__metadata__" else _KINDS.get(entry["dtype"])
        if kind is None:
            continue
        begin, end = entry["data_offsets"]
        count = (end - begin) // np.dtype(kind).itemsize
        array = np.frombuffer(mapped, kind, count, start + begin).reshape(entry["shape"])
        found[name] = _Stored(array, entry["dtype"] == "BF16")
    return found
