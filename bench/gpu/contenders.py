"""One contender in a process of its own: our engine, or `generate()` behind a lock.

    python -m bench.gpu.contenders engine|generate FOLDER OUTPUT TASK

Both load the folder by the server's own code, in the same form, and are asked the same by the same
calls. TASK is a `Task` as JSON.
"""

import asyncio
import io
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from llavachat_server.engine import native
from llavachat_server.engine.backend import list_library_versions
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.placement import Machine, lacks_paged_kernel, place_model
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.loading import read_weights
from llavachat_server.engine.tensors.machine import look_at_machine
from PIL import Image
from transformers import AutoProcessor, TextStreamer

from bench.gpu.sizes import SIZES
from bench.gpu.task import Task
from bench.served.clients.talk import Interface, Talk
from bench.served.local.engine import InProcess
from bench.served.rows import Scale, measure
from bench.served.servers.small import Question
from bench.served.workload import WORDS_NAME, Workload

ROW_GROUPS = frozenset({"single", "picture", "follow_up", "chats"})
"""See `Scale`."""


class Generate:
    """`Interface` over transformers' `generate`, one chat at a time, all of it again each turn."""

    def __init__(self, folder: Path, task: Task) -> None:
        settings = EngineSettings(model=str(folder), **task.settings)
        machine = look_at_machine() if task.device == "cuda" else Machine()
        self._model = read_weights(folder, settings, place_model(settings, machine))
        self._processor: Any = AutoProcessor.from_pretrained(folder)
        self._lock = asyncio.Lock()

    async def ask(self, talk: Talk, question: str, max_tokens: int) -> AsyncIterator[str]:
        """See `Interface.ask`."""
        picture = Image.open(io.BytesIO(talk.picture)).convert("RGB")
        messages = Question(picture, talk.turns, question, max_tokens).build_messages()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        async with self._lock:
            loop = asyncio.get_running_loop()

            def deliver(piece: str | None) -> None:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

            work = asyncio.create_task(
                asyncio.to_thread(self._answer, talk, picture, messages, max_tokens, deliver)
            )
            while (piece := await pieces.get()) is not None:
                if piece:
                    yield piece
            await work

    def _answer(
        self, talk: Talk, picture: Image.Image, messages: Any, max_tokens: int, deliver: Any
    ) -> None:
        class Streamer(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                deliver(text)

        try:
            prompt = self._processor.apply_chat_template(messages, add_generation_prompt=True)
            inputs = self._processor(text=prompt, images=picture, return_tensors="pt")
            talk.prompt_tokens = inputs["input_ids"].shape[1]
            self._model.generate(
                **inputs.to(self._model.device, self._model.dtype),
                streamer=Streamer(
                    self._processor.tokenizer, skip_prompt=True, skip_special_tokens=True
                ),
                max_new_tokens=max_tokens,
                do_sample=False,
            )
        finally:
            deliver(None)

    async def close(self) -> None:
        """Nothing is open."""


async def run(kind: str, folder: Path, task: Task) -> dict[str, Any]:
    """Load, measure, and tell where it ran."""
    size = SIZES[task.size]
    workload = Workload(
        json.loads((folder / WORDS_NAME).read_text()),
        task.seed,
        side_pixels=size.side_pixels,
        num_image_tokens=size.num_image_tokens,
    )
    scale = Scale(
        chats=task.chats, answer_tokens=task.answer_tokens, repeats=task.repeats, rows=ROW_GROUPS
    )
    began = time.perf_counter()
    if kind == "generate":
        return await _measure(Generate(folder, task), workload, scale, began)
    engine = BatchingEngine(
        EngineSettings(
            model=str(folder),
            max_running=max(task.chats),
            compile_steps=native.is_installed(),
            **task.settings,
        )
    )
    await engine.start()
    told = await _measure(InProcess(engine), workload, scale, began)
    steps = engine.describe_steps()
    told["told"] = {
        "device": engine.info.device,
        "context_tokens": engine.info.context_tokens,
        "cache_tokens": engine.load.cache_tokens,
        "steps": steps,
        "troubles": [*_find_troubles(task), *steps.get("troubles", ())],
    }
    await engine.stop()
    return told


def _find_troubles(task: Task) -> list[str]:
    settings = EngineSettings(model="", **task.settings)
    machine = look_at_machine() if task.device == "cuda" else Machine()
    if lacks_paged_kernel(place_model(settings, machine), machine):
        return [f"torch {torch.__version__} has no kernel that reads pages; 2.12 and newer have"]
    return []


async def _measure(
    interface: Interface, workload: Workload, scale: Scale, began: float
) -> dict[str, Any]:
    loaded = time.perf_counter()
    told = asdict(await measure(interface, workload, scale))
    told["figures"]["loading"] = loaded - began
    told["versions"] = list_library_versions()
    if torch.cuda.is_available():
        told["figures"]["memory"] = torch.cuda.max_memory_reserved() / 1e6
    return told


def main(kind: str, folder: Path, output: Path, task: Task) -> None:
    """Measure and write."""
    # Which way steps take is logged, and why a step has failed; to whoever asks neither is told.
    logging.basicConfig(level=logging.INFO)
    output.write_text(json.dumps(asyncio.run(run(kind, folder, task))))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Task.read(sys.argv[4]))
