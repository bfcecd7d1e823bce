"""One turn from its setting to its recorded end.

Contract: what the engine refuses leaves no trace; once `Started` was told the turn is kept,
whatever becomes of it, and `Ended` is told only after its record is. It knows the store, the
intake and the engine's protocol; it must not know who else is asking.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import cast

from llavachat_server.chats.account import TurnAccount
from llavachat_server.chats.aside import Aside
from llavachat_server.chats.context import Context, ContextBuilder
from llavachat_server.chats.errors import (
    ChatError,
    NotFound,
    ShuttingDown,
    StoreFull,
    StoreUnavailable,
)
from llavachat_server.chats.held import HeldPictures, Hold
from llavachat_server.chats.live import Ended, LiveTurn, Started, Trimmed
from llavachat_server.chats.question import ImageSource, OverflowPolicy, Question
from llavachat_server.chats.record import RequestClaim, Turn, TurnState
from llavachat_server.chats.setting import Setting
from llavachat_server.chats.sources import take_new, use_kept
from llavachat_server.chats.store import ChatStore
from llavachat_server.completion import complete
from llavachat_server.images.intake import Intake, Picture
from llavachat_server.interfaces import Engine
from llavachat_server.values import (
    EngineEvent,
    EngineFailed,
    EngineImage,
    EngineRequest,
    EngineUnavailable,
    Finished,
    FinishReason,
    QueueFull,
    Sampling,
)

STOP_RETRY_SECONDS = 5.0
"""When to try again after the server has stopped: about what a start takes."""

_PASSING = (EngineUnavailable, QueueFull, StoreFull, StoreUnavailable)
"""What ends a turn that has begun, and is gone when it is tried again."""


@dataclass(frozen=True, slots=True)
class Job:
    """A question of a tenant, those who wait for its answer, and what is noted of it."""

    tenant: str
    question: Question
    live: LiveTurn
    account: TurnAccount


@dataclass(frozen=True, slots=True)
class TurnRunner:
    """Runs turns, each on its own.

    Args:
        engine: answers.
        store: keeps.
        intake: decodes pictures.
        contexts: builds prompts for the engine's model.
        aside: where long ones are built.
        held: counts what turns hold of pictures.
        defaults: sampling of a request that names none.
        max_turn_seconds: the longest that a turn may take, waiting included.
    """

    engine: Engine
    store: ChatStore
    intake: Intake
    contexts: ContextBuilder
    aside: Aside
    held: HeldPictures
    defaults: Sampling
    max_turn_seconds: float

    async def run(self, job: Job, setting: Setting) -> Ended:
        """Answer one question and record it.

        Returns:
            The last event, for the caller to tell once the chat's place is free again.

        Raises:
            InvalidField, NotFound, IntakeBusy, IntakeUnavailable, StoreFull, EngineError: the turn
                was refused, or failed.
            ShuttingDown: it was ended because the server stops.
        """
        with self.held.begin(job.tenant) as hold:
            return await self._answer(job, setting, await self._take_pictures(job, hold))

    async def _answer(self, job: Job, setting: Setting, new: tuple[Picture, ...]) -> Ended:
        turn, context = await self._plan(job, setting, new)
        job.account.note_turn(setting.chat.id, turn)
        images = {image.id: use_kept(self.store, job.tenant, image.id) for image in context.images}
        images |= {picture.info.id: EngineImage(picture.info.id, picture.pixels) for picture in new}
        request = EngineRequest(
            request_id=turn.id,
            token_ids=context.token_ids,
            images=tuple(images[image.id] for image in context.images),
            sampling=turn.sampling,
            time_limit_seconds=self.max_turn_seconds,
            tenant=job.tenant,
            owner=setting.chat.id,
        )
        chat_id, live = setting.chat.id, job.live
        generator = cast("AsyncGenerator[EngineEvent, None]", self.engine.generate(request))
        async with aclosing(generator) as events:
            live.chat_id, live.turn_id = chat_id, turn.id
            first = asyncio.ensure_future(anext(events))
            try:
                # The engine refuses before it waits for anything, so that a refusal is a plain
                # error and no failed turn. Its work goes on while the question is recorded.
                await asyncio.wait({first}, timeout=0)
                if live.end_reason is not None:
                    # Told to end before the engine knew of it: it knows now.
                    self.engine.cancel(turn.id, live.end_reason)
                if first.done():
                    first.result()  # raises the refusal
                await self._begin(job, setting, turn, new)
            except BaseException as error:
                await _dismiss(first)
                if isinstance(error, NotFound):
                    # Erased just now: what this turn has brought into the caches goes as well.
                    self.engine.forget(job.tenant, chat_id)
                if isinstance(error, StoreUnavailable) and error.may_be_done:
                    await self._take_back(job, chat_id, turn)
                raise
            tell_start(live, chat_id, turn, context.trimmed_turn_ids, context.count.total)
            return await self._follow(job, chat_id, turn, first, events)

    async def _plan(
        self, job: Job, setting: Setting, new: tuple[Picture, ...]
    ) -> tuple[Turn, Context]:
        question = job.question
        sampling = question.wishes.resolve(self.defaults)
        images = (*setting.opening_images, *(picture.info for picture in new))
        drops = question.overflow is OverflowPolicy.DROP_OLDEST_TURNS
        words, system = (setting.history, question.prompt), setting.chat.system_prompt
        build = partial(
            self.contexts.build,
            *words,
            images,
            system_prompt=system,
            drop_for_tokens=sampling.max_tokens if drops else None,
        )
        is_long = self.contexts.is_long(*words, system_prompt=system)
        context = await self.aside.do(job.tenant, build, is_long=is_long)
        turn = Turn(
            id=secrets.token_hex(16),
            parent_id=setting.history[-1].id if setting.history else None,
            prompt=question.prompt,
            images=images,
            question_ids=context.question_ids,
            num_trimmed_turns=len(context.trimmed_turn_ids),
            num_untrimmed_tokens=context.num_tokens_before,
            sampling=sampling,
            model=self.engine.info.model,
            created_at=datetime.now(UTC),
            device=self.engine.info.device,
            library_versions=self.engine.info.library_versions,
            tokenizer_sha256=self.contexts.prompts.tokenizer_sha256,
        )
        return turn, context

    async def _take_pictures(self, job: Job, hold: Hold) -> tuple[Picture, ...]:
        if not job.question.images:
            return ()
        pictures = []
        with job.account.phase("intake"):
            for index, source in enumerate(job.question.images):
                picture = await self._take_picture(job.tenant, index, source)
                # The file is in the question, and once more in the message that it came in.
                hold.take(picture.num_bytes + 2 * len(source.data or b""))
                pictures.append(picture)
        return tuple(pictures)

    async def _take_picture(self, tenant: str, index: int, source: ImageSource) -> Picture:
        if source.image_id is not None:
            return await self.store.get_picture(tenant, source.image_id)
        return await take_new(self.intake, tenant, index, source)

    async def _begin(
        self, job: Job, setting: Setting, turn: Turn, pictures: tuple[Picture, ...]
    ) -> None:
        question, chat = job.question, setting.chat
        claim = None
        if question.request_id:
            claim = RequestClaim(
                job.tenant, question.request_id, question.body_sha256, chat.id, turn.id
            )
        with job.account.phase("commit_question"):
            if setting.is_new:
                await self.store.begin_chat(chat, turn, pictures, claim)
            else:
                await self.store.begin_turn(job.tenant, chat.id, turn, pictures, claim)
        job.account.is_kept = True

    async def _take_back(self, job: Job, chat_id: str, turn: Turn) -> None:
        """End a turn that may have been kept as running, and that nobody was told of.

        It would lock its chat; ended with its server, so to speak, its repeat is answered anew.
        """
        cut = turn.break_off("", TurnState.CANCELLED, FinishReason.SHUTDOWN)
        with suppress(ChatError):  # what finds no database now is the store's to keep later
            await complete(self._keep_end(job, chat_id, cut))

    async def _follow(
        self,
        job: Job,
        chat_id: str,
        turn: Turn,
        first: asyncio.Future[EngineEvent],
        events: AsyncGenerator[EngineEvent, None],
    ) -> Ended:
        """Pass the answer on as it comes, and keep its end."""
        live = job.live
        try:
            event: EngineEvent | None = await first
            while event is not None and not isinstance(event, Finished):
                live.publish(event)
                event = await anext(events, None)
            if event is None or event.finish_reason is FinishReason.ERROR:
                raise EngineFailed
            job.account.phases += event.phases
        except asyncio.CancelledError:
            # The engine did not end the turn in time; what came is kept all the same.
            cut = turn.break_off(live.answer, TurnState.CANCELLED, FinishReason.SHUTDOWN)
            await complete(self._keep_end(job, chat_id, cut))
            raise
        except _PASSING:
            # The caller is told to try again: a repeat of the request is answered anew, as that of
            # a turn that ended with its server, and not told for ever that it failed.
            cut = turn.break_off(live.answer, TurnState.CANCELLED, FinishReason.SHUTDOWN)
            await self._keep_end(job, chat_id, cut)
            raise
        except Exception:
            failed = turn.break_off(live.answer, TurnState.FAILED, FinishReason.ERROR)
            await self._keep_end(job, chat_id, failed)
            raise
        await self._keep_end(job, chat_id, turn.end(live.answer, event))
        if event.finish_reason is FinishReason.SHUTDOWN:
            raise ShuttingDown(STOP_RETRY_SECONDS)
        return Ended(event.finish_reason, event.matched_stop, event.usage, event.timings)

    async def _keep_end(self, job: Job, chat_id: str, turn: Turn) -> None:
        job.account.turn = turn
        with suppress(NotFound), job.account.phase("commit_answer"):
            # Not found: the chat was erased while it ran.
            await self.store.finish_turn(job.tenant, chat_id, turn)


def tell_start(
    live: LiveTurn,
    chat_id: str,
    turn: Turn,
    trimmed_turn_ids: tuple[str, ...],
    num_tokens: int,
) -> None:
    """Tell that a recorded turn has begun, and which turns its prompt of `num_tokens` lacks."""
    live.publish(Started(chat_id, turn.id, turn.parent_id, turn.model, turn.sampling, turn.images))
    if trimmed_turn_ids:
        live.publish(Trimmed(trimmed_turn_ids, turn.num_untrimmed_tokens, num_tokens))


async def _dismiss(future: asyncio.Future[EngineEvent]) -> None:
    future.cancel()
    with suppress(BaseException):
        await future
