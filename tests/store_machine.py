"""Random histories, told to a store and to `MemoryStore` at once: their answers must be equal."""

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from llavachat_server.chats.errors import ChatError
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.record import RequestClaim
from llavachat_server.chats.store import ChatQuery, ChatStore, PageMark
from llavachat_server.values import FinishReason
from store_contract import summarise
from store_records import NOON, end, make_chat, make_import, make_picture, make_turn

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
minutes = st.integers(0, 9)
places = st.integers(0, 3)
tenants = st.sampled_from(("ada", "bob"))
shades = st.lists(st.integers(0, 3), max_size=3)
shade_pairs = st.tuples(places, places)
label_sets = st.dictionaries(st.sampled_from("kl"), st.sampled_from("12"), max_size=2)
_histories = itertools.count()


def compare_with_memory(store: ChatStore, max_examples: int) -> None:
    """Run random histories.

    Args:
        store: empty; each history has tenants of its own in it.
        max_examples: how many histories.
    """

    class Machine(StoreMachine):
        """A machine on this store."""

        def __init__(self) -> None:
            super().__init__(store)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class StoreMachine(RuleBasedStateMachine):
    """Does to both stores what hypothesis draws."""

    def __init__(self, store: ChatStore) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._store = store
        self._model = MemoryStore()
        self._prefix = f"{next(_histories)}-"
        self._num_ids = 0

    def teardown(self) -> None:
        """End the event loop."""
        self._runner.close()

    @rule(
        tenant=tenants,
        place=places,
        minute=minutes,
        labels=label_sets,
        prompt=texts,
        system_prompt=st.none() | texts,
        pictures=shades,
        request=st.none() | places,
    )
    def begin_chat(
        self,
        tenant: str,
        place: int,
        minute: int,
        labels: dict[str, str],
        prompt: str,
        system_prompt: str | None,
        pictures: list[int],
        request: int | None,
    ) -> None:
        """Open a chat, where there is none at this place."""
        tenant, chat_id = self._prefix + tenant, f"{place:032x}"
        if self._ask(self._model.get_chat(tenant, chat_id))[0] is None:
            return
        chat = make_chat(tenant, minute, id=chat_id, labels=labels, system_prompt=system_prompt)
        taken = tuple(make_picture(shade) for shade in pictures)
        turn = make_turn(prompt, tuple(p.info for p in taken), minute, id=self._make_id())
        claim = self._claim(tenant, request, chat_id, turn.id)
        self._compare("begin_chat", chat, turn, taken, claim)

    @rule(
        tenant=tenants,
        place=places,
        minute=minutes,
        prompt=texts,
        pictures=shades,
        request=st.none() | places,
    )
    def begin_turn(
        self,
        tenant: str,
        place: int,
        minute: int,
        prompt: str,
        pictures: list[int],
        request: int | None,
    ) -> None:
        """Ask in a chat, whether it is there or not."""
        tenant, chat_id = self._prefix + tenant, f"{place:032x}"
        taken = tuple(make_picture(shade) for shade in pictures)
        turn = make_turn(prompt, tuple(p.info for p in taken), minute, id=self._make_id())
        claim = self._claim(tenant, request, chat_id, turn.id)
        self._compare("begin_turn", tenant, chat_id, turn, taken, claim)

    @rule(tenant=tenants, place=places, minute=minutes, labels=label_sets, pictures=shade_pairs)
    def add_chat(
        self,
        tenant: str,
        place: int,
        minute: int,
        labels: dict[str, str],
        pictures: tuple[int, int],
    ) -> None:
        """Bring a whole chat, where there is none at this place."""
        tenant, chat_id = self._prefix + tenant, f"{place:032x}"
        if self._ask(self._model.get_chat(tenant, chat_id))[0] is None:
            return
        first, second = (make_picture(shade) for shade in pictures)
        brought = make_import(first, second)
        time = _time(minute)
        chat = replace(brought, id=chat_id, tenant=tenant, labels=labels, updated_at=time)
        self._compare("add_chat", chat, (first, second))

    @rule(tenant=tenants, place=places, answer=texts, reason=st.sampled_from(FinishReason))
    def finish_turn(self, tenant: str, place: int, answer: str, reason: FinishReason) -> None:
        """End the last turn of a chat."""
        tenant, chat_id = self._prefix + tenant, f"{place:032x}"
        error, chat = self._ask(self._model.get_chat(tenant, chat_id))
        turn = chat.turns[-1] if error is None else make_turn()
        self._compare("finish_turn", tenant, chat_id, end(turn, answer, reason))

    @rule(tenant=tenants, place=places)
    def delete_chat(self, tenant: str, place: int) -> None:
        """Erase a chat, whether it is there or not."""
        self._compare("delete_chat", self._prefix + tenant, f"{place:032x}")

    @rule(tenant=tenants, place=places, shade=places)
    def read(self, tenant: str, place: int, shade: int) -> None:
        """Read a chat, its branches, a picture and a request."""
        tenant, chat_id = self._prefix + tenant, f"{place:032x}"
        self._compare("get_chat", tenant, chat_id)
        self._compare("get_opening", tenant, chat_id)
        error, chat = self._ask(self._model.get_chat(tenant, chat_id))
        for turn_id in (None, *(turn.id for turn in (() if error else chat.turns))):
            self._compare("get_branch", tenant, chat_id, turn_id)
            if turn_id is not None:
                self._compare("get_turn", tenant, chat_id, turn_id)
        self._compare("find_claim", tenant, f"r{place}")
        image_id = make_picture(shade).info.id
        expected, told = (
            self._ask(store.get_picture(tenant, image_id)) for store in (self._model, self._store)
        )
        assert expected[0] == told[0]
        if expected[0] is None:
            # Whose media type is told is the store's own business; the pixels are not.
            assert expected[1].pixels.tobytes() == told[1].pixels.tobytes()

    @rule(
        tenant=tenants,
        limit=st.integers(1, 3),
        labels=label_sets,
        since=st.none() | minutes,
        before=st.none() | minutes,
        after=st.none() | st.tuples(minutes, places),
    )
    def list_chats(
        self,
        tenant: str,
        limit: int,
        labels: dict[str, str],
        since: int | None,
        before: int | None,
        after: tuple[int, int] | None,
    ) -> None:
        """Read a page."""
        query = ChatQuery(
            limit,
            PageMark(_time(after[0]), f"{after[1]:032x}") if after else None,
            labels,
            None if since is None else _time(since),
            None if before is None else _time(before),
        )
        tenant = self._prefix + tenant
        (_, expected), (_, told) = (
            self._ask(store.list_chats(tenant, query)) for store in (self._model, self._store)
        )
        assert summarise(expected.chats) == summarise(told.chats)
        assert expected.next == told.next

    def _compare(self, method: str, *arguments: Any) -> None:
        expected, told = (
            self._ask(getattr(store, method)(*arguments)) for store in (self._model, self._store)
        )
        assert expected == told

    def _ask(self, call: Coroutine[Any, Any, Any]) -> tuple[Any, Any]:
        try:
            return None, self._runner.run(call)
        except ChatError as error:
            return (type(error), str(error)), None

    def _make_id(self) -> str:
        self._num_ids += 1
        return f"{self._num_ids:032x}"

    def _claim(
        self, tenant: str, request: int | None, chat_id: str, turn_id: str
    ) -> RequestClaim | None:
        if request is None:
            return None
        return RequestClaim(tenant, f"r{request}", "a" * 64, chat_id, turn_id)


def _time(minute: int) -> Any:
    return NOON + timedelta(minutes=minute)
