"""The memory of keys and values, laid out as the kernels read it."""

import mmap

import numpy as np
from numpy.typing import NDArray

from llavachat_server.engine.batching.sizing import Shape
from llavachat_server.engine.native.plan import LANES


class Cache:
    """Keys and values of all layers; see `plan.Buffers`.

    Args:
        shape: of the model.
        num_blocks: of the cache.
        block_tokens: tokens of a block; whole panels.

    Raises:
        MemoryError: it does not fit.
    """

    def __init__(self, shape: Shape, num_blocks: int, block_tokens: int) -> None:
        if block_tokens % LANES:
            raise ValueError(f"a block must be whole panels of {LANES} tokens")
        self.block_tokens = block_tokens
        self.num_slots = num_blocks * block_tokens
        self._block_numbers = block_tokens * shape.head_dim
        size = 2 * shape.num_layers * shape.num_kv_heads * self.num_slots * shape.head_dim
        try:
            # The system gives pages when they are first written to. NumPy asks for such of 2 MB,
            # and the first tokens, which write a little for each head, would bring all of them.
            memory = mmap.mmap(-1, size * np.dtype(np.float32).itemsize, mmap.MAP_PRIVATE)
        except OSError as error:
            raise MemoryError from error
        self.memory: NDArray[np.float32] = np.frombuffer(memory, np.float32)

    def copy(self, source: int, target: int) -> None:
        """Copy a block: a panel of keys holds a number of each of its tokens side by side."""
        blocks = self.memory.reshape(-1, self.num_slots // self.block_tokens, self._block_numbers)
        blocks[:, target] = blocks[:, source]
