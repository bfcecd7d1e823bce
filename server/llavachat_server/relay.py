"""What every wrapper around an engine has in common: all but `generate` goes through as it is.

Contract: see `interfaces.Engine`. It must not know why an engine is wrapped.
"""

from llavachat_server.interfaces import Engine, TurnTokenizer
from llavachat_server.values import (
    EngineInfo,
    EngineLoad,
    FinishReason,
)


class EngineRelay:
    """Hands everything but `generate` to the engine within.

    Args:
        engine: what answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def info(self) -> EngineInfo:
        """See `interfaces.Engine`."""
        return self._engine.info

    @property
    def prompts(self) -> TurnTokenizer:
        """See `interfaces.Engine`."""
        return self._engine.prompts

    @property
    def load(self) -> EngineLoad:
        """See `interfaces.Engine`."""
        return self._engine.load

    async def start(self) -> None:
        """See `interfaces.Engine.start`."""
        await self._engine.start()

    async def stop(self) -> None:
        """See `interfaces.Engine.stop`."""
        await self._engine.stop()

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """See `interfaces.Engine.cancel`."""
        self._engine.cancel(request_id, reason)

    def forget(self, tenant: str, owner: str) -> None:
        """See `interfaces.Engine.forget`."""
        self._engine.forget(tenant, owner)
