"""The cache's bookkeeping, by example and as a state machine."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)
from llavachat_server.engine.batching.beginnings import Beginnings
from llavachat_server.engine.batching.blocks import MAX_OWNERS, BlockPool


def fill(
    pool: BlockPool, token_ids: list[int], salt: bytes = b"", owner: str | None = None
) -> list[int]:
    """Hold blocks for a prompt and let them be found, as the scheduler does."""
    prefix = pool.acquire_prefix(token_ids, salt, owner)
    blocks = list(prefix.blocks)
    needed = pool.count_blocks(len(token_ids)) - len(blocks)
    fresh = pool.allocate(needed, blocks[-1] if blocks else None, needed)
    assert fresh is not None
    blocks += fresh
    if prefix.source is not None:
        pool.release([prefix.source])
    name = prefix.names[-1] if prefix.names else pool.name_root(salt)
    size = pool.block_tokens
    for index in range(len(prefix.names), len(token_ids) // size):
        name = pool.register(
            blocks[index], name, token_ids[index * size : (index + 1) * size], owner
        )
    rest = token_ids[len(token_ids) // size * size :]
    if rest:
        pool.register_beginning(blocks[-1], name, rest, owner)
    return blocks


def test_prefix_is_found_in_whole_blocks() -> None:
    """A second prompt shares the full blocks that it has in common with the first."""
    pool = BlockPool(8, 4)
    first = fill(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert first[:2] == pool.acquire_prefix([1, 2, 3, 4, 5, 6, 7, 8, 10, 11], b"").blocks


def test_one_token_is_always_left_to_compute() -> None:
    """A prompt that is cached to its last token still needs that token's logits."""
    pool = BlockPool(8, 4)
    blocks = fill(pool, [1, 2, 3, 4, 5, 6, 7, 8])
    prefix = pool.acquire_prefix([1, 2, 3, 4, 5, 6, 7, 8], b"")
    assert (blocks[:1], blocks[1], 7) == (prefix.blocks, prefix.source, prefix.num_tokens)


def test_a_chat_goes_on_in_its_last_block() -> None:
    """What a block that nobody holds has so far is found to the token, and taken over."""
    pool = BlockPool(8, 4)
    blocks = fill(pool, [1, 2, 3, 4, 5, 6])
    pool.release(blocks)
    prefix = pool.acquire_prefix([1, 2, 3, 4, 5, 6, 7, 8, 9], b"")
    assert (blocks, 1, None, 6) == (
        prefix.blocks,
        len(prefix.names),
        prefix.source,
        prefix.num_tokens,
    )


def test_a_beginning_that_another_holds_is_copied() -> None:
    """Of a full block as well, if a part is wanted, and never to the prompt's last token."""
    pool = BlockPool(8, 4, min_copied_tokens=2)
    blocks = fill(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    found = [
        pool.acquire_prefix(ids, b"")
        for ids in (
            [1, 2, 3, 4, 5, 6, 7, 0, 0],
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0],
            [1, 2, 3, 4, 5, 6, 7],
        )
    ]
    assert [(1, blocks[1], 7), (2, blocks[2], 10), (1, blocks[1], 6)] == [
        (len(prefix.blocks), prefix.source, prefix.num_tokens) for prefix in found
    ]


def test_a_beginning_whose_holder_goes_on_is_not_taken() -> None:
    """All of it is wanted, and its holder still writes behind it: it is copied."""
    pool = BlockPool(8, 4)
    held = fill(pool, [1, 2])
    prefix = pool.acquire_prefix([1, 2, 3, 4, 5], b"")
    assert ([], held[0], 2) == (prefix.blocks, prefix.source, prefix.num_tokens)


def test_what_has_become_a_twin_is_kept_once() -> None:
    """Two go on alike from one beginning: who fills its block later leaves no second copy."""
    pool = BlockPool(8, 4)
    slow = fill(pool, [1, 2])
    fast = fill(pool, [1, 2, 3, 4, 5])
    pool.register(slow[0], pool.name_root(b""), [1, 2, 3, 4])
    pool.release(slow)
    pool.release(fast)
    assert (2, 6) == (pool.num_kept, pool._num_blank)


def test_a_block_that_is_named_again_stays_found() -> None:
    """It is no twin of its own."""
    pool = BlockPool(8, 4)
    (block,) = pool.allocate(1, None, 1) or ()
    root = pool.name_root(b"")
    assert pool.register(block, root, [1, 2, 3, 4]) == pool.register(block, root, [1, 2, 3, 4])
    assert [block] == pool.acquire_prefix([1, 2, 3, 4, 5], b"").blocks


def test_too_little_is_not_copied() -> None:
    """Fewer tokens than a copy is worth are computed."""
    pool = BlockPool(8, 4, min_copied_tokens=3)
    fill(pool, [1, 2, 3])
    prefix = pool.acquire_prefix([1, 2, 0, 0], b"")
    assert ([], None, 0) == (prefix.blocks, prefix.source, prefix.num_tokens)


def test_what_two_hold_is_kept_once() -> None:
    """A beginning that another block has already takes no room when its holder goes."""
    pool = BlockPool(8, 4)
    first, second = fill(pool, [1, 2]), fill(pool, [1, 2])
    pool.release(first)
    pool.release(second)
    assert (1, 7) == (pool.num_kept, pool._num_blank)


def test_who_goes_on_in_a_block_is_its_only_owner() -> None:
    """With an answer's chat its words are forgotten, whoever the beginning was of."""
    pool = BlockPool(8, 4)
    pool.release(fill(pool, [1, 2], owner="a"))
    pool.release(fill(pool, [1, 2, 3], owner="b"))
    pool.forget_owner("b")
    assert 0 == pool.acquire_prefix([1, 2, 3, 4], b"").num_tokens
    assert 8 == pool._num_blank


def test_same_block_after_another_prefix_is_not_shared() -> None:
    """A block's name stands for everything before it, too."""
    pool = BlockPool(8, 2)
    fill(pool, [1, 2, 3, 4])
    assert 0 == pool.acquire_prefix([9, 9, 3, 4, 5], b"").num_tokens


def test_salts_do_not_share() -> None:
    """What one tenant cached is not found by another."""
    pool = BlockPool(8, 2)
    fill(pool, [1, 2, 3], salt=b"one")
    assert 0 == pool.acquire_prefix([1, 2, 3], b"two").num_tokens
    assert 2 == pool.acquire_prefix([1, 2, 3], b"one").num_tokens


def test_least_recently_used_block_goes_first() -> None:
    """Under pressure the older prefix loses its end, and the newer one nothing."""
    pool = BlockPool(6, 2)
    old, new = [1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16]
    pool.release(fill(pool, old))
    pool.release(fill(pool, new))
    assert pool.allocate(1, None, 1) is not None
    kept = [len(pool.acquire_prefix([*ids, 0], b"").blocks) for ids in (old, new)]
    assert [2, 3] == kept


def test_finding_a_prefix_renews_it() -> None:
    """A prefix that was just used outlives one that was not."""
    pool = BlockPool(6, 2)
    old, new = [1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16]
    pool.release(fill(pool, old))
    pool.release(fill(pool, new))
    pool.release(pool.acquire_prefix([*old, 0], b"").blocks)
    assert pool.allocate(3, None, 3) is not None
    kept = [len(pool.acquire_prefix([*ids, 0], b"").blocks) for ids in (old, new)]
    assert [3, 0] == kept


def test_blocks_of_two_growing_sequences_stay_side_by_side() -> None:
    """Each sequence's growth finds the room that it was given."""
    pool = BlockPool(16, 4)
    sequences: list[list[int]] = [[], []]
    for _ in range(4):
        for blocks in sequences:
            fresh = pool.allocate(1, blocks[-1] if blocks else None, 4 - len(blocks))
            assert fresh is not None
            blocks += fresh
    for blocks in sequences:
        assert list(range(blocks[0], blocks[0] + 4)) == blocks


def test_room_that_is_given_up_is_in_one_piece() -> None:
    """In a cache that is full of what might be found, a sequence still lies side by side."""
    pool = BlockPool(8, 2)
    for number in range(4):
        pool.release(fill(pool, [10 * number + token for token in range(4)]))
    assert 8 == pool.num_kept
    blocks: list[int] = []
    for left in (4, 3, 2, 1):
        fresh = pool.allocate(1, blocks[-1] if blocks else None, left)
        assert fresh is not None
        blocks += fresh
    assert list(range(blocks[0], blocks[0] + 4)) == blocks


def test_room_that_was_hoped_for_goes_with_its_sequence() -> None:
    """A later comer gets a piece that reaches into it."""
    pool = BlockPool(24, 4)
    held = pool.allocate(4, None, 4)
    ended = pool.allocate(1, None, 8)
    assert ([0, 1, 2, 3], [4]) == (held, ended)
    pool.release([4])
    assert [*range(4, 24)] == pool.allocate(20, None, 20)


def test_a_pool_of_nothing_is_refused() -> None:
    """Neither without blocks nor with blocks that hold no token."""
    for num_blocks, block_tokens in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="at least one block of at least one token"):
            BlockPool(num_blocks, block_tokens)
    assert 1 == BlockPool(1, 1).num_available


def test_a_block_that_begins_anew_is_no_longer_found_where_it_was() -> None:
    """What it holds now would be taken for the continuation of another prefix."""
    beginnings = Beginnings()
    beginnings.note(3, b"one", [5, 6, 7])
    beginnings.note(3, b"other", [5, 6])
    assert (None, (3, 2)) == (beginnings.find(b"one", [5, 6]), beginnings.find(b"other", [5, 6]))
    assert (2, 0) == (beginnings.count_tokens(3), beginnings.count_tokens(4))


def test_too_many_blocks_change_nothing() -> None:
    """An allocation that can not be met is refused as a whole."""
    pool = BlockPool(4, 4)
    assert pool.allocate(5, None, 5) is None
    assert 4 == pool.num_available


def test_double_release_is_refused() -> None:
    """A block that nobody holds can not be let go."""
    pool = BlockPool(4, 4)
    blocks = pool.allocate(1, None, 1)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(ValueError, match="held by nobody"):
        pool.release(blocks)


def test_forgotten_prefixes_are_not_found() -> None:
    """After `forget` neither kept nor held blocks are found, and held ones stay held."""
    pool = BlockPool(8, 2)
    pool.release(fill(pool, [1, 2, 3]))
    held = fill(pool, [4, 5, 6])
    pool.forget()
    assert (0, 6) == (pool.num_kept, pool.num_available)
    assert 0 == pool.acquire_prefix([1, 2, 3], b"").num_tokens
    assert 0 == pool.acquire_prefix([4, 5, 6], b"").num_tokens
    pool.release(held)
    assert 8 == pool.num_available


def count_found(pool: BlockPool, token_ids: list[int]) -> int:
    """Blocks of a prompt's prefix that are found, by nobody in particular."""
    prefix = pool.acquire_prefix([*token_ids, 0], b"")
    pool.release(prefix.blocks)
    return len(prefix.blocks)


def test_what_one_owner_alone_used_is_forgotten_with_it() -> None:
    """What another shares stays, up to where they part; the rest is room again."""
    pool = BlockPool(8, 2)
    pool.release(fill(pool, [1, 2, 3, 4, 5, 6], owner="a"))
    pool.release(fill(pool, [1, 2, 3, 4, 7, 8], owner="b"))
    pool.forget_owner("a")
    assert (2, 3) == (count_found(pool, [1, 2, 3, 4, 5, 6]), count_found(pool, [1, 2, 3, 4, 7, 8]))
    assert 5 == pool._num_blank
    pool.forget_owner("b")
    assert 0 == count_found(pool, [1, 2, 3, 4, 7, 8])
    assert 8 == pool._num_blank


def test_what_nobody_owns_stays() -> None:
    """It is given up when there is no more room, and not before."""
    pool = BlockPool(8, 2)
    pool.release(fill(pool, [1, 2, 3, 4]))
    pool.forget_owner("a")
    assert 2 == count_found(pool, [1, 2, 3, 4])


def test_a_held_block_is_forgotten_and_stays_with_its_holder() -> None:
    """Nobody finds it any more, and it is room once it is let go."""
    pool = BlockPool(4, 2)
    held = fill(pool, [1, 2, 3, 4], owner="a")
    pool.forget_owner("a")
    assert 0 == count_found(pool, [1, 2, 3, 4])
    assert (2, 2) == (pool.num_available, pool._num_blank)
    pool.release(held)
    assert 4 == pool._num_blank


def test_a_block_knows_its_last_owners_alone() -> None:
    """The books stay small; who used it long before finds it no more."""
    pool = BlockPool(4, 2)
    for number in range(1000):
        pool.release(fill(pool, [1, 2], owner=f"{number}"))
    assert [MAX_OWNERS] == [len(owners) for owners in pool._owners.values()]
    for number in range(1000 - MAX_OWNERS, 1000):
        assert 1 == count_found(pool, [1, 2])
        pool.forget_owner(f"{number}")
    assert 0 == count_found(pool, [1, 2])
    assert {} == pool._owners


def test_an_owner_who_comes_back_is_the_last_again() -> None:
    """Whoever else uses it meanwhile, it is not forgotten before those who came only once."""
    pool = BlockPool(4, 2)
    others = [f"{number}" for number in range(MAX_OWNERS - 1)]
    for owner in ("a", *others, "a", "last"):
        pool.release(fill(pool, [1, 2], owner=owner))
    for owner in (*others, "last"):
        pool.forget_owner(owner)
    assert 1 == count_found(pool, [1, 2])
    pool.forget_owner("a")
    assert 0 == count_found(pool, [1, 2])


@dataclass(eq=False)
class Chat:
    """A sequence as the scheduler has it, all of whose tokens are computed."""

    salt: bytes
    owner: str | None
    ids: list[int]
    blocks: list[int]
    names: list[bytes]


class PoolMachine(RuleBasedStateMachine):
    """Chats come, grow, share, go and are forgotten; the books must always balance."""

    chats = Bundle("chats")
    size = 3

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(9, self.size, min_copied_tokens=1)
        self.held: list[Chat] = []
        # What is written in each block: everything from the prompt's beginning up to there.
        self.written: dict[int, tuple[bytes, list[int]]] = {}
        # Who has computed or used a prefix and was not forgotten since.
        self.users: dict[tuple[bytes, tuple[int, ...]], set[str | None]] = {}

    def write(self, chat: Chat, start: int) -> None:
        """Compute the tokens from `start` on, and let full blocks be found."""
        size = self.size
        for position in range(start, len(chat.ids)):
            self.written[chat.blocks[position // size]] = chat.salt, chat.ids[: position + 1]
        self.use(chat)
        while (len(chat.names) + 1) * size <= len(chat.ids):
            index = len(chat.names)
            name = self.pool.register(
                chat.blocks[index],
                chat.names[-1] if index else self.pool.name_root(chat.salt),
                chat.ids[index * size : (index + 1) * size],
                chat.owner,
            )
            chat.names.append(name)

    def use(self, chat: Chat) -> None:
        """Note who uses what; one that goes on after it was forgotten does so anew."""
        for end in range(len(chat.ids) + 1):
            self.users.setdefault((chat.salt, tuple(chat.ids[:end])), set()).add(chat.owner)

    def tell_beginning(self, chat: Chat) -> None:
        """Let the block that is not full be found."""
        self.use(chat)
        rest = chat.ids[len(chat.names) * self.size :]
        if rest:
            parent = chat.names[-1] if chat.names else self.pool.name_root(chat.salt)
            self.pool.register_beginning(chat.blocks[len(chat.names)], parent, rest, chat.owner)

    @rule(
        target=chats,
        ids=st.lists(st.integers(0, 2), min_size=1, max_size=13),
        salt=st.sampled_from([b"", b"x"]),
        room=st.integers(0, 6),
        owner=st.none() | st.sampled_from("abc"),
    )
    def begin(self, ids: list[int], salt: bytes, room: int, owner: str | None) -> object:
        """A chat enters if there is room."""
        pool, size = self.pool, self.size
        prefix = pool.acquire_prefix(ids, salt, owner)
        assert prefix.num_tokens < len(ids)
        if prefix.num_tokens:
            assert self.users[salt, tuple(ids[: prefix.num_tokens])], (
                "what its last user was forgotten with is found"
            )
        sources = prefix.blocks + ([] if prefix.source is None else [prefix.source])
        for index, block in enumerate(sources):
            end = min((index + 1) * size, prefix.num_tokens)
            assert (salt, ids[:end]) == (self.written[block][0], self.written[block][1][:end])
        needed = pool.count_blocks(len(ids)) - len(prefix.blocks)
        after = prefix.blocks[-1] if prefix.blocks else None
        fresh = pool.allocate(needed, after, needed + room)
        if prefix.source is not None:
            assert prefix.source not in (fresh or ())
            pool.release([prefix.source])
        if fresh is None:
            pool.release(prefix.blocks)
            return multiple()
        chat = Chat(salt, owner, ids, prefix.blocks + fresh, list(prefix.names))
        self.write(chat, len(prefix.names) * size)
        self.tell_beginning(chat)
        self.held.append(chat)
        return chat

    @rule(chat=chats, token_id=st.integers(0, 2), room=st.integers(1, 4))
    def grow(self, chat: Chat, token_id: int, room: int) -> None:
        """An answer goes on by a token, if it needs no block or there is one."""
        if chat not in self.held:
            return
        if len(chat.ids) == len(chat.blocks) * self.size:
            fresh = self.pool.allocate(1, chat.blocks[-1], room)
            if fresh is None:
                return
            chat.blocks += fresh
        chat.ids = [*chat.ids, token_id]
        self.write(chat, len(chat.ids) - 1)

    @rule(chat=consumes(chats), is_sound=st.booleans())
    def end(self, chat: Chat, is_sound: bool) -> None:
        """An answer is over, or its step has failed."""
        self.held.remove(chat)
        if is_sound:
            self.tell_beginning(chat)
        self.pool.release(chat.blocks)

    @rule()
    def forget(self) -> None:
        """Every prefix is forgotten."""
        self.pool.forget()

    @rule(owner=st.sampled_from("abc"))
    def forget_owner(self, owner: str) -> None:
        """A chat is erased."""
        self.pool.forget_owner(owner)
        for users in self.users.values():
            users.discard(owner)

    @invariant()
    def holders_are_counted(self) -> None:
        """Blocks that nobody holds are available, and only those."""
        in_use = {block for chat in self.held for block in chat.blocks}
        assert self.pool.num_blocks - len(in_use) == self.pool.num_available

    @invariant()
    def owners_are_of_findable_blocks(self) -> None:
        """A block that can not be found has no owner, and none has an empty set of them."""
        for block, owners in self.pool._owners.items():
            assert block in self.pool._beginnings
            assert owners

    @invariant()
    def unfinished_blocks_are_private(self) -> None:
        """No block lies in two places of one chat, and none that is not full in two chats."""
        for chat in self.held:
            assert len(set(chat.blocks)) == len(chat.blocks)
        partial = [block for chat in self.held for block in chat.blocks[len(chat.names) :]]
        assert len(set(partial)) == len(partial)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
