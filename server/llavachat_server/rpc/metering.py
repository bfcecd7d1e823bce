"""Counts the tokens that each key uses, where none can be missed: around the engine.

A reader who leaves before the end pays for what was made all the same. It knows keys by the
context in which a turn was asked for; it must not know what was asked.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from llavachat_server.rpc.auth import CALLER
from llavachat_server.rpc.quota import Quotas
from llavachat_server.values import (
    Engine,
    EngineEvent,
    EngineInfo,
    EngineRequest,
    Finished,
    FinishReason,
    TurnTokenizer,
)


class MeteredEngine:
    """An engine whose use is charged; see `values.Engine`.

    Args:
        engine: what answers.
        quotas: where to charge.
    """

    def __init__(self, engine: Engine, quotas: Quotas) -> None:
        self._engine = engine
        self._quotas = quotas

    @property
    def info(self) -> EngineInfo:
        """What callers must know."""
        return self._engine.info

    @property
    def prompts(self) -> TurnTokenizer:
        """The model's template and tokenizer."""
        return self._engine.prompts

    async def start(self) -> None:
        """Load the model and begin to serve."""
        await self._engine.start()

    async def stop(self) -> None:
        """End; running requests finish as SHUTDOWN."""
        await self._engine.stop()

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ask a running request to end."""
        self._engine.cancel(request_id, reason)

    def forget(self, tenant: str, owner: str) -> None:
        """Let go of all that is cached for an owner."""
        self._engine.forget(tenant, owner)

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """Stream one answer; its prompt is charged with its first event, the rest at its end."""
        key = CALLER.get()
        events = cast("Any", self._engine.generate(request))
        has_begun = False
        async with aclosing(events):
            async for event in events:
                if key is not None and not has_begun:
                    has_begun = True
                    image_tokens = len(request.images) * (self.info.num_image_tokens - 1)
                    self._quotas.of(key).charge(len(request.token_ids) + image_tokens)
                if key is not None and isinstance(event, Finished):
                    self._quotas.of(key).charge(event.usage.completion_tokens)
                yield event
