"""Numbers of a step on their way from the host to where a recorded graph reads them."""

import torch
from torch import Tensor

Part = tuple[torch.dtype, tuple[int, ...]]


class Staging:
    """Some tensors side by side, written on the host and sent in one copy.

    Copies of their own would each be waited for: from memory that the system may move, the driver
    copies by way of its own, and the host goes on when that is done.

    Args:
        device: where they are read.
        parts: type and shape of each; each begins at a whole 8 bytes.
    """

    def __init__(self, device: torch.device, *parts: Part) -> None:
        sizes = [
            dtype.itemsize * torch.Size(shape).numel() + torch.int64.itemsize - 1
            for dtype, shape in parts
        ]
        words = [size // torch.int64.itemsize for size in sizes]
        on_gpu = device.type == "cuda"
        self._host = torch.zeros(sum(words), dtype=torch.int64, pin_memory=on_gpu)
        self._device = torch.zeros(sum(words), dtype=torch.int64, device=device)
        self._sent = torch.cuda.Event() if on_gpu else None
        self.host = _split(self._host, words, parts)
        """Written between `begin` and `send`."""
        self.device = _split(self._device, words, parts)
        """What was sent last, behind all that was asked of the device before."""

    def begin(self) -> None:
        """Wait until what was sent last has left the host.

        It has, where tokens are drawn: each step's are read back on the same stream, behind this
        copy, before the next one begins. Only of a step that failed in between nobody knows.
        """
        if self._sent is not None:
            self._sent.synchronize()

    def send(self) -> None:
        """Copy all of it, without a wait."""
        self._device.copy_(self._host, non_blocking=True)
        if self._sent is not None:
            self._sent.record()


def _split(memory: Tensor, words: list[int], parts: tuple[Part, ...]) -> list[Tensor]:
    return [
        piece.view(dtype)[: torch.Size(shape).numel()].view(shape)
        for piece, (dtype, shape) in zip(torch.split(memory, words), parts, strict=True)
    ]
