"""All turns of the server: who may begin one, who follows one, and how they end together.

Contract: one turn runs at a time in a chat; a repeated request_id follows the running turn that
it became, or gets the recorded one again, and one that ended with its server is answered anew; a
turn that nobody follows any more is cancelled after a grace period, or as soon as its chat is
asked something else; one that is cancelled by name ends at once, whoever follows it.
It must not know gRPC or torch.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from functools import partial

from llavachat_server.chats.account import TurnAccount
from llavachat_server.chats.aside import Aside
from llavachat_server.chats.context import ContextBuilder, TokenCount
from llavachat_server.chats.current import CurrentChats
from llavachat_server.chats.eraser import Eraser
from llavachat_server.chats.errors import (
    NotFound,
    PromptNeverSeen,
    RequestReused,
    ShuttingDown,
    StoreUnavailable,
    TurnRunning,
)
from llavachat_server.chats.held import MAX_HELD_BYTES, HeldPictures
from llavachat_server.chats.live import LiveTurn
from llavachat_server.chats.question import Place, Question
from llavachat_server.chats.record import Chat, RequestClaim, Turn, TurnState
from llavachat_server.chats.repeat import ask_again, tell_recorded
from llavachat_server.chats.replay import Replayer, Verdict
from llavachat_server.chats.runner import STOP_RETRY_SECONDS, Job, TurnRunner
from llavachat_server.chats.setting import read_setting
from llavachat_server.chats.sources import check_new
from llavachat_server.chats.store import ChatStore, IdleChat
from llavachat_server.images.intake import Intake
from llavachat_server.interfaces import Engine
from llavachat_server.observation import TurnReport, name_error
from llavachat_server.values import (
    Delta,
    FinishReason,
    InvalidField,
    Sampling,
)

_CANCEL_SECONDS = 5.0
"""The engine ends a cancelled turn within a few steps; past this it is not waited for."""


class Turns:
    """Runs turns.

    Args:
        engine: answers; it has been started.
        store: keeps.
        intake: decodes pictures.
        defaults: sampling of a request that names none.
        max_turn_seconds: the longest that a turn may take, waiting included.
        abandon_grace_seconds: how long a turn goes on that nobody follows any more.
        observe: gets the account of each turn before its end is told; it must not raise.
    """

    def __init__(
        self,
        engine: Engine,
        store: ChatStore,
        intake: Intake,
        *,
        defaults: Sampling,
        max_turn_seconds: float,
        abandon_grace_seconds: float = 0.0,
        observe: Callable[[TurnReport], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._intake = intake
        self._contexts = ContextBuilder(
            engine.prompts,
            engine.info.context_tokens,
            engine.info.num_image_tokens,
            engine.info.model,
        )
        self._aside = Aside()
        self._runner = TurnRunner(
            engine,
            store,
            intake,
            self._contexts,
            self._aside,
            HeldPictures(MAX_HELD_BYTES),
            defaults,
            max_turn_seconds,
        )
        self._eraser = Eraser(engine, store)
        self._replayer = Replayer(engine, store, self._contexts, max_turn_seconds)
        self._abandon_grace_seconds = abandon_grace_seconds
        self._observe = observe
        self._tasks: dict[LiveTurn, asyncio.Task[None]] = {}
        self._requests: dict[tuple[str, str], LiveTurn] = {}
        self._running: dict[tuple[str, str], LiveTurn] = {}
        self._current = CurrentChats(store, self._running)
        self._is_stopping = False

    def ask(
        self, tenant: str, question: Question, admit: Callable[[], None] = lambda: None
    ) -> LiveTurn:
        """Begin a turn, or find the running one that this request became.

        The caller follows it at once; see `LiveTurn.follow` for when it ends.

        Args:
            tenant: who asks.
            question: what.
            admit: called before a turn is begun; what it raises prevents it.

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
        admit()
        live = LiveTurn(question.body_sha256, self._abandon, self._abandon_grace_seconds)
        if question.request_id:
            self._requests[key] = live
        account = TurnAccount(tenant, question, self._engine.info.model)
        job = Job(tenant, question, live, account)
        self._tasks[live] = task = asyncio.create_task(self._run(job))
        task.add_done_callback(lambda _: self._note_end(job))
        return live

    async def resume(self, tenant: str, chat_id: str, turn_id: str, char_offset: int) -> LiveTurn:
        """Find a turn, running or ended, to follow it from `char_offset` on at once.

        Raises:
            NotFound: no such chat or turn.
            InvalidField: the answer does not have so many characters.
            StoreFull, StoreUnavailable, StoreDamaged: the turn has ended, but its end could not be
                kept yet.
        """
        live = self._running.get((tenant, chat_id))
        if live is None or live.turn_id != turn_id:
            turn = await self._store.get_turn(tenant, chat_id, turn_id)
            if turn.state is TurnState.RUNNING:
                raise self._store.explain_debt()
            live = LiveTurn("", lambda _: None)
            await self._tell_recorded(live, tenant, chat_id, turn)
            if turn.finish_reason is FinishReason.SHUTDOWN:
                # More may have been told than was kept: the process died in between.
                return live
        if char_offset > len(live.answer):
            raise InvalidField(
                "char_offset", f"the answer has {len(live.answer)} characters so far"
            )
        return live

    async def cancel_turn(self, tenant: str, chat_id: str, turn_id: str) -> Turn:
        """End a running turn at once; its followers get its end.

        Returns:
            The turn as it is kept: cancelled, or as it had ended before.

        Raises:
            NotFound: no such chat or turn.
            StoreFull, StoreUnavailable, StoreDamaged: the turn has ended, but its end could not be
                kept yet.
        """
        live = self._running.get((tenant, chat_id))
        if live is not None and live.turn_id == turn_id:
            await self._end_and_wait(live)
        turn = await self._store.get_turn(tenant, chat_id, turn_id)
        if turn.state is TurnState.RUNNING:
            is_still_live = live is not None and self._running.get((tenant, chat_id)) is live
            raise (
                StoreUnavailable(STOP_RETRY_SECONDS)
                if is_still_live
                else self._store.explain_debt()
            )
        return turn

    def replay(
        self, tenant: str, chat_id: str, turn_id: str
    ) -> AsyncGenerator[Delta | Verdict, None]:
        """See `Replayer.replay`.

        Raises:
            ShuttingDown: the server is stopping.
        """
        if self._is_stopping:
            raise ShuttingDown(STOP_RETRY_SECONDS)
        return self._replayer.replay(tenant, chat_id, turn_id)

    async def count(self, tenant: str, question: Question) -> TokenCount:
        """Count the tokens of a question without asking it.

        Raises:
            NotFound, InvalidField: as for `ask`.
        """
        setting = await read_setting(self._store, tenant, question.where)
        for index, source in enumerate(question.images):
            if source.image_id is not None:
                await self._store.get_image(tenant, source.image_id)
                continue
            await check_new(self._intake, tenant, index, source)
        num_images = len(setting.opening_images) + len(question.images)
        words, system = (setting.history, question.prompt), setting.chat.system_prompt
        count = partial(self._contexts.count, *words, num_images, system_prompt=system)
        is_long = self._contexts.is_long(*words, system_prompt=system)
        return await self._aside.do(tenant, count, is_long=is_long)

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """Read a chat, a running answer as far as it has come.

        Raises:
            NotFound: no such chat.
        """
        return await self._current.get_chat(tenant, chat_id)

    async def get_branch(self, tenant: str, chat_id: str, turn_id: str) -> Chat:
        """Read a chat with the turns down to one alone, likewise.

        Raises:
            NotFound: no such chat or turn.
        """
        return await self._current.get_branch(tenant, chat_id, turn_id)

    async def get_turn(self, tenant: str, chat_id: str, turn_id: str) -> Turn:
        """Read one turn, likewise.

        Raises:
            NotFound: no such chat or turn.
        """
        return await self._current.get_turn(tenant, chat_id, turn_id)

    async def delete_chat(self, tenant: str, chat_id: str) -> None:
        """Erase a chat; a running turn is cancelled first.

        Raises:
            NotFound: no such chat.
        """
        live = self._running.get((tenant, chat_id))
        if live is not None:
            live.end_error = NotFound("chat", chat_id)
            await self._end_and_wait(live)
        await self._eraser.erase(tenant, chat_id)

    async def retire_chat(self, idle: IdleChat) -> bool:
        """Erase a chat unless it is used, or was since it was found; whether it was erased.

        Raises:
            NotFound: no such chat.
        """
        if (idle.tenant, idle.id) in self._running:
            return False
        return await self._eraser.retire(idle)

    def raw_prompt(self, chat: Chat, turn: Turn, by_id: Mapping[str, Turn] | None = None) -> str:
        """The prompt of a recorded turn as the model saw it, special tokens shown.

        It takes a while, and may be called in any thread. `by_id`: see `Chat.branch`.

        Raises:
            OtherTokenizer: today's model does not have the words of the turn's ids.
            PromptNeverSeen: the turn was imported, and the model never saw such a prompt.
        """
        context_tokens = self._engine.info.context_tokens
        if turn.imported and turn.num_untrimmed_tokens >= context_tokens:
            # What a model has answered fits into its context. An import may have a million tokens,
            # which are spelt in one go that nobody else can run beside.
            raise PromptNeverSeen(turn.num_untrimmed_tokens, context_tokens)
        history = chat.branch(turn.parent_id, by_id)
        ids = self._contexts.rebuild_ids(history, turn, chat.system_prompt)
        return self._engine.prompts.render(ids)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more questions; end running turns and replays after the grace period.

        Their followers get `ShuttingDown`, their records say SHUTDOWN. Chats that are being erased
        are erased.
        """
        self._is_stopping = True
        await self._wait_for_turns(grace_seconds)
        for live in list(self._tasks):
            self._end(live, FinishReason.SHUTDOWN)
        self._replayer.stop()
        await self._wait_for_turns(_CANCEL_SECONDS)
        late = set(self._tasks.values())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)
        await self._eraser.wait(_CANCEL_SECONDS)

    async def _wait_for_turns(self, max_seconds: float) -> None:
        """Wait until nothing is being answered or replayed, no longer than this."""
        running = {*self._tasks.values(), *self._replayer.running}
        if running and max_seconds > 0:
            await asyncio.wait(running, timeout=max_seconds)

    def _end(self, live: LiveTurn, reason: FinishReason = FinishReason.CANCELLED) -> None:
        live.end_reason = reason
        if live.turn_id:
            self._engine.cancel(live.turn_id, reason)
        elif (task := self._tasks.get(live)) is not None:
            task.cancel()

    def _abandon(self, live: LiveTurn) -> None:
        """End a turn whose reader did not come back."""
        # To a server that stops a reader may find no way back: asked once more, the question is
        # answered anew, as that of any turn that ended with its server.
        self._end(live, FinishReason.SHUTDOWN if self._is_stopping else FinishReason.CANCELLED)

    async def _end_and_wait(self, live: LiveTurn) -> None:
        """End a running turn, and wait until its end is kept."""
        self._end(live)
        if (task := self._tasks.get(live)) is not None:
            await asyncio.wait({task}, timeout=_CANCEL_SECONDS)

    async def _end_abandoned(self, slot: tuple[str, str]) -> None:
        """End the turn of a chat that is asked something else, if nobody follows it."""
        live = self._running.get(slot)
        if live is not None and live.is_abandoned:
            await self._end_and_wait(live)

    async def _run(self, job: Job) -> None:
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
            error = live.end_error or ShuttingDown(STOP_RETRY_SECONDS)
            is_own_end = live.end_reason is FinishReason.CANCELLED
            self._observe(job.account.report("cancelled" if is_own_end else name_error(error)))
            live.fail(error)
            raise
        except Exception as error:
            self._observe(job.account.report(name_error(error)))
            live.fail(error)
        finally:
            self._let_go(job)

    def _let_go(self, job: Job) -> None:
        del self._tasks[job.live]
        key = (job.tenant, job.question.request_id)
        if self._requests.get(key) is job.live:
            del self._requests[key]

    def _note_end(self, job: Job) -> None:
        """A turn's task is done; one that was cancelled before its first step has told nobody."""
        if job.live in self._tasks:
            self._let_go(job)
            job.live.fail(job.live.end_error or ShuttingDown(STOP_RETRY_SECONDS))

    async def _repeat(self, job: Job, claim: RequestClaim) -> None:
        """Tell the recorded turn once more, or answer anew what ended with its server."""
        if claim.body_sha256 != job.question.body_sha256:
            raise RequestReused
        turn = await self._store.get_turn(job.tenant, claim.chat_id, claim.turn_id)
        if turn.state is TurnState.RUNNING:
            # It runs no more, but its end could not be kept yet.
            raise self._store.explain_debt()
        if turn.finish_reason is FinishReason.SHUTDOWN:
            again = ask_again(job.question, claim.chat_id, turn, self._engine.info)
            await self._settle(replace(job, question=again))
        else:
            await self._tell_recorded(job.live, job.tenant, claim.chat_id, turn)

    async def _tell_recorded(self, live: LiveTurn, tenant: str, chat_id: str, turn: Turn) -> None:
        trimmed: tuple[str, ...] = ()
        if turn.num_trimmed_turns:
            ids = await self._store.get_branch_ids(tenant, chat_id, turn.id)
            trimmed = ids[: turn.num_trimmed_turns]
        tell_recorded(live, chat_id, turn, trimmed)

    async def _settle(self, job: Job) -> None:
        """Take the one place in the chat, and answer there."""
        where = job.question.where
        chat_id = where.chat_id if isinstance(where, Place) else secrets.token_hex(16)
        slot = (job.tenant, chat_id)
        if slot in self._running:
            await self._store.get_opening(job.tenant, chat_id)  # NotFound where there is none
            await self._end_abandoned(slot)
        if slot in self._running:
            raise TurnRunning
        self._running[slot] = job.live
        try:
            setting = await read_setting(self._store, job.tenant, where, chat_id)
            ended = await self._runner.run(job, setting)
        finally:
            del self._running[slot]
        self._observe(job.account.report())
        # Told last, so that who has read it may ask again at once.
        job.live.publish(ended)
