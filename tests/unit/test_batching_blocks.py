"""The cache's bookkeeping, by example and as a state machine."""

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
from llavachat_server.engine.batching.blocks import MAX_OWNERS, BlockPool


def fill(
    pool: BlockPool, token_ids: list[int], salt: bytes = b"", owner: str | None = None
) -> list[int]:
    """Hold blocks for a prompt and name the full ones, as the scheduler does."""
    blocks, names = pool.acquire_prefix(token_ids, salt, owner)
    needed = pool.count_blocks(len(token_ids)) - len(blocks)
    fresh = pool.allocate(needed, blocks[-1] if blocks else None, needed)
    assert fresh is not None
    blocks += fresh
    name = names[-1] if names else pool.name_root(salt)
    size = pool.block_tokens
    for index in range(len(names), len(token_ids) // size):
        name = pool.name_block(name, token_ids[index * size : (index + 1) * size])
        pool.register(blocks[index], name, owner)
    return blocks


def test_prefix_is_found_in_whole_blocks() -> None:
    """A second prompt shares the full blocks that it has in common with the first."""
    pool = BlockPool(8, 4)
    first = fill(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    blocks, _ = pool.acquire_prefix([1, 2, 3, 4, 5, 6, 7, 8, 10, 11], b"")
    assert first[:2] == blocks


def test_one_token_is_always_left_to_compute() -> None:
    """A prompt that is cached to its last token still needs that token's logits."""
    pool = BlockPool(8, 4)
    fill(pool, [1, 2, 3, 4, 5, 6, 7, 8])
    blocks, _ = pool.acquire_prefix([1, 2, 3, 4, 5, 6, 7, 8], b"")
    assert 1 == len(blocks)


def test_same_block_after_another_prefix_is_not_shared() -> None:
    """A block's name stands for everything before it, too."""
    pool = BlockPool(8, 2)
    fill(pool, [1, 2, 3, 4])
    blocks, _ = pool.acquire_prefix([9, 9, 3, 4, 5], b"")
    assert [] == blocks


def test_salts_do_not_share() -> None:
    """What one tenant cached is not found by another."""
    pool = BlockPool(8, 2)
    fill(pool, [1, 2, 3], salt=b"one")
    assert [] == pool.acquire_prefix([1, 2, 3], b"two")[0]
    assert [] != pool.acquire_prefix([1, 2, 3], b"one")[0]


def test_least_recently_used_block_goes_first() -> None:
    """Under pressure the older prefix loses its end, and the newer one nothing."""
    pool = BlockPool(6, 2)
    old, new = [1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16]
    pool.release(fill(pool, old))
    pool.release(fill(pool, new))
    assert pool.allocate(1, None, 1) is not None
    kept = [len(pool.acquire_prefix([*ids, 0], b"")[0]) for ids in (old, new)]
    assert [2, 3] == kept


def test_finding_a_prefix_renews_it() -> None:
    """A prefix that was just used outlives one that was not."""
    pool = BlockPool(6, 2)
    old, new = [1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16]
    pool.release(fill(pool, old))
    pool.release(fill(pool, new))
    pool.release(pool.acquire_prefix([*old, 0], b"")[0])
    assert pool.allocate(3, None, 3) is not None
    kept = [len(pool.acquire_prefix([*ids, 0], b"")[0]) for ids in (old, new)]
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
    assert [] == pool.acquire_prefix([1, 2, 3], b"")[0]
    assert [] == pool.acquire_prefix([4, 5, 6], b"")[0]
    pool.release(held)
    assert 8 == pool.num_available


def count_found(pool: BlockPool, token_ids: list[int]) -> int:
    """Blocks of a prompt's prefix that are found, by nobody in particular."""
    blocks, _ = pool.acquire_prefix([*token_ids, 0], b"")
    pool.release(blocks)
    return len(blocks)


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
        pool.release(fill(pool, [1, 2, 3], owner=f"{number}"))
    assert [MAX_OWNERS] == [len(owners) for owners in pool._owners.values()]
    for number in range(1000 - MAX_OWNERS, 1000):
        assert 1 == count_found(pool, [1, 2])
        pool.forget_owner(f"{number}")
    assert 0 == count_found(pool, [1, 2])
    assert {} == pool._owners


class PoolMachine(RuleBasedStateMachine):
    """Chats come, grow, share, go and are forgotten; the books must always balance."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(9, 2)
        self.held: list[list[int]] = []
        # What each block was written with: the whole prefix up to its end.
        self.content: dict[int, tuple[bytes, tuple[int, ...]]] = {}
        # Who has used a prefix and was not forgotten since.
        self.users: dict[tuple[bytes, tuple[int, ...]], set[str | None]] = {}

    @rule(
        target=sequences,
        ids=st.lists(st.integers(0, 2), min_size=1, max_size=9),
        salt=st.sampled_from([b"", b"x"]),
        room=st.integers(0, 6),
        owner=st.none() | st.sampled_from("abc"),
    )
    def begin(self, ids: list[int], salt: bytes, room: int, owner: str | None) -> object:
        """A chat enters if there is room."""
        pool = self.pool
        blocks, names = pool.acquire_prefix(ids, salt, owner)
        for index, block in enumerate(blocks):
            content = (salt, tuple(ids[: 2 * index + 2]))
            assert content == self.content[block]
            assert self.users[content], "what its last user was forgotten with is found"
            self.users[content].add(owner)
        needed = pool.count_blocks(len(ids)) - len(blocks)
        fresh = pool.allocate(needed, blocks[-1] if blocks else None, needed + room)
        if fresh is None:
            pool.release(blocks)
            return multiple()
        blocks = blocks + fresh
        name = names[-1] if names else pool.name_root(salt)
        for index in range(len(names), len(ids) // 2):
            name = pool.name_block(name, ids[2 * index : 2 * index + 2])
            content = (salt, tuple(ids[: 2 * index + 2]))
            self.content[blocks[index]] = content
            self.users.setdefault(content, set()).add(owner)
            pool.register(blocks[index], name, owner)
        self.held.append(blocks)
        return blocks

    @rule(blocks=sequences, room=st.integers(1, 4))
    def grow(self, blocks: list[int], room: int) -> None:
        """An answer needs one more block."""
        if blocks not in self.held:
            return
        fresh = self.pool.allocate(1, blocks[-1], room)
        if fresh is not None:
            self.content.pop(fresh[0], None)
            blocks += fresh

    @rule(blocks=consumes(sequences))
    def end(self, blocks: list[int]) -> None:
        """An answer is over."""
        self.held = [other for other in self.held if other is not blocks]
        self.pool.release(blocks)

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
        in_use = {block for blocks in self.held for block in blocks}
        assert self.pool.num_blocks - len(in_use) == self.pool.num_available

    @invariant()
    def owners_are_of_named_blocks(self) -> None:
        """A block without a name has no owner, and none has an empty set of them."""
        for block, owners in self.pool._owners.items():
            assert self.pool._names[block] is not None
            assert owners

    @invariant()
    def unfinished_blocks_are_private(self) -> None:
        """No block lies in two places of one sequence."""
        for blocks in self.held:
            assert len(set(blocks)) == len(blocks)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
