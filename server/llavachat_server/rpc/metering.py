"""Counts the tokens that each key uses, where none can be missed: around the engine.

A reader who leaves before the end pays for what was made all the same. It knows keys by the
context in which a turn was asked for; it must not know what was asked.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from llavachat_server.interfaces import Engine
from llavachat_server.relay import EngineRelay
from llavachat_server.rpc.auth import CALLER
from llavachat_server.rpc.quota import Quotas
from llavachat_server.values import (
    EngineEvent,
    EngineRequest,
    Finished,
)


class MeteredEngine(EngineRelay):
    """An engine whose use is charged; see `interfaces.Engine`.

    Args:
        engine: what answers.
        quotas: where to charge.
    """

    def __init__(self, engine: Engine, quotas: Quotas) -> None:
        super().__init__(engine)
        self._quotas = quotas

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
                    self._quotas.charge(key, len(request.token_ids) + image_tokens)
                if key is not None and isinstance(event, Finished):
                    self._quotas.charge(key, event.usage.completion_tokens)
                yield event
