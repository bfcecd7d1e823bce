"""Counts the tokens that each key uses, where none can be missed: around the engine.

A reader who leaves before the end pays for what was made all the same. It knows keys by the
context in which a turn was asked for; it must not know what was asked.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import cast

from llavachat_server.interfaces import Engine
from llavachat_server.relay import EngineRelay
from llavachat_server.rpc.auth import CALLER, Key
from llavachat_server.rpc.quota import Quotas
from llavachat_server.values import (
    Delta,
    EngineError,
    EngineEvent,
    EngineRequest,
    Finished,
    InvalidField,
)

_END_SECONDS = 5.0
"""The engine ends a cancelled answer within a few steps; past this it is not waited for."""


class MeteredEngine(EngineRelay):
    """An engine whose use is charged; see `interfaces.Engine`.

    Args:
        engine: what answers.
        quotas: where to charge.
    """

    def __init__(self, engine: Engine, quotas: Quotas) -> None:
        super().__init__(engine)
        self._quotas = quotas

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Stream one answer; its prompt is charged with its first event, the rest at its end."""
        key = CALLER.get()
        events = cast("AsyncGenerator[EngineEvent, None]", self._engine.generate(request))
        has_begun = is_counted = False
        answer = ""
        async with aclosing(events):
            try:
                async for event in events:
                    if key is not None and not has_begun:
                        image_tokens = len(request.images) * (self.info.num_image_tokens - 1)
                        self._quotas.charge(key, len(request.token_ids) + image_tokens)
                    has_begun = True
                    if isinstance(event, Delta):
                        answer += event.text
                    if key is not None and isinstance(event, Finished):
                        is_counted = True
                        self._quotas.charge(key, event.usage.completion_tokens)
                    yield event
            finally:
                if key is not None and has_begun and not is_counted:
                    await self._charge_left(key, request.request_id, events, answer)

    async def _charge_left(
        self,
        key: Key,
        request_id: str,
        events: AsyncGenerator[EngineEvent, None],
        answer: str,
    ) -> None:
        """Charge an answer whose reader has left before its end; a slow one has read but a part."""
        num_tokens: int | None = None
        try:
            self._engine.cancel(request_id)
            with suppress(TimeoutError, EngineError, InvalidField):
                async with asyncio.timeout(_END_SECONDS):
                    async for event in events:
                        if isinstance(event, Delta):
                            answer += event.text
                        elif isinstance(event, Finished):
                            num_tokens = event.usage.completion_tokens
        finally:
            if num_tokens is None:
                # Who is cancelled while it waits for more has read all that there was.
                num_tokens = len(self.prompts.build_answer(answer))
            self._quotas.charge(key, num_tokens)
