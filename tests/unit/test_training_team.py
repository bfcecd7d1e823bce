"""Processes that train together end each step with the same parameters, as one process would."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training.optimiser import Optimiser
from training.team import Team, run_team

ROWS = 4


def make_parameters() -> list[tuple[str, nn.Parameter]]:
    """Three matrices of one shape, which two processes cannot share evenly, and a bias."""
    torch.manual_seed(3)
    named = [(f"matrix{index}", nn.Parameter(torch.randn(8, 6))) for index in range(3)]
    return [*named, ("bias", nn.Parameter(torch.randn(8)))]


def step_twice(team: Team, folder: Path) -> None:
    """Two steps on this process's rows of a batch of four; the parameters go to a file."""
    named = make_parameters()
    optimiser = Optimiser(named, matrix_rate=0.1, other_rate=0.1, team=team)
    inputs = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(5))
    for _ in range(2):
        rows = team.share_rows(ROWS)
        outputs = inputs[list(rows)]
        total = sum((outputs @ matrix.T + named[3][1]).square().mean() for _, matrix in named[:3])
        for _, parameter in named:
            parameter.grad = None
        total.backward()
        optimiser.step(1.0)
    torch.save([parameter.detach() for _, parameter in named], folder / f"{team.size}-{team.rank}")


def fail_second(team: Team) -> None:
    """The second process breaks; the first waits for it."""
    if team.rank == 1:
        raise ValueError("broken on purpose")
    team.add_up(torch.zeros(1))


def add_up_often(team: Team, folder: Path) -> None:
    """Three sums, each longer than what is exchanged at a time; they go to a file."""
    sums = []
    for turn in range(3):
        numbers = torch.arange(2**21 + 5, dtype=torch.float32) * (team.rank + 1) + turn
        team.add_up(numbers)
        sums.append(numbers)
    torch.save(sums, folder / str(team.rank))


def run_team_elsewhere(size: int, work: Callable[..., None], *arguments: Any) -> None:
    """In a process that has computed no gradients: see `run_team`."""
    process = multiprocessing.get_context("spawn").Process(
        target=run_team, args=(size, work, *arguments)
    )
    process.start()
    process.join()
    assert 0 == process.exitcode


def test_every_process_gets_every_sum(tmp_path: Path) -> None:
    """Nobody overwrites what another has yet to read, in sums of many parts.

    Nor does anybody wait for the threads that this process had.
    """
    torch.rand(2**22).add_(1)
    run_team(3, add_up_often, tmp_path)
    expected = [torch.arange(2**21 + 5, dtype=torch.float32) * 6 + 3 * turn for turn in range(3)]
    for rank in range(3):
        for one, other in zip(expected, torch.load(tmp_path / str(rank)), strict=True):
            assert torch.equal(one, other)


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Both end with the same bits, and with one process's parameters but for rounding."""
    run_team_elsewhere(2, step_twice, tmp_path)
    run_team(1, step_twice, tmp_path)
    alone, first, second = (torch.load(tmp_path / name) for name in ("1-0", "2-0", "2-1"))
    for expected, one, other in zip(alone, first, second, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, expected, rtol=0, atol=2e-3)


def test_rows_are_shared_out() -> None:
    """Every row of a batch is somebody's, and nobody's twice."""
    shares = [list(Team(rank, 3).share_rows(7)) for rank in range(3)]
    assert [[0, 3, 6], [1, 4], [2, 5]] == shares


def test_a_broken_process_ends_the_run() -> None:
    """The others are not left waiting."""
    with pytest.raises(RuntimeError, match="a training process ended"):
        run_team(2, fail_second)


def test_a_team_without_an_exchange_adds_nothing_up() -> None:
    """Rather than train on its own share as if that were the whole batch."""
    with pytest.raises(RuntimeError, match="2 processes, and no exchange between them"):
        Team(0, 2).add_up(torch.zeros(1))
