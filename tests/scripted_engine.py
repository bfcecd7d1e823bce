"""An engine that answers from a script: for tests of what stands around the engine.

It has the real prompt builder and the real checkpoint's tokenizer; only the model is missing.
Every answer is the next entry of the script, or the words "I see NUMBER" after it ran out.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import cache

from llavachat_server.engine.prompt import PromptBuilder, SpecialTokens
from llavachat_server.profiles import SHAPES_FOLDER
from llavachat_server.values import (
    ContextFull,
    Delta,
    EngineEvent,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    Finished,
    FinishReason,
    ModelInfo,
    Quantization,
    Queued,
    Timings,
    Usage,
)

CONTEXT_TOKENS = 4096
MAX_TOKENS = 1024
NUM_IMAGE_TOKENS = 64
IMAGE_TOKEN_ID = 1216


@cache
def shapes_prompts() -> PromptBuilder:
    """The embedded checkpoint's prompt builder."""
    return PromptBuilder.from_folder(SHAPES_FOLDER, SpecialTokens(1, 2, IMAGE_TOKEN_ID))


class Hold:
    """A script's entry: say `text`, then wait until `release` is set or the turn is cancelled."""

    def __init__(self, text: str = "I think") -> None:
        self.text = text
        self.said = asyncio.Event()
        self.release = asyncio.Event()


class ScriptedEngine:
    """See the module; entries are texts, `Hold`s, `Queued`s, or errors to raise."""

    def __init__(
        self, *script: str | Hold | Exception, context_tokens: int = CONTEXT_TOKENS
    ) -> None:
        self.info = EngineInfo(
            model=ModelInfo("shapes", "shapes", "", Quantization.NONE, "0" * 64),
            device="cpu",
            context_tokens=context_tokens,
            max_tokens=MAX_TOKENS,
            num_image_tokens=NUM_IMAGE_TOKENS,
            vocab_size=1280,
            image_token_id=IMAGE_TOKEN_ID,
            max_running=8,
            max_queued=8,
            library_versions={"torch": "0"},
        )
        self.prompts = shapes_prompts()
        self.fatal: asyncio.Future[str] | None = None
        self.script = list(script)
        self.requests: list[EngineRequest] = []
        self.cancelled: dict[str, FinishReason] = {}
        self.forgotten: list[tuple[str, str]] = []
        self._cancellations: dict[str, asyncio.Event] = {}

    @property
    def load(self) -> EngineLoad:
        """Nothing is cached, and nobody waits."""
        return EngineLoad(cache_tokens=self.info.context_tokens)

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to end."""

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """See `Engine.cancel`."""
        if request_id in self._cancellations:
            self.cancelled[request_id] = reason
            self._cancellations[request_id].set()

    def forget(self, tenant: str, owner: str) -> None:
        """See `Engine.forget`."""
        self.forgotten.append((tenant, owner))

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See `Engine.generate`."""
        self.requests.append(request)
        num_images = len(request.images)
        num_tokens = len(request.token_ids) + num_images * (NUM_IMAGE_TOKENS - 1)
        if num_tokens >= self.info.context_tokens:
            raise ContextFull(num_tokens, 0, self.info.context_tokens)
        entry = self.script.pop(0) if self.script else f"I see {len(self.requests)}"
        if isinstance(entry, Exception):
            raise entry
        self._cancellations[request.request_id] = asyncio.Event()
        text = entry.text if isinstance(entry, Hold) else entry
        reason = FinishReason.EOS
        offset = 0
        for word in text.split(" "):
            piece = word if offset == 0 else f" {word}"
            yield Delta(piece, offset)
            offset += len(piece)
        if isinstance(entry, Hold):
            entry.said.set()
            reason = await self._wait(request.request_id, entry)
        image_tokens = num_images * NUM_IMAGE_TOKENS
        answer_ids = self.prompts.encode_text(text)
        yield Finished(
            reason,
            None,
            answer_ids,
            Usage(
                num_tokens - image_tokens,
                image_tokens,
                0,
                len(answer_ids),
                self.info.context_tokens - num_tokens - len(answer_ids),
            ),
            Timings(0.0, 0.0, 0.01, 0.02, 0.03),
        )

    async def _wait(self, request_id: str, hold: Hold) -> FinishReason:
        waits = {
            asyncio.ensure_future(hold.release.wait()),
            asyncio.ensure_future(self._cancellations[request_id].wait()),
        }
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        return self.cancelled.get(request_id, FinishReason.EOS)


__all__ = ["Hold", "Queued", "ScriptedEngine", "shapes_prompts"]
