"""The store in memory: what it keeps, what it forgets, and what it never shows."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from llavachat_server.chats.errors import ChatFull, NotFound, StoreFull, TurnRunning
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.record import Chat, RequestClaim, Turn, TurnState
from llavachat_server.chats.store import ChatQuery
from llavachat_server.images.intake import ImageInfo, Picture
from llavachat_server.values import ModelInfo, Quantization, Sampling
from PIL import Image

MODEL = ModelInfo("shapes", "shapes", "", Quantization.NONE, "")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def picture(number: int, side: int = 10) -> Picture:
    """A picture of `side` x `side` pixels with an id of its own."""
    return Picture(
        ImageInfo(f"{number:064x}", side, side, "image/png"), Image.new("RGB", (side, side))
    )


def chat(number: int, tenant: str = "t", labels: Mapping[str, str] | None = None) -> Chat:
    """A chat that was opened `number` minutes after noon."""
    time = NOON + timedelta(minutes=number)
    return Chat(f"chat-{number}", tenant, None, labels or {}, time, time)


def turn(number: int, *pictures: Picture, minutes: int = 0) -> Turn:
    """A running turn."""
    return Turn(
        id=f"turn-{number}",
        parent_id=None,
        prompt="What?",
        images=tuple(p.info for p in pictures),
        question_ids=(),
        num_trimmed_turns=0,
        num_untrimmed_tokens=0,
        sampling=Sampling(max_tokens=1),
        model=MODEL,
        created_at=NOON + timedelta(minutes=minutes),
    )


def end(running: Turn) -> Turn:
    """The same turn, finished a second after it began."""
    finished_at = running.created_at + timedelta(seconds=1)
    return replace(running, state=TurnState.FINISHED, finished_at=finished_at)


async def keep(store: MemoryStore, number: int, *pictures: Picture, tenant: str = "t") -> None:
    """Keep a chat with one finished turn."""
    first = turn(number, *pictures, minutes=number)
    claim = RequestClaim(tenant, f"request-{number}", "body", f"chat-{number}", first.id)
    await store.begin_chat(chat(number, tenant), first, pictures, claim)
    await store.finish_turn(tenant, f"chat-{number}", end(first))


async def listed(store: MemoryStore, tenant: str = "t", **query: object) -> list[str]:
    """Ids of a page."""
    page = await store.list_chats(tenant, ChatQuery(**query))  # type: ignore[arg-type]
    return [found.id for found in page.chats]


async def test_a_chat_is_kept_with_all_that_belongs_to_it() -> None:
    """Turn, picture and claim are there after the chat was begun."""
    store = MemoryStore()
    await keep(store, 1, picture(1))
    assert ["turn-1"] == [kept.id for kept in (await store.get_chat("t", "chat-1")).turns]
    assert picture(1).info == (await store.get_picture("t", picture(1).info.id)).info
    claim = await store.find_claim("t", "request-1")
    assert claim is not None
    assert ("chat-1", "turn-1") == (claim.chat_id, claim.turn_id)


async def test_tenants_see_nothing_of_each_other() -> None:
    """Another tenant's chat, picture and claim do not exist."""
    store = MemoryStore()
    await keep(store, 1, picture(1))
    for missing in (
        store.get_chat("other", "chat-1"),
        store.delete_chat("other", "chat-1"),
        store.get_picture("other", picture(1).info.id),
        store.begin_turn("other", "chat-1", turn(2), (), None),
        store.finish_turn("other", "chat-1", end(turn(1))),
    ):
        with pytest.raises(NotFound):
            await missing
    assert [] == await listed(store, "other")
    assert None is await store.find_claim("other", "request-1")


async def test_a_second_running_turn_is_refused() -> None:
    """The store itself keeps the one-turn rule."""
    store = MemoryStore()
    await keep(store, 1)
    await store.begin_turn("t", "chat-1", turn(2), (), None)
    with pytest.raises(TurnRunning):
        await store.begin_turn("t", "chat-1", turn(3), (), None)


async def test_deleting_erases_what_nobody_else_uses() -> None:
    """A picture that two chats use stays until both are gone; claims go with their chat."""
    store = MemoryStore()
    await keep(store, 1, picture(1))
    await keep(store, 2, picture(1), picture(2))
    await store.delete_chat("t", "chat-2")
    assert (await store.get_picture("t", picture(1).info.id)).pixels
    with pytest.raises(NotFound):
        await store.get_picture("t", picture(2).info.id)
    assert None is await store.find_claim("t", "request-2")
    await store.delete_chat("t", "chat-1")
    with pytest.raises(NotFound):
        await store.get_picture("t", picture(1).info.id)
    with pytest.raises(NotFound):
        await store.get_chat("t", "chat-1")


async def test_listing_pages_from_the_most_recently_used() -> None:
    """Pages follow each other without a gap or a repeat, the latest first."""
    store = MemoryStore()
    for number in range(5):
        await keep(store, number)
    first = await store.list_chats("t", ChatQuery(limit=2))
    second = await store.list_chats("t", ChatQuery(limit=2, after=first.next))
    third = await store.list_chats("t", ChatQuery(limit=2, after=second.next))
    found = [kept.id for page in (first, second, third) for kept in page.chats]
    assert ["chat-4", "chat-3", "chat-2", "chat-1", "chat-0"] == found
    assert None is third.next


async def test_a_page_that_holds_all_has_no_next() -> None:
    """Exactly as many chats as asked for: no further page is promised."""
    store = MemoryStore()
    await keep(store, 1)
    assert None is (await store.list_chats("t", ChatQuery(limit=1))).next


async def test_listing_by_labels_and_times() -> None:
    """Only chats with all the labels, used within the times."""
    store = MemoryStore()
    for number, labels in enumerate(({"a": "1"}, {"a": "1", "b": "2"}, {"a": "2"})):
        await store.begin_chat(chat(number, labels=labels), turn(number, minutes=number), (), None)
    assert ["chat-1", "chat-0"] == await listed(store, labels={"a": "1"})
    assert ["chat-1"] == await listed(store, labels={"a": "1", "b": "2"})
    minute = NOON + timedelta(minutes=1)
    assert ["chat-2", "chat-1"] == await listed(store, updated_since=minute)
    assert ["chat-0"] == await listed(store, updated_before=minute)


async def test_a_used_chat_moves_to_the_front() -> None:
    """A later turn makes its chat the latest."""
    store = MemoryStore()
    await keep(store, 1)
    await keep(store, 2)
    later = turn(3, minutes=3)
    await store.begin_turn("t", "chat-1", later, (), None)
    assert ["chat-1", "chat-2"] == await listed(store)


async def test_too_many_chats_forget_the_least_recently_used() -> None:
    """The bound holds; what is forgotten was used longest ago."""
    store = MemoryStore(max_chats=2)
    await keep(store, 1)
    await keep(store, 2)
    await store.begin_turn("t", "chat-1", turn(9, minutes=5), (), None)
    await store.finish_turn("t", "chat-1", end(turn(9, minutes=5)))
    await keep(store, 3)
    assert ["chat-1", "chat-3"] == sorted(await listed(store))


async def test_running_chats_are_not_forgotten() -> None:
    """Where every chat has a running turn, the new one is refused."""
    store = MemoryStore(max_chats=1)
    await store.begin_chat(chat(1), turn(1), (), None)
    with pytest.raises(StoreFull):
        await store.begin_chat(chat(2), turn(2), (), None)
    assert ["chat-1"] == await listed(store)


async def test_pictures_are_bounded_in_bytes() -> None:
    """Room for two pictures: the third forgets the first chat; a fourth, too large, is refused."""
    store = MemoryStore(max_picture_bytes=600)
    for number in (1, 2, 3):
        await keep(store, number, picture(number))
    assert ["chat-3", "chat-2"] == await listed(store)
    with pytest.raises(StoreFull):
        await keep(store, 4, picture(4, side=20))


async def test_what_can_never_fit_forgets_nothing() -> None:
    """A picture larger than all that is kept, or than what running chats leave, is refused."""
    store = MemoryStore(max_picture_bytes=1200)
    await keep(store, 1, picture(1), tenant="other")
    await keep(store, 2, picture(2))
    await store.begin_chat(chat(3), turn(3, picture(3)), (picture(3),), None)
    for side in (21, 18):  # 1323 bytes, and 972 where 900 can be had
        with pytest.raises(StoreFull):
            await keep(store, 4, picture(4, side))
    with pytest.raises(StoreFull):
        await keep(store, 4, replace(picture(4), original=bytes(700)))
    assert (["chat-1"], ["chat-2", "chat-3"]) == (
        await listed(store, "other"),
        sorted(await listed(store)),
    )
    await keep(store, 4, picture(4, side=17))
    assert ([], ["chat-3", "chat-4"]) == (await listed(store, "other"), sorted(await listed(store)))


async def test_files_make_room_with_their_chats() -> None:
    """What a chat brought goes with it: no other chat need go for the same bytes."""
    store = MemoryStore(max_picture_bytes=1400)
    await keep(store, 1, replace(picture(1), original=bytes(700)))
    await keep(store, 2, picture(2))
    await keep(store, 3, replace(picture(3), original=bytes(700)))
    assert ["chat-3", "chat-2"] == await listed(store)


async def test_a_picture_that_goes_and_comes_frees_nothing() -> None:
    """A chat gives way to a question about its own picture: that one's bytes are needed still."""
    store = MemoryStore(max_picture_bytes=600)
    await keep(store, 1, picture(1))
    await keep(store, 2, picture(2))
    await keep(store, 3, picture(1), picture(3))
    assert ["chat-3"] == await listed(store)
    assert 600 == store._picture_bytes


async def test_a_picture_counts_once() -> None:
    """Chats about one picture share its bytes."""
    store = MemoryStore(max_picture_bytes=300)
    for number in range(5):
        await keep(store, number, picture(1))
    assert 5 == len(await listed(store))


async def test_a_chat_takes_only_so_many_turns() -> None:
    """One chat can not grow for ever."""
    store = MemoryStore(max_turns_per_chat=1)
    await keep(store, 1)
    with pytest.raises(ChatFull):
        await store.begin_turn("t", "chat-1", turn(2), (), None)
    with pytest.raises(ChatFull):
        await store.add_chat(replace(chat(3), turns=(end(turn(3)),) * 2), ())


class StoreMachine(RuleBasedStateMachine):
    """Any order of writes: bounds hold, and no picture is kept without a chat or lost with one."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(max_chats=4, max_picture_bytes=1500)
        self.number = 0
        self.running: dict[str, Turn] = {}

    def run(self, step: object) -> object:
        """Run a coroutine that never waits."""
        try:
            step.send(None)  # type: ignore[attr-defined]
        except StopIteration as done:
            return done.value
        raise AssertionError("the store waited")

    @rule(pictures=st.lists(st.integers(0, 5), max_size=3, unique=True))
    def begin(self, pictures: list[int]) -> None:
        """A new chat."""
        self.number += 1
        kept = tuple(picture(number) for number in pictures)
        first = turn(self.number, *kept, minutes=self.number)
        before = list(self.store._chats)
        try:
            self.run(self.store.begin_chat(chat(self.number), first, kept, None))
        except StoreFull:
            assert before == list(self.store._chats)
            return
        self.running[f"chat-{self.number}"] = first

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A running turn ends."""
        chat_id = data.draw(st.sampled_from(sorted(self.running)))
        self.run(self.store.finish_turn("t", chat_id, end(self.running.pop(chat_id))))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """A chat is erased."""
        chat_id = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[chat_id]
        self.run(self.store.delete_chat("t", chat_id))

    @invariant()
    def holds(self) -> None:
        """What is kept belongs together and fits."""
        listed = self.run(self.store.list_chats("t", ChatQuery(limit=1000))).chats  # type: ignore[attr-defined]
        chats = [self.run(self.store.get_chat("t", found.id)) for found in listed]
        used = {image.id for kept in chats for one in kept.turns for image in one.images}
        assert set(self.running) <= {kept.id for kept in chats}
        assert len(chats) <= 4
        assert used == {image_id for _, image_id in self.store._pictures}
        assert 300 * len(used) == self.store._picture_bytes <= 1500


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStoreMachine = StoreMachine.TestCase
