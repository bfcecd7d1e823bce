"""Muon for weight matrices, AdamW for everything else.

Source: Muon as described by Keller Jordan (momentum orthogonalised by five Newton-Schulz steps);
the coefficients are his.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from training.network import COMPUTE_DTYPE
from training.team import ALONE, Team

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class Muon:
    """Orthogonalised momentum; matrices of one shape are stepped in one batch.

    Args:
        parameters: matrices only.
        learning_rate: at schedule 1.0.
        momentum: Nesterov momentum.
        weight_decay: decoupled, multiplied by the learning rate.
        team: shares the work out; all must step with the same gradients.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        team: Team = ALONE,
    ) -> None:
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self._team = team
        groups: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            groups[tuple(parameter.shape)].append(parameter)
        self._groups = list(groups.values())
        self._buffers = [torch.zeros(len(group), *group[0].shape) for group in self._groups]

    @torch.no_grad()
    def step(self, schedule: float) -> None:
        """Apply the gradients, with the learning rate times ``schedule``."""
        rate = self.learning_rate * schedule
        # All updates in one flat tensor, so that a team exchanges them at once.
        flat = torch.zeros(sum(buffer.numel() for buffer in self._buffers))
        parts = flat.split([buffer.numel() for buffer in self._buffers])
        mine = slice(self._team.rank, None, self._team.size)
        for group, buffer, part in zip(self._groups, self._buffers, parts, strict=True):
            gradients = torch.stack([_gradient(parameter) for parameter in group])
            buffer.lerp_(gradients, 1 - self.momentum)
            if len(share := gradients.lerp(buffer, self.momentum)[mine]):
                part.view_as(buffer)[mine] = _orthogonalise(share)
        self._team.add_up(flat)
        for group, buffer, part in zip(self._groups, self._buffers, parts, strict=True):
            updates = part.view_as(buffer)
            rows, columns = group[0].shape
            scale = rate * max(1.0, rows / columns) ** 0.5
            for parameter, update in zip(group, updates, strict=True):
                parameter.mul_(1 - rate * self.weight_decay)
                parameter.add_(update, alpha=-scale)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"buffers": self._buffers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state of the same parameters."""
        self._buffers = state["buffers"]


class Optimiser:
    """Splits named parameters between Muon and AdamW and steps both.

    Args:
        named: parameters by name; those whose gradient is never set are left alone.
        matrix_rate: Muon's learning rate.
        other_rate: AdamW's learning rate, for embeddings, heads, biases and norms.
        matrix_decay: Muon's weight decay. Small batches make Muon walk at random in directions
            that mean nothing; decay makes it forget those.
        rate_scales: name prefix to a factor on both rates, and on the decay: what learns slowly
            forgets slowly.
        team: whose gradients are averaged before each step.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        matrix_rate: float,
        other_rate: float,
        matrix_decay: float = 0.01,
        rate_scales: dict[str, float] | None = None,
        team: Team = ALONE,
    ) -> None:
        named = list(named)
        self._team = team
        self._parameters = [parameter for _, parameter in named]
        matrices: dict[float, list[nn.Parameter]] = defaultdict(list)
        others: dict[float, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in named:
            scale = next(
                (s for prefix, s in (rate_scales or {}).items() if name.startswith(prefix)), 1.0
            )
            is_table = "embed" in name or "head" in name
            (others if parameter.ndim != 2 or is_table else matrices)[scale].append(parameter)
        self._muons = [
            Muon(group, matrix_rate * scale, weight_decay=matrix_decay * scale, team=team)
            for scale, group in matrices.items()
        ]
        self._adam = torch.optim.AdamW(
            [{"params": group, "base": other_rate * scale} for scale, group in others.items()],
            lr=other_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            foreach=True,
        )

    def step(self, schedule: float) -> None:
        """Apply the team's mean gradients, with every learning rate times ``schedule``."""
        self._team.average_gradients(self._parameters)
        for muon in self._muons:
            muon.step(schedule)
        for group in self._adam.param_groups:
            group["lr"] = group["base"] * schedule
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {
            "muons": [muon.state_dict() for muon in self._muons],
            "adam": self._adam.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state of the same parameters."""
        for muon, saved in zip(self._muons, state["muons"], strict=True):
            muon.load_state_dict(saved)
        self._adam.load_state_dict(state["adam"])


def schedule_rate(step: int, num_steps: int, warmup: int, decay_part: float) -> float:
    """Warm up linearly, stay at 1, decay linearly to almost nothing.

    Args:
        step: from 0.
        num_steps: of the whole stage.
        warmup: steps.
        decay_part: the last part of the stage, 0 to 1, over which the rate falls.
    """
    rising = (step + 1) / warmup
    falling = (num_steps - step) / max(1.0, num_steps * decay_part)
    return max(0.01, min(1.0, rising, falling))


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _orthogonalise(matrices: Tensor) -> Tensor:
    # (batch, rows, columns); the iteration only has to be roughly right.
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(COMPUTE_DTYPE)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = (x.mT if tall else x).float()
    return result
