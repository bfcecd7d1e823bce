"""Which picture has which virtual token ids: bookkeeping, without a tensor in sight.

A picture's features live in a slot of a table on the device, and its ids lead there: ids that
share a slot differ by a multiple of the table's length. An id is never given to a second
picture, because cached prefixes are found by their ids and a stale one would answer about the
wrong picture. A slot knows the last owners who used it, and is emptied with the last of them that
is forgotten. It is pinned while a request that needs it is in flight, and the slot that
was unpinned longest ago goes to the next new picture.

The bank belongs to one event loop; it knows neither torch nor the engine.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

MAX_TOKEN_ID = 2**31 - 1
"""Token ids are int32 throughout the generation loop."""

MAX_OWNERS = 8
"""Owners that a slot knows, the last ones to use it."""


@dataclass(frozen=True, slots=True)
class ImageKey:
    """What makes two pictures the same: the id of their pixels, and whose they are.

    The tenant is part of it so that no tenant can tell from the time to the first token that
    another one has asked about the same picture.
    """

    tenant: str
    image_id: str


@dataclass(slots=True)
class Slot:
    """One place of the table. `first_id` and `key` are None while it is empty.

    `is_forsaken`: its owners were all forgotten while it was pinned; the last pin takes it along.
    """

    index: int
    key: ImageKey | None = None
    first_id: int | None = None
    is_filled: bool = False
    is_forsaken: bool = False
    num_pins: int = 0
    owners: dict[Hashable, None] = field(default_factory=dict)
    next_generation: int = field(default=0, repr=False)


class ImageBank:
    """Hands out slots and ids.

    Args:
        num_slots: pictures that fit.
        tokens_per_image: ids of one picture.
        first_id: the lowest id it may hand out.
        flush_prefixes: called when the ids are used up and begin anew; the callee must forget
            every cached prefix before another request is scheduled.
        max_id: the highest id it may hand out.
    """

    def __init__(
        self,
        num_slots: int,
        tokens_per_image: int,
        first_id: int,
        flush_prefixes: Callable[[], None],
        max_id: int = MAX_TOKEN_ID,
    ) -> None:
        if first_id + num_slots * tokens_per_image - 1 > max_id:
            raise ValueError("the token ids leave no room for one generation of pictures")
        self.num_slots = num_slots
        self._tokens_per_image = tokens_per_image
        self._first_id = first_id
        self._max_id = max_id
        self._flush_prefixes = flush_prefixes
        self._slots = [Slot(index) for index in range(num_slots)]
        self._by_key: dict[ImageKey, Slot] = {}
        # The next victim first.
        self._unpinned: OrderedDict[int, Slot] = OrderedDict(enumerate(self._slots))

    def pin(self, keys: Sequence[ImageKey], owner: Hashable | None = None) -> list[Slot] | None:
        """Pin a slot for each picture, all of them or none.

        Args:
            keys: the pictures of one request; the same one may come twice.
            owner: whose request it is; see `forget_owner`. None: nobody's.

        Returns:
            Slots in the order of the keys, or None while too many are pinned by others. The
            caller fills those that are not `is_filled`, and unpins every one that it got.
        """
        new = list(dict.fromkeys(key for key in keys if key not in self._by_key))
        hits = {self._by_key[key].index for key in keys if key in self._by_key}
        if len(new) > sum(index not in hits for index in self._unpinned):
            return None
        for key in keys:
            if key in self._by_key:
                self._add_pin(self._by_key[key])
        for key in new:
            self._assign(key)
        seen: set[ImageKey] = set()
        for key in keys:
            # `_assign` pinned the first use of a new picture.
            if key in seen and key in new:
                self._add_pin(self._by_key[key])
            seen.add(key)
        slots = [self._by_key[key] for key in keys]
        for slot in slots:
            self._note_use(slot, owner)
        return slots

    def knows(self, keys: Sequence[ImageKey]) -> bool:
        """Whether each of these pictures has its slot."""
        return all(key in self._by_key for key in keys)

    def unpin(self, slots: Sequence[Slot]) -> None:
        """Give pins back, one for each mention."""
        for slot in slots:
            slot.num_pins -= 1
            if slot.num_pins == 0:
                self._unpinned[slot.index] = slot
                if slot.is_forsaken or not slot.is_filled:
                    self._empty(slot)

    def forget_owner(self, owner: Hashable) -> None:
        """Empty the slots that no other known owner uses, pinned ones with their last pin."""
        for slot in self._slots:
            if owner in slot.owners:
                del slot.owners[owner]
                slot.is_forsaken = not slot.owners
                if slot.is_forsaken and slot.num_pins == 0:
                    self._empty(slot)

    def _note_use(self, slot: Slot, owner: Hashable | None) -> None:
        slot.is_forsaken = False
        if owner is None:
            return
        slot.owners.pop(owner, None)
        slot.owners[owner] = None
        if len(slot.owners) > MAX_OWNERS:
            del slot.owners[next(iter(slot.owners))]

    def _empty(self, slot: Slot) -> None:
        self._forget(slot)
        self._unpinned.move_to_end(slot.index, last=False)

    def _add_pin(self, slot: Slot) -> None:
        slot.num_pins += 1
        self._unpinned.pop(slot.index, None)

    def _assign(self, key: ImageKey) -> None:
        slot = next(iter(self._unpinned.values()))
        self._forget(slot)
        if self._compute_first_id(slot) + self._tokens_per_image - 1 > self._max_id:
            self._begin_anew()
        slot.key, slot.first_id = key, self._compute_first_id(slot)
        slot.next_generation += 1
        self._by_key[key] = slot
        self._add_pin(slot)

    def _compute_first_id(self, slot: Slot) -> int:
        run = slot.next_generation * self.num_slots + slot.index
        return self._first_id + run * self._tokens_per_image

    def _forget(self, slot: Slot) -> None:
        if slot.key is not None:
            del self._by_key[slot.key]
        slot.key, slot.first_id, slot.is_filled = None, None, False
        slot.is_forsaken = False
        slot.owners.clear()

    def _begin_anew(self) -> None:
        # Pinned slots keep their ids and their count: only their own requests can still add
        # prefixes, and those name nothing but pinned pictures.
        self._flush_prefixes()
        for slot in self._unpinned.values():
            self._forget(slot)
            slot.next_generation = 0
