"""What the engine is measured against: a checkpoint of lively random weights, and generate()."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import llavachat_server
import torch
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.loading import build_quantization
from llavachat_server.images.picture import identify
from llavachat_server.images.preprocess import pad_to_square
from llavachat_server.values import (
    Delta,
    EngineImage,
    EngineRequest,
    Finished,
    Quantization,
    Sampling,
)
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

SHAPES_FOLDER = Path(llavachat_server.__file__).parent / "models" / "shapes"
EOS_TOKEN_ID = 2
SMALL = {
    "max_running": 10,
    "max_queued": 4,
    "kv_cache_tokens": 8192,
    "num_bank_images": 12,
    "num_threads": 1,
}
"""Settings of a small engine."""


def write_lively_checkpoint(folder: Path) -> Path:
    """The embedded model's architecture and tokenizer, with random weights of its own.

    Matrices are drawn wider than by a fresh model, so that answers vary, depend on the picture,
    and no two tokens are nearly as likely.
    """
    shutil.copytree(SHAPES_FOLDER, folder)
    generator = torch.Generator().manual_seed(20)
    weights = {}
    for name, weight in load_file(SHAPES_FOLDER / "model.safetensors").items():
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.dim() == 1:
            is_gain = name.endswith("weight")
            drawn = drawn * 0.05 + float(is_gain)
        elif "embed" in name:
            drawn = drawn * 0.5
        else:
            drawn = drawn * 1.2 / weight[0].numel() ** 0.5
        if name.endswith("lm_head.weight"):
            # Never the likeliest, so that an answer is as long as a test wants it.
            drawn[EOS_TOKEN_ID] = 0
        weights[name] = drawn.to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def draw_picture(seed: int) -> Image.Image:
    """A picture like no other: boxes and discs, seldom square."""
    rng = random.Random(seed)
    size = (rng.randint(60, 220), rng.randint(60, 220))
    picture = Image.new("RGB", size, tuple(rng.choices(range(256), k=3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(4):
        left, top = rng.randint(0, size[0] - 20), rng.randint(0, size[1] - 20)
        box = (left, top, left + rng.randint(5, 80), top + rng.randint(5, 80))
        shape = rng.choice((pen.ellipse, pen.rectangle))
        shape(box, fill=tuple(rng.choices(range(256), k=3)))
    return picture


class Reference:
    """transformers' own model on the same checkpoint, one prompt at a time."""

    def __init__(self, folder: Path, engine: BatchingEngine) -> None:
        # More threads than that only get into each other's way beside an engine.
        torch.set_num_threads(1)
        settings = engine._settings
        quantization = build_quantization(settings.quantization, settings.int8_threshold)
        arguments: dict[str, Any] = (
            {} if quantization is None else {"quantization_config": quantization}
        )
        self.model = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, device_map={"": "cpu"}, **arguments
        ).eval()
        self._known: dict[object, tuple[int, ...]] = {}
        self._facts = engine._backend.loaded.facts

    def widen(self, token_ids: Sequence[int]) -> list[int]:
        """Each placeholder as often as a picture has tokens, as the processor writes it."""
        image = self._facts.prompts.special.image
        widths = ((i, self._facts.num_image_tokens if i == image else 1) for i in token_ids)
        return [token_id for token_id, width in widths for _ in range(width)]

    def generate(
        self,
        token_ids: Sequence[int],
        images: Sequence[Image.Image | EngineImage],
        max_tokens: int,
        **rules: Any,
    ) -> tuple[int, ...]:
        """The greedy answer's ids, without a closing eos; to the same question the same ones."""
        held = [hold(image) for image in images]
        key = (*token_ids, *(image.id for image in held), max_tokens, *sorted(rules.items()))
        if key not in self._known:
            self._known[key] = self._generate(token_ids, held, max_tokens, rules)
        return self._known[key]

    def _generate(
        self,
        token_ids: Sequence[int],
        images: Sequence[EngineImage],
        max_tokens: int,
        rules: dict[str, Any],
    ) -> tuple[int, ...]:
        ids = torch.tensor([self.widen(token_ids)])
        form = self._facts.pixel_form
        pixels = [
            torch.from_numpy(form.convert(pad_to_square(image.pixels)))[None] for image in images
        ]
        pictures = {"pixel_values": torch.cat(pixels)} if pixels else {}
        answer = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_tokens,
            suppress_tokens=list(self._facts.silent_ids),
            **pictures,
            **rules,
        )[0, ids.shape[1] :].tolist()
        eos = self._facts.eos_token_ids
        return tuple(token_id for token_id in answer if token_id not in eos)


def hold(image: Image.Image | EngineImage) -> EngineImage:
    """A picture as the engine takes it, its pixels at hand."""
    if isinstance(image, EngineImage):
        return image
    return EngineImage(identify(image.size, image.tobytes()), image)


def build_request(
    engine: BatchingEngine,
    name: str,
    question: str,
    images: Sequence[Image.Image | EngineImage] = (),
    *,
    token_ids: tuple[int, ...] | None = None,
    time_limit_seconds: float = 60.0,
    tenant: str = "",
    **sampling: Any,
) -> EngineRequest:
    """A first turn, greedy unless said otherwise."""
    return EngineRequest(
        request_id=name,
        token_ids=token_ids or engine.prompts.build_first_turn(question, num_images=len(images)),
        images=tuple(hold(image) for image in images),
        sampling=Sampling(**{"max_tokens": 24, **sampling}),
        time_limit_seconds=time_limit_seconds,
        tenant=tenant,
    )


async def ask(engine: BatchingEngine, request: EngineRequest) -> tuple[str, Finished]:
    """The whole answer; offsets are checked on the way."""
    text = ""
    end = None
    async for event in engine.generate(request):
        assert end is None
        if isinstance(event, Delta):
            assert len(text) == event.char_offset
            assert event.text
            text += event.text
        elif isinstance(event, Finished):
            end = event
    assert end is not None
    return text, end


def make_engine(folder: Path, **settings: Any) -> BatchingEngine:
    """A small engine, not started."""
    return BatchingEngine(EngineSettings(model=str(folder), **{**SMALL, **settings}))


@asynccontextmanager
async def run_lively_engine(folder: Path, **settings: Any) -> AsyncIterator[BatchingEngine]:
    """A small engine on lively weights, which are written below ``folder``."""
    engine = make_engine(write_lively_checkpoint(folder / "lively"), **settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def settle(engine: BatchingEngine) -> None:
    """Wait until the loop has let go of everything."""
    async with asyncio.timeout(30):
        while engine._admission.num_running or engine._tasks:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)


__all__ = [
    "SHAPES_FOLDER",
    "Quantization",
    "Reference",
    "ask",
    "build_request",
    "draw_picture",
    "make_engine",
    "run_lively_engine",
    "settle",
    "write_lively_checkpoint",
]
