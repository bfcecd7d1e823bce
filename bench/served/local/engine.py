"""Our engine without its server: what the gRPC layer costs is the difference.

    python -m bench.served.local.engine CHECKPOINT OUTPUT WORDS SEED SCALE

The same questions by the same calls as a served contender's; text comes out here as well.
"""

import asyncio
import hashlib
import io
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from llavachat_server.engine import native
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.values import (
    Delta,
    EngineError,
    EngineImage,
    EngineRequest,
    Finished,
    Sampling,
)
from PIL import Image

from bench.served.clients.talk import AnswerFailed, Talk
from bench.served.rows import ANSWER_SECONDS, Measured, Scale, measure
from bench.served.workload import Workload


class InProcess:
    """`Interface` over an engine of this process."""

    def __init__(self, engine: BatchingEngine) -> None:
        self._engine = engine
        self._numbers = itertools.count()

    async def ask(self, talk: Talk, question: str, max_tokens: int) -> AsyncIterator[str]:
        """See `Interface.ask`; the handle keeps the ids of the turns."""
        prompts = self._engine.prompts
        turns = talk.handle or []
        build = prompts.build_next_turn if turns else prompts.build_first_turn
        asked = build(question)
        request = EngineRequest(
            request_id=str(next(self._numbers)),
            token_ids=prompts.join_turns(turns, asked),
            images=(
                EngineImage(
                    hashlib.sha256(talk.picture).hexdigest(),
                    Image.open(io.BytesIO(talk.picture)).convert("RGB"),
                ),
            ),
            sampling=Sampling(max_tokens=max_tokens),
            time_limit_seconds=ANSWER_SECONDS,
        )
        try:
            async for event in self._engine.generate(request):
                if isinstance(event, Delta):
                    yield event.text
                elif isinstance(event, Finished):
                    talk.handle = [*turns, (asked, event.token_ids)]
                    usage = event.usage
                    talk.prompt_tokens = usage.text_tokens + usage.image_tokens
        except EngineError as error:
            raise AnswerFailed(str(error)) from error

    async def close(self) -> None:
        """The engine's own end is `main`'s business."""


def main(checkpoint: str, output: Path, words: Path, seed: str, scale: Scale) -> None:
    """Measure and write."""
    workload = Workload(json.loads(words.read_text()), seed)
    output.write_text(json.dumps(asdict(asyncio.run(run(checkpoint, workload, scale)))))


def make_engine(checkpoint: str, max_chats: int) -> BatchingEngine:
    """As the server makes it; not started yet."""
    return BatchingEngine(
        EngineSettings(
            model=checkpoint,
            device="cpu",
            max_running=max_chats,
            compile_steps=native.is_installed(),
        )
    )


async def run(checkpoint: str, workload: Workload, scale: Scale) -> Measured:
    """Start, measure, stop."""
    engine = make_engine(checkpoint, max(scale.chats))
    await engine.start()
    measured = await measure(InProcess(engine), workload, scale)
    await engine.stop()
    return measured


if __name__ == "__main__":
    fields = json.loads(sys.argv[5])
    given = Scale(
        chats=tuple(fields["chats"]),
        answer_tokens=fields["answer_tokens"],
        repeats=fields["repeats"],
        rows=frozenset(fields["rows"]),
    )
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], given)
