"""What the rooms of the server ask of an engine: the methods, and what each promises.

Nothing here may import torch, gRPC, or another module of the server but its values.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from llavachat_server.values import (
    EngineEvent,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    FinishReason,
)


class TurnTokenizer(Protocol):
    """What the chats need of `engine.prompt.PromptBuilder`; see there."""

    @property
    def tokenizer_sha256(self) -> str:
        """Over all that decides which ids words get."""
        ...

    def build_first_turn(
        self, question: str, *, num_images: int = 1, system_prompt: str | None = None
    ) -> tuple[int, ...]:
        """Token ids from the beginning up to where the first answer starts."""
        ...

    def build_next_turn(self, question: str, *, num_images: int = 0) -> tuple[int, ...]:
        """Token ids that a later question adds after the answer before it."""
        ...

    def build_answer(self, answer: str) -> tuple[int, ...]:
        """Token ids of an answer as the model would have written it, without its closing eos."""
        ...

    def join_turns(
        self,
        turns: Iterable[tuple[tuple[int, ...], tuple[int, ...]]],
        next_turn: tuple[int, ...],
    ) -> tuple[int, ...]:
        """The whole prompt: earlier (question, answer) ids, then the new turn."""
        ...

    def count_turn(self, question: tuple[int, ...], answer: tuple[int, ...]) -> int:
        """How many ids `join_turns` makes of an earlier turn."""
        ...

    def render(self, token_ids: Iterable[int]) -> str:
        """The raw text of ids, special tokens shown."""
        ...


class Engine(Protocol):
    """Many answers side by side. All methods belong to one event loop."""

    @property
    def info(self) -> EngineInfo:
        """What callers must know; there once `start` has returned."""
        ...

    @property
    def prompts(self) -> TurnTokenizer:
        """The model's template and tokenizer; there once `start` has returned."""
        ...

    @property
    def load(self) -> EngineLoad:
        """How busy it is; from any thread, at any time. Cheap."""
        ...

    async def start(self) -> None:
        """Load the model and begin to serve."""

    async def stop(self) -> None:
        """End; running requests finish as SHUTDOWN."""

    def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """Stream one answer: `Queued`*, `Delta`*, and `Finished` last.

        Closing the iterator (``aclose``) or cancelling its task cancels the request.

        Raises:
            InvalidField, ContextFull, QueueFull, EngineUnavailable: before the first event, and
                whatever can be told from the request and the line before anything is awaited.
            EngineFailed: at any time.
        """
        ...

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ask a running request to end; its stream still delivers `Finished` with `reason`."""
        ...

    def forget(self, tenant: str, owner: str) -> None:
        """Let go of all that is cached for an owner, before any later request is answered.

        Its running requests are cancelled. What another owner of the tenant has used of late
        stays, because it is that one's too.
        """
        ...
