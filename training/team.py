"""Training side by side: each process takes its share of every batch, gradients are averaged.

On a CPU this is quicker than threads: two processes wait for each other once a step, two threads
hundreds of times. Every process ends a step with the same parameters, bit for bit.
"""

import multiprocessing
import multiprocessing.connection
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_PATIENCE = timedelta(minutes=30)
"""How long one process waits for another: a machine may be suspended in between."""


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a run, and which of them this is.

    Attributes:
        rank: 0 to ``size`` - 1; 0 logs and saves.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

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
        """Make a tensor the sum of all processes' tensors, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)


ALONE = Team()
"""The team of a process that trains by itself."""


def run_team(size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(team, *arguments)`` in ``size`` processes, or in this one if that is 1.

    Raises:
        RuntimeError: a process failed; the others were ended.
    """
    if size == 1:
        work(ALONE, *arguments)
        return
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        processes = [
            context.Process(target=_join_team, args=(Team(rank, size), meeting, work, arguments))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        waiting = {process.sentinel: process for process in processes}
        try:
            while waiting:
                for sentinel in multiprocessing.connection.wait(list(waiting)):
                    ended = waiting.pop(sentinel)
                    ended.join()
                    if ended.exitcode:
                        raise RuntimeError(f"a training process ended with {ended.exitcode}")
        finally:
            for process in waiting.values():
                process.terminate()
                process.join()


def _join_team(
    team: Team, meeting: Path, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=team.rank, world_size=team.size,
        timeout=_PATIENCE,
    )  # fmt: skip
    try:
        work(team, *arguments)
    finally:
        dist.destroy_process_group()
