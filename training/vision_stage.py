"""Stage 1: the vision tower alone, told for every patch what it shows.

Shape, colour, size *and the item's row and column*: a language model reads from features only
what they hold, and without row and column it cannot tell where a thing is.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from training.batches import (
    iterate_batches,
    make_vision_batch,
    normalise_pixels,
    save_atomically,
)
from training.network import COMPUTE_DTYPE, cast_weights, encode_images
from training.optimiser import Optimiser, schedule_rate
from training.rendering import NO_LABEL
from training.scenes import BACKGROUND_COLOURS, SHAPES, SIZES
from training.team import ALONE, Team

BATCH_SIZE = 64
_HEAD_WIDTHS = (len(SHAPES) + 1, len(BACKGROUND_COLOURS), len(SIZES), 3, 3)
_BACKGROUND_WEIGHT = 0.3
_SAVE_EVERY_SECONDS = 120

Log = Callable[[str], None]


def build_heads(hidden: int, seed: int) -> nn.Linear:
    """The patch classifier; thrown away after training."""
    torch.manual_seed(seed + 1)
    return nn.Linear(hidden, sum(_HEAD_WIDTHS))


def score_patches(heads: nn.Linear, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of the patch labels.

    Args:
        heads: see `build_heads`.
        features: (batch, patches, hidden).
        labels: (batch, 5, patches), see `training.rendering.label_patches`.

    Returns:
        The loss, and the accuracy of each of the 5 labels on patches that show an item.
    """
    logits = heads(features.float()).split(_HEAD_WIDTHS, -1)
    is_item = labels[:, 0] > 0
    weight = torch.where(is_item, 1.0, _BACKGROUND_WEIGHT)
    total = features.new_zeros((), dtype=torch.float32)
    hits = []
    for index, scores in enumerate(logits):
        target = labels[:, index]
        losses = F.cross_entropy(
            scores.transpose(1, 2), target, ignore_index=NO_LABEL, reduction="none"
        )
        total = total + (losses * weight).sum() / weight[target != NO_LABEL].sum().clamp(min=1)
        hits.append((scores.argmax(-1) == target)[is_item].float().mean())
    return total, torch.stack(hits).detach()


def train_vision(
    model: LlavaForConditionalGeneration,
    *,
    seed: int,
    num_steps: int,
    run_folder: Path,
    log: Log,
    team: Team = ALONE,
) -> nn.Linear:
    """Train the tower in place; goes on from ``run_folder`` if it was cut off.

    Returns:
        The patch classifier, for the joint stage to keep the tower honest with.
    """
    state_path = run_folder / "vision.pt"
    vision: Any = model.config.vision_config
    heads = build_heads(vision.hidden_size, seed)
    named = [
        *((n, p) for n, p in model.named_parameters() if n.startswith("model.vision_tower.")),
        *((f"head.{n}", p) for n, p in heads.named_parameters()),
    ]
    optimiser = Optimiser(named, matrix_rate=0.015, other_rate=3e-3, team=team)
    first_step, earlier_seconds = 0, 0.0
    if state_path.exists():
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        first_step, earlier_seconds = state["step"], state["seconds"]
    started = saved = time.monotonic()
    average = torch.zeros(5)

    def save(step: int) -> None:
        if not team.is_leader:
            return
        save_atomically(
            {
                "model": model.state_dict(),
                "heads": heads.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "seconds": earlier_seconds + time.monotonic() - started,
            },
            state_path,
        )

    make = functools.partial(make_vision_batch, seed)
    for step, (pixels, labels) in enumerate(
        iterate_batches(make, first_step, num_steps, team.share_rows(BATCH_SIZE)), first_step
    ):
        weights = cast_weights(model.model.vision_tower, COMPUTE_DTYPE)
        weights = {f"model.vision_tower.{name}": weight for name, weight in weights.items()}
        features = encode_images(weights, normalise_pixels(pixels), model.config)
        loss, hits = score_patches(heads, features, torch.from_numpy(labels))
        for _, parameter in named:
            parameter.grad = None
        loss.backward()
        optimiser.step(schedule_rate(step, num_steps, warmup=60, decay_part=0.4))
        average.lerp_(hits, 0.02 if step > 50 else 0.2)
        if step % 100 == 0 or step == num_steps - 1:
            rates = " ".join(f"{value:.3f}" for value in average.tolist())
            seconds = earlier_seconds + time.monotonic() - started
            log(f"vision step {step} loss {loss.item():.3f} accuracy {rates} {seconds:.0f} s")
        if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
            save(step + 1)
            saved = time.monotonic()
    if first_step < num_steps:
        save(num_steps)
    return heads


def fit_heads(
    model: LlavaForConditionalGeneration, *, seed: int, num_steps: int, log: Log, team: Team = ALONE
) -> nn.Linear:
    """Learn the patch classifier of a tower that is trained: a checkpoint does not hold it."""
    vision: Any = model.config.vision_config
    heads = build_heads(vision.hidden_size, seed)
    named = [(f"head.{name}", parameter) for name, parameter in heads.named_parameters()]
    optimiser = Optimiser(named, matrix_rate=0.0, other_rate=1e-2, team=team)
    with torch.no_grad():
        weights = cast_weights(model, COMPUTE_DTYPE)
    for step in range(num_steps):
        pixels, labels = make_vision_batch(seed, step, team.share_rows(BATCH_SIZE))
        with torch.no_grad():
            features = encode_images(weights, normalise_pixels(pixels), model.config)
        loss, hits = score_patches(heads, features, torch.from_numpy(labels))
        heads.zero_grad()
        loss.backward()
        optimiser.step(schedule_rate(step, num_steps, warmup=10, decay_part=0.5))
    rates = " ".join(f"{value:.3f}" for value in hits.tolist())
    log(f"patch classifier loss {loss.item():.3f} accuracy {rates}")
    return heads
