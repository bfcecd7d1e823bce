"""Batches made ahead of time by one worker process, each a pure function of its step.

So that a run can be cut off and go on, and so that the worker changes nothing but the pace.
"""

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Full
from typing import Any

import numpy as np
import torch
from llavachat_server.images.preprocess import pad_to_square
from numpy.typing import NDArray
from PIL import Image

from training.network import IMAGE_SIDE_PIXELS
from training.rendering import draw_scene, label_patches
from training.scenes import sample_scene

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Source: OPENAI_CLIP_MEAN and OPENAI_CLIP_STD of transformers."""

_QUEUE_BATCHES = 12


def shrink_picture(picture: Image.Image) -> NDArray[Any]:
    """Pad and resize as the server does; (3, side, side) of uint8."""
    square = pad_to_square(picture)
    side = IMAGE_SIDE_PIXELS
    if square.size != (side, side):
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(square).transpose(2, 0, 1).copy()


def normalise_pixels(pixels: NDArray[Any]) -> torch.Tensor:
    """(batch, 3, side, side) of uint8 to CLIP's normalised float32."""
    mean = torch.tensor(_MEAN).view(3, 1, 1)
    deviation = torch.tensor(_DEVIATION).view(3, 1, 1)
    return (torch.from_numpy(pixels).float() / 255 - mean) / deviation


def make_vision_batch(seed: int, step: int, rows: range) -> tuple[NDArray[Any], NDArray[Any]]:
    """These rows' pictures and their patch labels; see `label_patches`."""
    pixels, labels = [], []
    for index in rows:
        rng = random.Random(f"vision {seed} {step} {index}")
        scene = sample_scene(rng)
        pixels.append(shrink_picture(draw_scene(scene, rng)))
        labels.append(label_patches(scene))
    return np.stack(pixels), np.stack(labels)


def iterate_batches(
    make: Callable[..., Any], first_step: int, num_steps: int, *arguments: Any
) -> Iterator[Any]:
    """Yield ``make(step, *arguments)`` for each step, made ahead by a worker process."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue(maxsize=_QUEUE_BATCHES)
    worker = context.Process(
        target=_fill_queue, args=(queue, make, first_step, num_steps, arguments), daemon=True
    )
    worker.start()
    try:
        for _ in range(first_step, num_steps):
            while True:
                try:
                    batch = queue.get(timeout=30)
                    break
                except Empty:
                    if not worker.is_alive():
                        raise RuntimeError("the worker that makes batches has died") from None
            yield batch
    finally:
        worker.terminate()
        worker.join()


def _fill_queue(
    queue: Any,
    make: Callable[..., Any],
    first_step: int,
    num_steps: int,
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    parent = os.getppid()
    for step in range(first_step, num_steps):
        batch = make(step, *arguments)
        while True:
            try:
                queue.put(batch, timeout=10)
                break
            except Full:
                if os.getppid() != parent:
                    # The run was ended from outside: nobody will ever read the queue.
                    queue.cancel_join_thread()
                    return


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a state so that a reader finds the old file or the new one."""
    staging = path.with_suffix(".writing")
    torch.save(state, staging)
    staging.replace(path)
