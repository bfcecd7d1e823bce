"""How one turn runs: from a question to a recorded answer.

Contract: a turn that was refused leaves no trace; a turn that was told `Started` is kept,
whatever becomes of it, and `Ended` is told only after its record is. One turn runs at a time in
a chat. A repeated request_id follows or repeats the turn that it became.

It knows the store, the picture intake and the engine's protocol; it must not know gRPC or torch.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

from llavachat_server.chats.context import Context, ContextBuilder, TokenCount
from llavachat_server.chats.errors import (
    BadField,
    NotFound,
    RequestReused,
    ShuttingDown,
    TurnRunning,
)
from llavachat_server.chats.live import Ended, LiveTurn, Started, Trimmed
from llavachat_server.chats.question import ImageSource, NewChat, OverflowPolicy, Place, Question
from llavachat_server.chats.record import WHOLE, Chat, RequestClaim, Turn, TurnState
from llavachat_server.chats.store import ChatStore
from llavachat_server.images.intake import BadImage, ImageInfo, Intake, Picture, check_header
from llavachat_server.values import (
    Delta,
    Engine,
    EngineEvent,
    EngineFailed,
    EngineRequest,
    Finished,
    FinishReason,
    Sampling,
)

log = logging.getLogger("llavachat.turns")

REFUSAL_WINDOW_SECONDS = 0.1
"""The engine refuses at once or not at all. This long its first word is waited for before the
turn is recorded, so that a refusal is a plain error and not a failed turn."""

STOP_RETRY_SECONDS = 5.0
"""When to try again after the server has stopped: about what a start takes."""

_CANCEL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Job:
    """A question on its way to an answer."""

    tenant: str
    question: Question
    live: LiveTurn


@dataclass(frozen=True, slots=True)
class _Setting:
    """Where a question stands: its chat, the branch before it, the pictures it takes over."""

    chat: Chat
    is_new: bool
    history: tuple[Turn, ...]


class Turns:
    """Runs turns.

    Args:
        engine: answers.
        store: keeps.
        intake: decodes pictures.
        defaults: sampling of a request that names none.
        max_turn_seconds: the longest that a turn may take, waiting included.
    """

    def __init__(
        self,
        engine: Engine,
        store: ChatStore,
        intake: Intake,
        *,
        defaults: Sampling,
        max_turn_seconds: float,
    ) -> None:
        self._engine = engine
        self._store = store
        self._intake = intake
        self._defaults = defaults
        self._max_turn_seconds = max_turn_seconds
        self._contexts = ContextBuilder(
            engine.prompts, engine.info.context_tokens, engine.info.num_image_tokens
        )
        self._tasks: dict[LiveTurn, asyncio.Task[None]] = {}
        self._requests: dict[tuple[str, str], LiveTurn] = {}
        self._running: dict[tuple[str, str], LiveTurn] = {}
        self._is_stopping = False

    def ask(self, tenant: str, question: Question) -> LiveTurn:
        """Begin a turn, or find the running one that this request became.

        The caller follows it at once; see `LiveTurn.follow` for when it ends.

        Raises:
            RequestReused: the request_id belongs to a running turn with another body.
            ShuttingDown: the server is stopping.
        """
        if self._is_stopping:
            raise ShuttingDown(STOP_RETRY_SECONDS)
        key = (tenant, question.request_id)
        known = self._requests.get(key)
        if known is not None:
            if known.body_sha256 != question.body_sha256:
                raise RequestReused
            return known
        live = LiveTurn(question.body_sha256, self._end)
        if question.request_id:
            self._requests[key] = live
        self._tasks[live] = asyncio.create_task(self._run(_Job(tenant, question, live)))
        return live

    async def count(self, tenant: str, question: Question) -> TokenCount:
        """Count the tokens of a question without asking it.

        Raises:
            NotFound, BadField: as for `ask`.
        """
        setting = await self._read_setting(tenant, question.where)
        for index, source in enumerate(question.images):
            if source.image_id is not None:
                await self._store.get_picture(tenant, source.image_id)
            elif source.data is not None:
                _check_picture(index, source.data, self._intake)
        num_images = len(_opening_images(setting)) + len(question.images)
        return self._contexts.count(
            setting.history, question.prompt, num_images, system_prompt=setting.chat.system_prompt
        )

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """Read a chat, a running answer as far as it has come.

        Raises:
            NotFound: no such chat.
        """
        chat = await self._store.get_chat(tenant, chat_id)
        live = self._running.get((tenant, chat_id))
        if live is None:
            return chat
        turns = tuple(
            replace(turn, answer=live.answer)
            if turn.id == live.turn_id and turn.state is TurnState.RUNNING
            else turn
            for turn in chat.turns
        )
        return replace(chat, turns=turns)

    async def delete_chat(self, tenant: str, chat_id: str) -> None:
        """Erase a chat; a running turn is cancelled first.

        Raises:
            NotFound: no such chat.
        """
        live = self._running.get((tenant, chat_id))
        if live is not None and (task := self._tasks.get(live)) is not None:
            self._end(live)
            await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
        await self._store.delete_chat(tenant, chat_id)

    def raw_prompt(self, chat: Chat, turn: Turn) -> str:
        """The prompt of a recorded turn as the model saw it, special tokens shown."""
        history = chat.branch(turn.parent_id)
        ids = self._contexts.rebuild_ids(history, turn, chat.system_prompt)
        return self._engine.prompts.render(ids)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more questions; end running turns after the grace period.

        Their followers get `ShuttingDown`, their records say SHUTDOWN.
        """
        self._is_stopping = True
        if self._tasks and grace_seconds > 0:
            await asyncio.wait(set(self._tasks.values()), timeout=grace_seconds)
        for live in list(self._tasks):
            self._end(live, FinishReason.SHUTDOWN)
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks.values()), timeout=_CANCEL_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_CANCEL_SECONDS)

    def _end(self, live: LiveTurn, reason: FinishReason = FinishReason.CANCELLED) -> None:
        if live.turn_id:
            self._engine.cancel(live.turn_id, reason)
        elif (task := self._tasks.get(live)) is not None:
            task.cancel()

    async def _run(self, job: _Job) -> None:
        tenant, question, live = job.tenant, job.question, job.live
        try:
            claim = None
            if question.request_id:
                claim = await self._store.find_claim(tenant, question.request_id)
            if claim is not None:
                await self._repeat(job, claim)
            else:
                await self._settle(job)
        except asyncio.CancelledError:
            live.fail(ShuttingDown(STOP_RETRY_SECONDS))
            raise
        except Exception as error:
            live.fail(error)
        finally:
            self._tasks.pop(live, None)
            if self._requests.get((tenant, question.request_id)) is live:
                del self._requests[tenant, question.request_id]

    async def _repeat(self, job: _Job, claim: RequestClaim) -> None:
        """Tell the recorded turn once more."""
        if claim.body_sha256 != job.question.body_sha256:
            raise RequestReused
        turn = (await self._store.get_chat(job.tenant, claim.chat_id)).turn(claim.turn_id)
        if turn is None:
            raise NotFound("turn", claim.turn_id)
        if turn.finish_reason is None or turn.usage is None or turn.timings is None:
            raise EngineFailed
        live = job.live
        _tell_start(live, claim.chat_id, turn)
        if turn.trimmed_turn_ids:
            tokens = turn.usage.text_tokens + turn.usage.image_tokens
            live.publish(Trimmed(turn.trimmed_turn_ids, turn.num_untrimmed_tokens, tokens))
        if turn.answer:
            live.publish(Delta(turn.answer, 0))
        live.publish(Ended(turn.finish_reason, turn.matched_stop, turn.usage, turn.timings))

    async def _settle(self, job: _Job) -> None:
        """Take the one place in the chat, and answer there."""
        where = job.question.where
        chat_id = where.chat_id if isinstance(where, Place) else secrets.token_hex(16)
        slot = (job.tenant, chat_id)
        if slot in self._running:
            await self._store.get_chat(job.tenant, chat_id)
            raise TurnRunning
        self._running[slot] = job.live
        try:
            setting = await self._read_setting(job.tenant, where, chat_id)
            await self._answer(job, setting)
        finally:
            del self._running[slot]

    async def _read_setting(
        self, tenant: str, where: NewChat | Place, chat_id: str = ""
    ) -> _Setting:
        if isinstance(where, NewChat):
            now = datetime.now(UTC)
            chat = Chat(chat_id, tenant, where.system_prompt, dict(where.labels), now, now)
            return _Setting(chat, True, ())
        chat = await self._store.get_chat(tenant, where.chat_id)
        if where.parent_turn_id is None:
            latest = chat.latest_finished()
            return _Setting(chat, False, chat.branch(latest.id if latest else None))
        if where.parent_turn_id == "":
            return _Setting(chat, False, ())
        parent = chat.turn(where.parent_turn_id)
        if parent is None:
            raise NotFound("turn", where.parent_turn_id)
        if parent.state is not TurnState.FINISHED:
            raise BadField("parent_turn_id", "this turn was cut short; name a finished one")
        return _Setting(chat, False, chat.branch(parent.id))

    async def _answer(self, job: _Job, setting: _Setting) -> None:
        question, chat = job.question, setting.chat
        new = tuple(
            [
                await self._take_picture(job.tenant, index, source)
                for index, source in enumerate(question.images)
            ]
        )
        sampling = question.wishes.resolve(self._defaults)
        images = (*_opening_images(setting), *(picture.info for picture in new))
        drops = question.overflow is OverflowPolicy.DROP_OLDEST_TURNS
        context = self._contexts.build(
            setting.history,
            question.prompt,
            images,
            system_prompt=chat.system_prompt,
            drop_for_tokens=sampling.max_tokens if drops else None,
        )
        turn = Turn(
            id=secrets.token_hex(16),
            parent_id=setting.history[-1].id if setting.history else None,
            prompt=question.prompt,
            images=images,
            question_ids=context.question_ids,
            trimmed_turn_ids=context.trimmed_turn_ids,
            num_untrimmed_tokens=context.num_tokens_before,
            sampling=sampling,
            model=self._engine.info.model,
            created_at=datetime.now(UTC),
        )
        known = {picture.info.id: picture for picture in new}
        for image in context.images:
            if image.id not in known:
                known[image.id] = await self._store.get_picture(job.tenant, image.id)
        request = EngineRequest(
            request_id=turn.id,
            token_ids=context.token_ids,
            images=tuple(known[image.id].pixels for image in context.images),
            sampling=sampling,
            time_limit_seconds=self._max_turn_seconds,
            tenant=job.tenant,
        )
        generator = cast("AsyncGenerator[EngineEvent, None]", self._engine.generate(request))
        async with aclosing(generator) as events:
            job.live.chat_id, job.live.turn_id = chat.id, turn.id
            first = asyncio.ensure_future(anext(events))
            try:
                await asyncio.wait({first}, timeout=REFUSAL_WINDOW_SECONDS)
                if first.done():
                    first.result()  # raises the refusal
                await self._begin(job, setting, turn, new)
            except BaseException:
                await _dismiss(first)
                raise
            self._tell_begin(job.live, chat.id, turn, context)
            await self._record(job, chat.id, turn, first, events)

    async def _begin(
        self, job: _Job, setting: _Setting, turn: Turn, pictures: tuple[Picture, ...]
    ) -> None:
        question, chat = job.question, setting.chat
        claim = None
        if question.request_id:
            claim = RequestClaim(
                job.tenant, question.request_id, question.body_sha256, chat.id, turn.id
            )
        if setting.is_new:
            await self._store.begin_chat(chat, turn, pictures, claim)
        else:
            await self._store.begin_turn(job.tenant, chat.id, turn, pictures, claim)

    def _tell_begin(self, live: LiveTurn, chat_id: str, turn: Turn, context: Context) -> None:
        _tell_start(live, chat_id, turn)
        if turn.trimmed_turn_ids:
            live.publish(
                Trimmed(turn.trimmed_turn_ids, turn.num_untrimmed_tokens, context.count.total)
            )

    async def _record(
        self,
        job: _Job,
        chat_id: str,
        turn: Turn,
        first: asyncio.Future[EngineEvent],
        events: AsyncGenerator[EngineEvent, None],
    ) -> None:
        """Pass the answer on as it comes, and keep its end before telling it."""
        live = job.live
        finished: Finished | None = None
        failure: Exception | None = None
        try:
            event: EngineEvent | None = await first
            while event is not None:
                if isinstance(event, Finished):
                    finished = event
                    break
                live.publish(event)
                event = await anext(events, None)
        except Exception as error:
            failure = error
        except asyncio.CancelledError:
            # The engine did not end the turn in time; what came is kept all the same.
            await asyncio.shield(self._keep_end(job, chat_id, _cut(turn, live.answer)))
            raise
        if finished is None or finished.finish_reason is FinishReason.ERROR:
            failure = failure or EngineFailed()
            await self._keep_end(job, chat_id, _failed(turn, live.answer))
            raise failure
        await self._keep_end(job, chat_id, _whole(turn, live.answer, finished))
        if finished.finish_reason is FinishReason.SHUTDOWN:
            raise ShuttingDown(STOP_RETRY_SECONDS)
        live.publish(
            Ended(finished.finish_reason, finished.matched_stop, finished.usage, finished.timings)
        )

    async def _keep_end(self, job: _Job, chat_id: str, turn: Turn) -> None:
        with suppress(NotFound):  # the chat was erased while it ran
            await self._store.finish_turn(job.tenant, chat_id, turn)
        _log_turn(job, chat_id, turn)

    async def _take_picture(self, tenant: str, index: int, source: ImageSource) -> Picture:
        if source.image_id is not None:
            return await self._store.get_picture(tenant, source.image_id)
        try:
            return await self._intake.take(source.data or b"")
        except BadImage as error:
            raise BadField(f"images[{index}].data", str(error)) from error


def _check_picture(index: int, data: bytes, intake: Intake) -> None:
    try:
        check_header(data, intake.limits)
    except BadImage as error:
        raise BadField(f"images[{index}].data", str(error)) from error


def _opening_images(setting: _Setting) -> tuple[ImageInfo, ...]:
    """A first question that is asked again keeps the pictures that the chat was opened with."""
    if setting.history or not setting.chat.turns:
        return ()
    return setting.chat.turns[0].images


def _tell_start(live: LiveTurn, chat_id: str, turn: Turn) -> None:
    live.publish(Started(chat_id, turn.id, turn.parent_id, turn.model, turn.sampling, turn.images))


async def _dismiss(future: asyncio.Future[EngineEvent]) -> None:
    future.cancel()
    with suppress(BaseException):
        await future


def _whole(turn: Turn, answer: str, finished: Finished) -> Turn:
    is_whole = finished.finish_reason in WHOLE
    return replace(
        turn,
        state=TurnState.FINISHED if is_whole else TurnState.CANCELLED,
        answer=answer,
        answer_ids=finished.token_ids,
        finish_reason=finished.finish_reason,
        matched_stop=finished.matched_stop,
        usage=finished.usage,
        timings=finished.timings,
        finished_at=datetime.now(UTC),
    )


def _failed(turn: Turn, answer: str) -> Turn:
    return replace(
        turn,
        state=TurnState.FAILED,
        answer=answer,
        finish_reason=FinishReason.ERROR,
        finished_at=datetime.now(UTC),
    )


def _cut(turn: Turn, answer: str) -> Turn:
    return replace(
        turn,
        state=TurnState.CANCELLED,
        answer=answer,
        finish_reason=FinishReason.SHUTDOWN,
        finished_at=datetime.now(UTC),
    )


def _log_turn(job: _Job, chat_id: str, turn: Turn) -> None:
    """One line a turn; never a word of what was said."""
    fields: dict[str, object] = {
        "request_id": job.question.request_id,
        "tenant": job.tenant,
        "chat_id": chat_id,
        "turn_id": turn.id,
        "finish_reason": turn.finish_reason.value if turn.finish_reason else "",
        "num_images": len(turn.images),
    }
    if turn.usage is not None:
        fields["prompt_tokens"] = turn.usage.text_tokens + turn.usage.image_tokens
        fields["cached_tokens"] = turn.usage.cached_tokens
        fields["completion_tokens"] = turn.usage.completion_tokens
    if turn.timings is not None:
        fields["first_token_seconds"] = round(turn.timings.first_token_seconds, 4)
        fields["decode_seconds"] = round(turn.timings.decode_seconds, 4)
    log.info("turn", extra={"fields": fields})
