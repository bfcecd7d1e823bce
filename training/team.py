"""Training side by side: each process takes its share of every batch, gradients are averaged.

On a CPU this is quicker than threads: two processes wait for each other a few times a step, two
threads hundreds of times. Every process ends a step with the same parameters, bit for bit.
"""

import mmap
import multiprocessing
import multiprocessing.connection
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor, nn

_PATIENCE_SECONDS = 30 * 60
"""How long one process waits for another: a machine may be suspended in between."""
_EXCHANGE_NUMBERS = 2**20
"""As many float32 go through shared memory at a time: 4 MB a process stay in the cache."""

_CONTEXT = multiprocessing.get_context("fork")


class Exchange:
    """Memory that the processes of a run share, to add up tensors in; made before they fork.

    A sum takes one meeting, since two halves are used in turn: nobody writes a half again before
    everybody has been at the next meeting, thus has read it.
    """

    def __init__(self, size: int) -> None:
        memory = mmap.mmap(-1, 2 * size * _EXCHANGE_NUMBERS * 4)
        self._halves = torch.frombuffer(memory, dtype=torch.float32).view(
            2, size, _EXCHANGE_NUMBERS
        )
        self._meeting = _CONTEXT.Barrier(size)
        self._half = 0

    def add_up(self, rank: int, tensor: Tensor) -> None:
        """Make a float32 tensor the sum of all processes' tensors, in place."""
        for part in tensor.view(-1).split(_EXCHANGE_NUMBERS):
            shares = self._halves[self._half, :, : part.numel()]
            shares[rank].copy_(part)
            self._meeting.wait(_PATIENCE_SECONDS)
            # In the order of ranks, so that everybody gets the same last digit.
            part.copy_(shares[0])
            for share in shares[1:]:
                part.add_(share)
            self._half = 1 - self._half


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a run, and which of them this is.

    Attributes:
        rank: 0 to ``size`` - 1; 0 logs and saves.
        size: number of processes.
        exchange: of two and more, to add up with.
    """

    rank: int = 0
    size: int = 1
    exchange: Exchange | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this is the process that logs and saves."""
        return self.rank == 0

    def share_rows(self, num_rows: int) -> range:
        """The rows of a batch that are this process's."""
        return range(self.rank, num_rows, self.size)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the mean of all gradients; those never set count as 0."""
        if self.size == 1:
            return
        parameters = list(parameters)
        flat = torch.cat(
            [
                torch.zeros(parameter.numel())
                if parameter.grad is None
                else parameter.grad.view(-1)
                for parameter in parameters
            ]
        )
        self.add_up(flat)
        flat /= self.size
        for parameter, part in zip(
            parameters, flat.split([parameter.numel() for parameter in parameters]), strict=True
        ):
            parameter.grad = part.view_as(parameter)

    def add_up(self, tensor: Tensor) -> None:
        """Make a tensor the sum of all processes' tensors, in place.

        Raises:
            RuntimeError: there are others, and nothing to reach them by.
        """
        if self.size == 1:
            return
        if self.exchange is None:
            raise RuntimeError(f"{self.size} processes, and no exchange between them")
        self.exchange.add_up(self.rank, tensor)


ALONE = Team()
"""The team of a process that trains by itself."""


def run_team(size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(team, *arguments)`` in ``size`` processes, or in this one if that is 1.

    Of torch's builds with CUDA, no process that has computed gradients can be forked: its children
    could compute none. So a run's team is made before anything is learnt.

    Raises:
        RuntimeError: a process failed; the others were ended.
    """
    if size == 1:
        work(ALONE, *arguments)
        return
    exchange = Exchange(size)
    processes = [
        _CONTEXT.Process(target=_take_part, args=(Team(rank, size, exchange), work, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    waiting: dict[Any, BaseProcess] = {process.sentinel: process for process in processes}
    try:
        while waiting:
            for sentinel in multiprocessing.connection.wait(list(waiting)):
                ended = waiting.pop(sentinel)
                ended.join()
                if ended.exitcode:
                    raise RuntimeError(f"a training process ended with {ended.exitcode}")
    finally:
        for left in waiting.values():
            left.terminate()
            left.join()


def _take_part(team: Team, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # OpenMP's threads did not come along when the process was forked, and would be waited for.
    torch.set_num_threads(1)
    work(team, *arguments)
