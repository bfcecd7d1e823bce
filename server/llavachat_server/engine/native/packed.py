"""A checkpoint's weights in the kernels' order: made, written to files, and mapped from them.

Packing takes memory as large as the model, which the system must find first; a file's pages are
there already where a start was not long ago.
"""

import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llavachat_server.engine.llava.config import LlavaConfig
from llavachat_server.engine.llava.files import ArrayWeights
from llavachat_server.engine.native.weights import (
    Floats,
    TowerWeights,
    pack_decoder,
    pack_tower,
    take_words,
)


class Packed(NamedTuple):
    """All weights that the kernels read.

    Args:
        words: the input embedding, (vocabulary, hidden).
        panels: see `weights.pack_decoder`.
        tower: see `weights.pack_tower`.
    """

    words: Floats
    panels: Floats
    tower: TowerWeights

    @property
    def num_bytes(self) -> int:
        """Of all of them."""
        return sum(array.nbytes for _, array in _name_files(self))


def pack(weights: ArrayWeights, config: LlavaConfig) -> Packed:
    """Pack a checkpoint's weights, on two threads.

    Args:
        weights: of a checkpoint.
        config: of the same; see `weights.find_misfit`.

    Raises:
        WeightsMissing: a weight is not there, or has another shape.
    """
    with ThreadPoolExecutor(1, "tower") as pool:
        tower = pool.submit(pack_tower, weights, config)
        words = take_words(weights, config.text_config)
        return Packed(words, pack_decoder(weights, config), tower.result())


def write_packed(packed: Packed, folder: Path) -> None:
    """Write a file for each array.

    Raises:
        OSError: one can not be written.
    """
    for name, array in _name_files(packed):
        array.tofile(folder / name)


def map_packed(folder: Path, config: LlavaConfig) -> Packed:
    """Map what `write_packed` wrote.

    Args:
        folder: of the files.
        config: of the checkpoint that they were made from.

    Raises:
        OSError, ValueError: they are not there, or not whole.
    """
    text = config.text_config
    words, panels, *tower = (_map_file(folder / name) for name in _NAMES)
    words = words.reshape(text.vocab_size, text.hidden_size)
    return Packed(words, panels, TowerWeights(*tower))


_NAMES = ("words", "panels", "tower-panels", "tower-vectors", "tower-first-row")


def _name_files(packed: Packed) -> Iterator[tuple[str, Floats]]:
    return zip(_NAMES, (packed.words, packed.panels, *packed.tower), strict=True)


def _map_file(path: Path) -> Floats:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.float32)
