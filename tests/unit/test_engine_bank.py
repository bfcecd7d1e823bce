"""Virtual ids: never reused for another picture, whatever the order of events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from llavachat_server.engine.bank import MAX_OWNERS, ImageBank, ImageKey, Slot

FIRST_ID, TOKENS, SLOTS = 1000, 4, 3


def key(name: str, tenant: str = "") -> ImageKey:
    """A picture by name."""
    return ImageKey(tenant, name)


def make_bank(**arguments: object) -> tuple[ImageBank, list[None]]:
    """A small bank, and the list that grows with each flush."""
    flushes: list[None] = []
    bank = ImageBank(
        SLOTS,
        TOKENS,
        FIRST_ID,
        lambda: flushes.append(None),
        **arguments,  # type: ignore[arg-type]
    )
    return bank, flushes


def pin(bank: ImageBank, *names: str) -> list[Slot]:
    """Pin and fill, as the engine does."""
    slots = bank.pin([key(name) for name in names])
    assert slots is not None
    for slot in slots:
        slot.is_filled = True
    return slots


def test_the_same_picture_keeps_its_ids() -> None:
    """That is what a follow-up's prefix is found by."""
    bank, _ = make_bank()
    first = pin(bank, "a")
    first_id = first[0].first_id
    bank.unpin(first)

    assert first_id == pin(bank, "a")[0].first_id


def test_another_tenant_gets_other_ids() -> None:
    """Time to the first token must not tell who else asked about a picture."""
    bank, _ = make_bank()
    slots = bank.pin([key("a", "one"), key("a", "two")])

    assert slots is not None
    assert slots[0].first_id != slots[1].first_id


def test_a_slot_leads_back_from_its_ids() -> None:
    """The embedding finds the row by the remainder."""
    bank, _ = make_bank()
    for round_number in range(5):
        for slot in (slots := pin(bank, f"{round_number}a", f"{round_number}b")):
            assert slot.first_id is not None
            assert slot.index * TOKENS == (slot.first_id - FIRST_ID) % (SLOTS * TOKENS)
        bank.unpin(slots)


def test_the_least_recently_used_picture_gives_way() -> None:
    """A picture that is asked about again and again stays."""
    bank, _ = make_bank()
    for name in ("a", "b", "c", "a"):
        bank.unpin(pin(bank, name))
    bank.unpin(pin(bank, "d"))

    assert pin(bank, "a")[0].is_filled
    assert not bank.pin([key("b")])[0].is_filled  # type: ignore[index]


def test_pinned_pictures_never_give_way() -> None:
    """No room is None, and what was pinned by others is untouched."""
    bank, _ = make_bank()
    slots = pin(bank, "a", "b")

    assert bank.pin([key("c"), key("d")]) is None
    assert [key("a"), key("b")] == [slot.key for slot in slots]
    assert bank.pin([key("c")]) is not None


def test_a_picture_twice_in_one_prompt_takes_one_slot() -> None:
    """And needs to be unpinned twice."""
    bank, _ = make_bank()
    slots = pin(bank, "a", "a")

    assert slots[0] is slots[1]
    assert 2 == slots[0].num_pins
    bank.unpin(slots)
    assert bank.pin([key("b"), key("c"), key("d")]) is not None


def test_a_picture_that_was_never_filled_is_forgotten() -> None:
    """A failed encoding must not leave an empty slot that looks like a picture."""
    bank, _ = make_bank()
    slots = bank.pin([key("a")])
    assert slots is not None
    first_id = slots[0].first_id
    bank.unpin(slots)
    again = bank.pin([key("a")])

    assert again is not None
    assert not again[0].is_filled
    assert first_id != again[0].first_id


def test_used_up_ids_flush_the_prefixes_before_they_begin_anew() -> None:
    """int32 ends; a stale prefix must not outlive its ids. A pinned picture keeps its own."""
    bank, flushes = make_bank(max_id=FIRST_ID + 2 * SLOTS * TOKENS - 1)
    held = pin(bank, "held")
    held_id = held[0].first_id
    ids = []
    for number in range(4):
        slots = pin(bank, f"{number}")
        ids.append(slots[0].first_id)
        bank.unpin(slots)
    assert [] == flushes
    bank.unpin(pin(bank, "next"))

    assert 1 == len(flushes)
    assert held_id == held[0].first_id
    assert len(ids) == len(set(ids))


def pin_for(bank: ImageBank, owner: str, *names: str) -> list[Slot]:
    """Pin and fill for an owner."""
    slots = bank.pin([key(name) for name in names], owner)
    assert slots is not None
    for slot in slots:
        slot.is_filled = True
    return slots


def test_a_picture_is_forgotten_with_its_last_owner() -> None:
    """One that another owner uses stays; its place is the next one to be taken."""
    bank, _ = make_bank()
    for owner, names in (("y", "b"), ("z", "c"), ("x", "ab")):
        bank.unpin(pin_for(bank, owner, *names))
    bank.forget_owner("x")
    assert [key("b"), key("c"), None] == [slot.key for slot in bank._slots]
    assert 2 == pin_for(bank, "y", "d")[0].index
    bank.forget_owner("nobody")
    assert key("b") == bank._slots[0].key


def test_a_pinned_picture_is_forgotten_with_its_last_pin() -> None:
    """Unless somebody else has come to use it meanwhile."""
    bank, _ = make_bank()
    held, other = pin_for(bank, "x", "a"), pin_for(bank, "x", "b")
    first_id = held[0].first_id
    bank.forget_owner("x")
    assert key("a") == held[0].key
    later = pin_for(bank, "y", "b")
    for slots in (held, other, later):
        bank.unpin(slots)
    assert [None, key("b")] == [slot.key for slot in bank._slots[:2]]
    assert first_id != pin_for(bank, "x", "a")[0].first_id


def test_a_slot_knows_its_last_owners_alone() -> None:
    """The books stay small."""
    bank, _ = make_bank()
    for number in range(100):
        bank.unpin(pin_for(bank, f"{number}", "a"))
    assert MAX_OWNERS == len(bank._slots[0].owners)
    bank.unpin(pin_for(bank, f"{100 - MAX_OWNERS}", "a"))
    bank.unpin(pin_for(bank, "100", "a"))
    latest = [*range(102 - MAX_OWNERS, 100), 100 - MAX_OWNERS, 100]
    assert [str(number) for number in latest] == list(bank._slots[0].owners)


def test_a_bank_without_ids_for_its_slots_is_refused() -> None:
    """It could not hold one round of pictures."""
    with pytest.raises(ValueError, match="no room"):
        make_bank(max_id=FIRST_ID + SLOTS * TOKENS - 2)


class BankMachine(RuleBasedStateMachine):
    """Requests come and go in any order; ids stay honest between two flushes."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: dict[int, ImageKey] = {}
        self.held: list[list[Slot]] = []
        self.users: dict[int, set[str]] = {}
        self.bank = ImageBank(
            SLOTS, TOKENS, FIRST_ID, self.flush, max_id=FIRST_ID + 3 * SLOTS * TOKENS - 1
        )

    def flush(self) -> None:
        """Cached prefixes are gone; those of running requests may come back."""
        pinned = [slot for slots in self.held for slot in slots]
        self.owners = {s.first_id: s.key for s in pinned if s.first_id is not None and s.key}

    @rule(
        names=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3),
        ok=st.booleans(),
        user=st.sampled_from("xyz"),
    )
    def ask(self, names: list[str], ok: bool, user: str) -> None:
        """A request pins its pictures, and its encoding works or fails."""
        slots = self.bank.pin([key(name) for name in names], user)
        if slots is None:
            busy = {slot.index for held in self.held for slot in held}
            assert len(busy) + len(set(names)) > SLOTS
            return
        self.held.append(slots)
        for name, slot in zip(names, slots, strict=True):
            assert key(name) == slot.key
            assert slot.first_id is not None
            assert slot.first_id + TOKENS - 1 < FIRST_ID + 3 * SLOTS * TOKENS
            assert key(name) == self.owners.setdefault(slot.first_id, key(name))
            slot.is_filled = slot.is_filled or ok
            self.users.setdefault(slot.first_id, set()).add(user)

    @rule(user=st.sampled_from("xyz"))
    def forget(self, user: str) -> None:
        """An owner is forgotten."""
        self.bank.forget_owner(user)
        for users in self.users.values():
            users.discard(user)

    @invariant()
    def forgotten_pictures_are_gone(self) -> None:
        """A picture that nobody has pinned is there for somebody who was not forgotten."""
        for slot in self.bank._slots:
            if slot.first_id is not None and slot.num_pins == 0:
                assert self.users[slot.first_id]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A request ends."""
        index = data.draw(st.integers(0, len(self.held) - 1))
        self.bank.unpin(self.held.pop(index))

    @invariant()
    def pins_add_up(self) -> None:
        """Each slot knows how many hold it."""
        slots = {slot.index: slot for held in self.held for slot in held}
        mentions = [slot.index for held in self.held for slot in held]
        assert all(mentions.count(index) == slot.num_pins for index, slot in slots.items())


TestBankMachine = BankMachine.TestCase
TestBankMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30))
def test_two_pictures_never_share_an_id(names: list[str]) -> None:
    """However often pictures push each other out."""
    bank, _ = make_bank()
    owners: dict[int, str] = {}
    for name in names:
        slots = pin(bank, name)
        assert slots[0].first_id is not None
        assert name == owners.setdefault(slots[0].first_id, name)
        bank.unpin(slots)
