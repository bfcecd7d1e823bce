"""The second stage, and practice: the whole model on chats, patch labels at a small weight.

The tower learns slowly here: at a high rate chats teach it to forget shapes. Weight decay is high:
before it was raised the language model saw the right patches and misread what they held.
"""

import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from llavachat_server.engine.prompt import PromptBuilder
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import LlavaForConditionalGeneration

from training.batches import (
    iterate_batches,
    make_vision_batch,
    normalise_pixels,
    save_atomically,
    shrink_picture,
)
from training.dialogues import (
    IGNORED_LABEL,
    SPECIAL_TOKENS,
    encode_chat,
    sample_chat,
    sample_positions,
)
from training.gaze import GAZE_LAYER, NUM_GAZE_HEADS, find_gaze, score_gaze
from training.network import (
    COMPUTE_DTYPE,
    EMBEDDING_ROWS,
    IMAGE_TOKEN_ID,
    NUM_IMAGE_TOKENS,
    PAD_TOKEN_ID,
    Gaze,
    cast_weights,
    encode_images,
    project_features,
    read_text,
)
from training.optimiser import Optimiser, schedule_rate
from training.rendering import label_patches
from training.splitting import WordSplitter
from training.team import ALONE, Team
from training.vision_stage import Log, score_patches

BATCH_SIZE = 16
MAX_CHAT_TOKENS = 288
_MAX_CHAT_TURNS = 9
_LONG_CHAT_EVERY_STEPS = 16
_LONG_CHAT_FACTOR = 4
"""Now and then fewer chats, as many times longer: jumps between turns show the model every
position, but not a thousand tokens to look past."""
_VISION_LOSS_WEIGHT = 0.3
_GAZE_LOSS_WEIGHT = 0.2
_VERDICT_WEIGHT = 3.0
"""One word in thirty is a verdict, and it is the hardest."""
_VISION_RATE_SCALE = 0.15
_MATRIX_RATE = 0.0075
_MATRIX_DECAY = 0.2
"""By arithmetic they turn the matrices, once those have their final size, by the root of twice
their product: 0.055 rad a step. At twice of both (0.11 rad) the loss stood at 0.26 after 1,200
steps and that run was given up; with the same answers it stood at 0.16 at these."""
_SPLIT_CHATS = 0.5
"""The questions of the others stay as they are served."""
_SPLIT_RATE = 0.08
"""See `WordSplitter`."""
_SAVE_EVERY_SECONDS = 120


@dataclass(frozen=True, slots=True)
class ChatBatch:
    """Chats of equal length, and their pictures.

    Attributes:
        token_ids: (batch, tokens).
        labels: (batch, tokens), see `EncodedChat`.
        positions: (batch, tokens).
        pixels: (pictures, 3, side, side) of uint8.
        patch_labels: (pictures, 5, patches), see `training.rendering.label_patches`.
        gaze_places: (row, token) of each state that should look at an item.
        gaze_patches: the tokens it should look at.
    """

    token_ids: NDArray[Any]
    labels: NDArray[Any]
    positions: NDArray[Any]
    pixels: NDArray[Any]
    patch_labels: NDArray[Any]
    gaze_places: list[tuple[int, int]]
    gaze_patches: list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ChatStage:
    """How a stage on chats is run.

    Attributes:
        name: of its state's file, and in what it logs.
        seed: of its chats.
        num_steps: of `BATCH_SIZE` chats.
        rate: a factor on every learning rate.
        decay_part: the last part of the stage, 0 to 1, over which the rates fall to almost nothing.
    """

    name: str
    seed: int
    num_steps: int
    rate: float = 1.0
    decay_part: float = 0.85


def make_chat_batch(
    seed: int, builder: PromptBuilder, splitter: WordSplitter, step: int, team: Team
) -> ChatBatch:
    """Make up this process's share of a batch; a pure function of its arguments.

    Chats are cut to `MAX_CHAT_TOKENS`, or in every `_LONG_CHAT_EVERY_STEPS`-th step are fewer and
    longer by `_LONG_CHAT_FACTOR`: the number of tokens is the same.
    """
    factor = _LONG_CHAT_FACTOR if (step + 1) % _LONG_CHAT_EVERY_STEPS == 0 else 1
    rows = team.share_rows(BATCH_SIZE // factor)
    max_tokens = MAX_CHAT_TOKENS * factor
    shape = (len(rows), max_tokens)
    token_ids = np.full(shape, PAD_TOKEN_ID, dtype=np.int64)
    labels = np.full(shape, IGNORED_LABEL, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    pixels, patch_labels = [], []
    gaze_places: list[tuple[int, int]] = []
    gaze_patches: list[NDArray[Any]] = []
    for row, index in enumerate(rows):
        rng = random.Random(f"chat {seed} {step} {index}")
        chat = sample_chat(rng, _MAX_CHAT_TURNS * factor)
        split = None
        if rng.random() < _SPLIT_CHATS:
            split = functools.partial(splitter.split, rng)
        encoded = encode_chat(builder, chat, max_tokens, split)
        length = len(encoded.token_ids)
        token_ids[row, :length] = encoded.token_ids
        labels[row, :length] = encoded.labels
        positions[row, :length] = sample_positions(rng, encoded, length)
        num_pictures = encoded.token_ids.count(IMAGE_TOKEN_ID) // NUM_IMAGE_TOKENS
        pixels += [shrink_picture(picture) for picture in chat.pictures[:num_pictures]]
        own_labels = [label_patches(scene) for scene in chat.scenes[:num_pictures]]
        patch_labels += own_labels
        tokens, patches = find_gaze(builder, chat, encoded, own_labels)
        gaze_places += [(row, token) for token in tokens]
        gaze_patches += patches
    if not pixels:
        # Few long chats may all be about nothing; the tower learns from a picture all the same.
        scene_pixels, scene_labels = make_vision_batch(seed, step, range(1))
        pixels, patch_labels = list(scene_pixels), list(scene_labels)
    return ChatBatch(
        token_ids,
        labels,
        positions,
        np.stack(pixels),
        np.stack(patch_labels),
        gaze_places,
        gaze_patches,
    )


def train_jointly(
    model: LlavaForConditionalGeneration,
    heads: nn.Linear,
    tokenizer: Tokenizer,
    stage: ChatStage,
    *,
    run_folder: Path,
    log: Log,
    export: Callable[[], None],
    export_every_seconds: float,
    team: Team = ALONE,
) -> None:
    """Train everything in place; goes on from ``run_folder`` if it was cut off.

    Args:
        model: with a trained vision tower.
        heads: the patch classifier, see `training.vision_stage`.
        tokenizer: the model's.
        stage: how long, how fast.
        run_folder: where the state is kept.
        log: takes a line.
        export: writes the checkpoint as it is; only the team's leader calls it.
        export_every_seconds: how often it is called.
        team: the processes that train together.
    """
    builder = PromptBuilder(tokenizer, SPECIAL_TOKENS)
    splitter = WordSplitter(tokenizer, _SPLIT_RATE)
    state_path = run_folder / f"{stage.name}.pt"
    named = [
        *model.named_parameters(),
        *((f"head.{name}", parameter) for name, parameter in heads.named_parameters()),
    ]
    optimiser = Optimiser(
        named,
        matrix_rate=_MATRIX_RATE,
        other_rate=3e-3,
        matrix_decay=_MATRIX_DECAY,
        rate_scales={"model.vision_tower.": _VISION_RATE_SCALE, "head.": _VISION_RATE_SCALE},
        team=team,
    )
    first_step, earlier_seconds = 0, 0.0
    if state_path.exists():
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        first_step, earlier_seconds = state["step"], state["seconds"]
    token_weights = torch.ones(EMBEDDING_ROWS)
    for verdict in ("yes", "no", "Yes", "No"):
        token_weights[builder.encode_text(verdict)[0]] = _VERDICT_WEIGHT
    started = saved = exported = time.monotonic()
    average_loss, average_hits = 0.0, torch.zeros(5)

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

    make = functools.partial(make_chat_batch, stage.seed, builder, splitter)
    batches = iterate_batches(make, first_step, stage.num_steps, team)
    for step, batch in enumerate(batches, first_step):
        weights = cast_weights(model, COMPUTE_DTYPE)
        features = encode_images(weights, normalise_pixels(batch.pixels), model.config)
        vision_loss, hits = score_patches(heads, features, torch.from_numpy(batch.patch_labels))
        # The state at a place predicts the token at the next.
        labels = torch.from_numpy(batch.labels)[:, 1:]
        targets = F.pad(labels, (0, 1), value=IGNORED_LABEL).reshape(-1)
        wanted = (targets != IGNORED_LABEL).nonzero().squeeze(1)
        gaze = Gaze(GAZE_LAYER, NUM_GAZE_HEADS)
        hidden = read_text(
            weights,
            torch.from_numpy(batch.token_ids),
            torch.from_numpy(batch.positions),
            project_features(weights, features).flatten(0, 1),
            model.config,
            wanted,
            gaze,
        )
        gaze_loss = score_gaze(gaze.attention, batch.gaze_places, batch.gaze_patches)
        logits = F.linear(hidden, weights["lm_head.weight"]).float()
        loss = F.cross_entropy(logits, targets[wanted], token_weights)
        for _, parameter in named:
            parameter.grad = None
        total = loss + _VISION_LOSS_WEIGHT * vision_loss + _GAZE_LOSS_WEIGHT * gaze_loss
        total.backward()
        scheduled = schedule_rate(step, stage.num_steps, warmup=100, decay_part=stage.decay_part)
        optimiser.step(stage.rate * scheduled)
        pace = 0.02 if step - first_step > 50 else 0.2
        average_loss += pace * (loss.item() - average_loss)
        if not hits.isnan().any():  # as where no picture shows an item
            average_hits.lerp_(hits, pace)
        if step % 50 == 0 or step == stage.num_steps - 1:
            rates = " ".join(f"{value:.3f}" for value in average_hits.tolist())
            seconds = earlier_seconds + time.monotonic() - started
            log(
                f"{stage.name} step {step} loss {average_loss:.4f} gaze {gaze_loss.item():.3f} "
                f"patches {rates} {seconds:.0f} s"
            )
        if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
            save(step + 1)
            saved = time.monotonic()
        if team.is_leader and time.monotonic() - exported > export_every_seconds:
            export()
            exported = time.monotonic()
    if first_step < stage.num_steps:
        save(stage.num_steps)
