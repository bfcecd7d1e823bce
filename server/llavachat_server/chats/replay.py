"""Generates a recorded turn again and compares it with its record, token by token.

The chat is left as it is: what comes out is told and forgotten. It must not know gRPC or torch.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from llavachat_server.chats.context import ContextBuilder
from llavachat_server.chats.errors import (
    NotFound,
    ReplayCut,
    ReplayOverLimit,
    ShuttingDown,
    TurnImported,
    TurnRunning,
)
from llavachat_server.chats.record import Chat, Turn, TurnState
from llavachat_server.chats.runner import STOP_RETRY_SECONDS
from llavachat_server.chats.sources import use_kept
from llavachat_server.chats.store import ChatStore
from llavachat_server.interfaces import Engine
from llavachat_server.values import (
    Delta,
    EngineEvent,
    EngineFailed,
    EngineInfo,
    EngineRequest,
    Finished,
    FinishReason,
    InvalidField,
    Sampling,
)

CUT_RETRY_SECONDS = 10.0
"""When to replay again what reached the time limit: who is answered now has gone on by then."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was when the turn was recorded."""

    name: str
    recorded: str
    current: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the answer of today compares with its record.

    `first_difference_token` is None when every token is the recorded one.
    """

    first_difference_token: int | None
    changes: tuple[Change, ...]


class Replayer:
    """Replays turns.

    Args:
        engine: answers.
        store: keeps the record.
        contexts: builds prompts for the engine's model.
        max_turn_seconds: the longest that a replay may take, waiting included.
    """

    def __init__(
        self,
        engine: Engine,
        store: ChatStore,
        contexts: ContextBuilder,
        max_turn_seconds: float,
    ) -> None:
        self._engine = engine
        self._store = store
        self._contexts = contexts
        self._max_turn_seconds = max_turn_seconds
        # By the engine's name for each; done when it has ended.
        self._running: dict[str, asyncio.Future[None]] = {}
        self._is_stopped = False

    @property
    def running(self) -> set[asyncio.Future[None]]:
        """What is being replayed; each is done when it has ended."""
        return set(self._running.values())

    def stop(self) -> None:
        """End what is being replayed, and begin no more; it gets `ShuttingDown`."""
        self._is_stopped = True
        for request_id in self._running:
            self._engine.cancel(request_id, FinishReason.SHUTDOWN)

    async def replay(
        self, tenant: str, chat_id: str, turn_id: str
    ) -> AsyncGenerator[Delta | Verdict, None]:
        """The answer as it comes out now, and the verdict last.

        Raises:
            NotFound: no such chat or turn.
            TurnRunning: the turn has not ended.
            TurnImported: the turn was answered elsewhere.
            OtherTokenizer: the turn's ids are another tokenizer's.
            ReplayOverLimit: the turn is longer than one may be today.
            InvalidField: the turn has no answer to compare with.
            EngineError: the model can not answer.
            ReplayCut: the time was over before a token differed.
            ShuttingDown: the server stops before the end.
        """
        request_id = secrets.token_hex(16)
        ended = self._running[request_id] = asyncio.get_running_loop().create_future()
        try:
            async with aclosing(self._run(request_id, tenant, chat_id, turn_id)) as events:
                async for event in events:
                    yield event
        finally:
            del self._running[request_id]
            ended.set_result(None)

    async def _run(
        self, request_id: str, tenant: str, chat_id: str, turn_id: str
    ) -> AsyncGenerator[Delta | Verdict, None]:
        chat = await self._store.get_branch(tenant, chat_id, turn_id)
        turn = chat.turns[-1]
        if turn.state is TurnState.RUNNING:
            raise TurnRunning
        if turn.imported:
            raise TurnImported
        if not turn.answer_ids:
            raise InvalidField("turn_id", "this turn has no recorded answer to compare with")
        if self._is_stopped:
            # Before the engine knows of it, which could not be told to end it.
            raise ShuttingDown(STOP_RETRY_SECONDS)
        request = self._rebuild(request_id, tenant, chat, turn)
        generator = cast("AsyncGenerator[EngineEvent, None]", self._engine.generate(request))
        async with aclosing(generator) as events:
            async for event in events:
                if isinstance(event, Delta):
                    yield event
                elif isinstance(event, Finished):
                    if event.finish_reason is FinishReason.SHUTDOWN:
                        raise ShuttingDown(STOP_RETRY_SECONDS)
                    if event.finish_reason is FinishReason.ERROR:
                        raise EngineFailed
                    if event.finish_reason is FinishReason.CANCELLED:
                        # Nothing but the chat's erasure ends a replay before its time.
                        raise NotFound("chat", chat_id)
                    difference = _compare(turn, event.token_ids)
                    is_cut = event.finish_reason is FinishReason.TIME_LIMIT
                    if is_cut and difference == len(event.token_ids) < len(turn.answer_ids):
                        # Where it was cut, not where it differs: a busy server, not another answer.
                        raise ReplayCut(CUT_RETRY_SECONDS)
                    yield Verdict(difference, self._find_changes(turn))
                    return
        raise EngineFailed

    def _rebuild(self, request_id: str, tenant: str, chat: Chat, turn: Turn) -> EngineRequest:
        """The request that the engine got, from the record."""
        history = chat.turns[:-1]
        images = [image for before in history for image in before.images] + list(turn.images)
        token_ids = self._contexts.rebuild_ids(history, turn, chat.system_prompt)
        info = self._engine.info
        num_tokens = len(token_ids) + len(images) * (info.num_image_tokens - 1)
        if num_tokens >= info.context_tokens:
            raise ReplayOverLimit("its prompt", num_tokens, info.context_tokens - 1)
        return EngineRequest(
            request_id=request_id,
            token_ids=token_ids,
            images=tuple(use_kept(self._store, tenant, image.id) for image in images),
            sampling=_fit_sampling(turn, info),
            time_limit_seconds=self._max_turn_seconds,
            tenant=tenant,
            owner=chat.id,
        )

    def _find_changes(self, turn: Turn) -> tuple[Change, ...]:
        return find_changes(turn, self._engine.info, self._engine.prompts.tokenizer_sha256)


def find_changes(turn: Turn, info: EngineInfo, tokenizer_sha256: str) -> tuple[Change, ...]:
    """What differs between the record and the engine of today; "" is what was not noted."""
    then, now = turn.model, info.model
    pairs = {
        "model": (then.name, now.name),
        "revision": (then.revision, now.revision),
        "weights_sha256": (then.weights_sha256, now.weights_sha256),
        # Of a turn that was kept before it was noted, that it was not: it may have changed.
        "tokenizer_sha256": (turn.tokenizer_sha256, tokenizer_sha256),
        "quantization": (then.quantization.value, now.quantization.value),
        "device": (turn.device, info.device),
    }
    for name in sorted({*turn.library_versions, *info.library_versions}):
        pairs[name] = (
            turn.library_versions.get(name, ""),
            info.library_versions.get(name, ""),
        )
    return tuple(
        Change(name, recorded, current)
        for name, (recorded, current) in pairs.items()
        if recorded != current
    )


def _fit_sampling(turn: Turn, info: EngineInfo) -> Sampling:
    """The recorded parameters, within the limits of today where the same answer comes of it.

    Raises:
        ReplayOverLimit: none would.
    """
    sampling = turn.sampling
    if turn.state is not TurnState.FINISHED:
        # Cut short by no token of its own: it is compared as far as it came.
        sampling = replace(sampling, max_tokens=len(turn.answer_ids))
    # All words of a vocabulary are as good as more.
    sampling = replace(sampling, top_k=min(sampling.top_k, info.vocab_size))
    if sampling.max_tokens <= info.max_tokens:
        return sampling
    num_tokens = min(sampling.max_tokens, len(turn.answer_ids) + _count_end(turn))
    if num_tokens > info.max_tokens:
        raise ReplayOverLimit("its answer", num_tokens, info.max_tokens)
    return replace(sampling, max_tokens=num_tokens)


def _count_end(turn: Turn) -> int:
    """How many tokens after the recorded ones may have told the answer's end."""
    if turn.matched_stop is None:
        return 1  # eos
    # Cut away, in whichever pieces it came: of a byte each at the shortest. One more may begin it.
    return len(turn.matched_stop.encode()) + 1


def _compare(turn: Turn, now: tuple[int, ...]) -> int | None:
    """The first token that differs; where one answer ends early, the one after its end."""
    then = turn.answer_ids
    for position, (recorded, current) in enumerate(zip(then, now, strict=False)):
        if recorded != current:
            return position
    if len(then) == len(now):
        return None
    return min(len(then), len(now))
