"""The paged cache's bookkeeping: which block belongs to whom, and which prefix it holds.

A block is a place for `block_tokens` tokens' keys and values. It is *blank* (no content),
*held* (by one or more sequences) or *kept* (by nobody, but its content can be found again).
Kept blocks are given up one by one, the least recently used first, and of one sequence's
blocks the last before the first.

A full block is named by a digest of its parent's name and its own tokens, so that a name
stands for a whole prefix. Picture ids are part of it and are unique to a picture: different
pictures never share. Behind its last named block a prompt may go on like the beginning of another
block, full or not: what nobody holds is taken over if the prompt goes on after all of it, and
anything else is copied (`Prefix`).

A block that can be found knows the last owners who used it, and with the last of them that is
forgotten its content becomes unfindable. Who else may have used it long before finds it no more,
which costs time and nothing else; the books stay small however many owners there are. Who
continues a block that is not full is its only owner from then on, and who copies of one is none.

Blocks of a sequence are laid side by side where there is room, because attention reads
neighbouring blocks as one piece of memory. That is a hope, never a promise.

Pure bookkeeping: it knows no tensor and no request.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from llavachat_server.engine.batching.beginnings import Beginnings

_TAKEN, _BLANK, _SPOKEN_FOR = 0, 1, 2

_MIN_EXTENT_BLOCKS = 8
"""Under pressure so many kept blocks are given up at once, where the sequence will need them:
single blocks from all over the cache would scatter it."""

MAX_OWNERS = 8
"""Owners that a block knows, the last ones to use it."""


MIN_COPIED_TOKENS = 2
"""A single one is not worth its copy. On two CPU cores a block of the benchmark's model is copied
in 0.1 ms, and a token of a prompt computed in 0.25 ms."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What of a prompt is known, with one more holder for each block in it.

    Args:
        blocks: the first ones of the prompt; the last one may be partly filled.
        names: of the full ones among them.
        source: the block whose first tokens come next, to be copied into the prompt's next block
            and then released; None where there is none.
        num_tokens: of the prompt that are known, those in `source` included.
    """

    blocks: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    source: int | None = None
    num_tokens: int = 0


class BlockPool:
    """Hands out blocks and finds prefixes.

    Args:
        num_blocks: places, 1 or more.
        block_tokens: tokens of a block, 1 or more.
        min_copied_tokens: fewer of a block are not copied.
    """

    def __init__(
        self, num_blocks: int, block_tokens: int, min_copied_tokens: int = MIN_COPIED_TOKENS
    ) -> None:
        if num_blocks < 1 or block_tokens < 1:
            raise ValueError("a pool needs at least one block of at least one token")
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self._min_copied_tokens = min_copied_tokens
        self._num_holders = [0] * num_blocks
        self._names: list[bytes | None] = [None] * num_blocks
        self._by_name: dict[bytes, int] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._beginnings = Beginnings()
        # Of blocks that can be found; of one block the one who used it longest ago first.
        self._owners: dict[int, dict[Hashable, None]] = {}
        # One byte a block, because bytes.find looks for runs of blanks at memory speed.
        self._map = bytearray([_BLANK]) * num_blocks
        self._num_blank = num_blocks

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can still hand out."""
        return self._num_blank + len(self._kept)

    @property
    def num_kept(self) -> int:
        """Blocks that hold a prefix, and nobody's at the moment."""
        return len(self._kept)

    def count_blocks(self, num_tokens: int) -> int:
        """Blocks that so many tokens fill, a partly filled one included."""
        return -(-num_tokens // self.block_tokens)

    def name_root(self, salt: bytes) -> bytes:
        """The parent name of a first block. Prefixes under different salts never meet."""
        return hashlib.blake2b(salt, digest_size=16, person=b"root").digest()

    def name_block(self, parent: bytes, token_ids: Sequence[int]) -> bytes:
        """The name of the block of `token_ids` that follows the prefix `parent`."""
        return hashlib.blake2b(parent + array("q", token_ids).tobytes(), digest_size=16).digest()

    def acquire_prefix(
        self,
        token_ids: Sequence[int],
        salt: bytes,
        owner: Hashable | None = None,
        known_names: list[bytes] | None = None,
    ) -> Prefix:
        """Hold the longest known prefix; at least one token is left over.

        Args:
            token_ids: of the prompt.
            salt: see `name_root`.
            owner: whose prompt it is; see `forget_owner`. None: nobody's.
            known_names: of the prompt's full blocks, as an earlier call left them; it adds those
                that it needed.
        """
        known_names = [] if known_names is None else known_names
        blocks: list[int] = []
        names: list[bytes] = []
        parent = self.name_root(salt)
        for end in range(self.block_tokens, len(token_ids), self.block_tokens):
            if len(names) == len(known_names):
                own_ids = token_ids[end - self.block_tokens : end]
                known_names.append(self.name_block(parent, own_ids))
            name = known_names[len(names)]
            block = self._by_name.get(name)
            if block is None:
                break
            self._hold(block)
            self._note_owner(block, owner)
            blocks.append(block)
            names.append(name)
            parent = name
        num_tokens = len(blocks) * self.block_tokens
        # A last block that is full is never shared in whole: a token is left over.
        end = min(num_tokens + self.block_tokens, len(token_ids) - 1)
        found = self._beginnings.find(parent, token_ids[num_tokens:end])
        if found is None:
            return Prefix(blocks, names, None, num_tokens)
        block, num_shared = found
        is_partial = self._names[block] is None
        if (
            is_partial
            and block in self._kept
            and num_shared == self._beginnings.count_tokens(block)
        ):
            self._hold(block)
            return Prefix([*blocks, block], names, None, num_tokens + num_shared)
        if num_shared < self._min_copied_tokens:
            return Prefix(blocks, names, None, num_tokens)
        self._hold(block)
        return Prefix(blocks, names, block, num_tokens + num_shared)

    def allocate(self, num_blocks: int, after: int | None, room_blocks: int) -> list[int] | None:
        """Hold blank blocks; kept ones are given up where there are not enough.

        Args:
            num_blocks: how many.
            after: the block that they continue, to lie behind it if possible.
            room_blocks: how many the sequence may come to need in all, these included; that
                much room is left behind them if possible.

        Returns:
            The blocks with one holder each, or None when there are too few; then nothing has
            changed.
        """
        if num_blocks > self.num_available:
            return None
        found: list[int] = []
        while len(found) < num_blocks:
            following = (found[-1] if found else after if after is not None else -2) + 1
            if not (0 < following < self.num_blocks and self._map[following] != _TAKEN):
                wanted = max(num_blocks, room_blocks) - len(found)
                following = self._begin_extent(num_blocks - len(found), wanted)
            self._map[following] = _TAKEN
            self._num_blank -= 1
            self._num_holders[following] = 1
            found.append(following)
        return found

    def register(
        self, block: int, parent: bytes, token_ids: Sequence[int], owner: Hashable | None = None
    ) -> bytes:
        """Let a held, full block be found. A twin that came first stays.

        Args:
            block: which.
            parent: the name of the block before it, or of the root.
            token_ids: all that it holds.
            owner: who uses it.

        Returns:
            Its name.
        """
        name = self.name_block(parent, token_ids)
        twin = self._by_name.get(name)
        if twin is None:
            self._note_beginning(block, parent, token_ids)
            self._names[block] = name
            self._by_name[name] = block
        elif twin != block:
            self._unname(block)
        self._note_owner(self._by_name[name], owner)
        return name

    def register_beginning(
        self, block: int, parent: bytes, token_ids: Sequence[int], owner: Hashable | None = None
    ) -> None:
        """Let what a held block holds so far be found, unless another block has all of it.

        Args:
            block, parent, owner: see `register`.
            token_ids: that it holds, 1 or more and less than all.
        """
        found = self._beginnings.find(parent, token_ids)
        if found is not None and found[1] == len(token_ids):
            return
        self._note_beginning(block, parent, token_ids)
        self._note_owner(block, owner)

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of a sequence's blocks, in its order; what can be found is kept."""
        if blocks:
            self._unreserve(blocks[-1])
        for block in reversed(blocks):
            if self._num_holders[block] < 1:
                raise ValueError(f"block {block} is held by nobody")
            self._num_holders[block] -= 1
            if self._num_holders[block] == 0:
                if block in self._beginnings:
                    self._kept[block] = None
                else:
                    self._map[block] = _BLANK
                    self._num_blank += 1

    def forget(self) -> None:
        """Make every prefix unfindable; held blocks stay with their holders."""
        self._give_up(len(self._kept))
        self._names = [None] * self.num_blocks
        self._by_name.clear()
        self._beginnings.clear()
        self._owners.clear()

    def forget_owner(self, owner: Hashable) -> None:
        """Make unfindable what no other known owner uses; held blocks stay with their holders."""
        for block in [block for block, owners in self._owners.items() if owner in owners]:
            del self._owners[block][owner]
            if not self._owners[block]:
                self._unname(block)
                if block in self._kept:
                    del self._kept[block]
                    self._map[block] = _BLANK
                    self._num_blank += 1

    def _note_owner(self, block: int, owner: Hashable | None) -> None:
        if owner is None:
            return
        owners = self._owners.setdefault(block, {})
        owners.pop(owner, None)
        owners[owner] = None
        if len(owners) > MAX_OWNERS:
            del owners[next(iter(owners))]

    def _hold(self, block: int) -> None:
        self._num_holders[block] += 1
        self._kept.pop(block, None)

    def _note_beginning(self, block: int, parent: bytes, token_ids: Sequence[int]) -> None:
        # What has been added is of the one who added it alone.
        self._owners.pop(block, None)
        self._beginnings.note(block, parent, token_ids)

    def _unname(self, block: int) -> None:
        name = self._names[block]
        if name is not None:
            del self._by_name[name]
            self._names[block] = None
        self._beginnings.forget(block)
        self._owners.pop(block, None)

    def _begin_extent(self, num_needed: int, num_wanted: int) -> int:
        # The first block of a run of blanks that is as long as possible, at most num_wanted.
        extent = max(num_needed, min(num_wanted, _MIN_EXTENT_BLOCKS))
        self._give_up(extent - self._num_blank)
        length = num_wanted
        while length:
            start = self._map.find(bytes([_BLANK]) * length)
            if start >= 0:
                self._map[start : start + length] = bytes([_SPOKEN_FOR]) * length
                return start
            length //= 2
        # Nothing is left but room that other sequences had hoped for.
        return self._map.find(_SPOKEN_FOR)

    def _unreserve(self, last: int) -> None:
        # Room behind the last block may be another's hope; giving up a hope harms nobody.
        following = last + 1
        while following < self.num_blocks and self._map[following] == _SPOKEN_FOR:
            self._map[following] = _BLANK
            following += 1

    def _give_up(self, num_blocks: int) -> None:
        for _ in range(min(num_blocks, len(self._kept))):
            block, _ = self._kept.popitem(last=False)
            self._unname(block)
            self._map[block] = _BLANK
            self._num_blank += 1
