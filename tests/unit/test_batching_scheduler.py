"""Who computes what: order, chunks, admission, stepping back."""

from collections.abc import Hashable
from collections.abc import Sequence as Ids

import pytest
from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.scheduler import Chunk, Scheduler
from llavachat_server.engine.batching.sequence import Job, Sequence


def make_scheduler(num_blocks: int = 32, *, max_running: int = 4, max_tokens: int = 8) -> Scheduler:
    """A scheduler over blocks of four tokens."""
    return Scheduler(BlockPool(num_blocks, 4), GapBudget(1.0, max_tokens), max_running)


def add(scheduler: Scheduler, number: int, num_tokens: int, max_new_tokens: int = 8) -> Sequence:
    """Queue a prompt of its own ids."""
    ids = [100 * number + index for index in range(num_tokens)]
    sequence = Sequence(Job(number, ids, max_new_tokens), list(ids))
    scheduler.add(sequence)
    return sequence


def run_step(scheduler: Scheduler) -> list[tuple[int, int, int]]:
    """One step with a made-up model: (job, start, tokens) of each chunk."""
    chunks = scheduler.plan()
    for chunk in chunks:
        scheduler.advance(chunk)
        if chunk.sequence.num_uncomputed == 0:
            chunk.sequence.token_ids.append(7)
    return [(c.sequence.job.number, c.start, c.num_tokens) for c in chunks]


def test_long_prompt_goes_in_chunks() -> None:
    """A prompt over the step's budget takes several steps, and nothing of it twice."""
    scheduler = make_scheduler(max_tokens=8)
    add(scheduler, 1, 19)
    assert [[(1, 0, 8)], [(1, 8, 8)], [(1, 16, 3)], [(1, 19, 1)]] == [
        run_step(scheduler) for _ in range(4)
    ]


def test_prompts_share_a_step() -> None:
    """What one takes of the budget is not there for the next, whichever line they are in."""
    scheduler = make_scheduler(max_tokens=8)
    add(scheduler, 1, 5)
    add(scheduler, 2, 10)
    add(scheduler, 3, 10)
    assert [
        [(1, 0, 5), (2, 0, 3)],
        [(1, 5, 1), (2, 3, 7), (3, 0, 1)],
        [(1, 6, 1), (2, 10, 1), (3, 1, 8)],
    ] == [sorted(run_step(scheduler)) for _ in range(3)]


def test_running_answers_do_not_wait_for_a_prompt() -> None:
    """While a prompt enters, each step also brings the running answer's next token."""
    scheduler = make_scheduler(max_tokens=16)
    add(scheduler, 1, 4)
    run_step(scheduler)
    add(scheduler, 2, 40)
    steps = [run_step(scheduler) for _ in range(3)]
    assert [(1, 4, 1), (1, 5, 1), (1, 6, 1)] == [step[0] for step in steps]
    assert all(2 == step[1][0] for step in steps)


def test_a_prompt_that_waits_for_room_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks' names do not change; only whether they are known, and whether there is room."""
    scheduler = make_scheduler(num_blocks=9, max_tokens=32)
    add(scheduler, 1, 16)
    while scheduler.running or scheduler.waiting:
        run_step(scheduler)
        if scheduler.running[0].num_new_tokens == 1:
            scheduler.remove(scheduler.running[0])
    add(scheduler, 2, 21)
    run_step(scheduler)
    known = [100 + index for index in range(16)]
    scheduler.add(Sequence(Job(3, [*known, *range(9)], 1), [*known, *range(9)]))
    name_block, named = scheduler.pool.name_block, []

    def note(parent: bytes, token_ids: Ids[int]) -> bytes:
        named.append(list(token_ids))
        return name_block(parent, token_ids)

    monkeypatch.setattr(scheduler.pool, "name_block", note)
    counts = []
    for _ in range(2):
        scheduler.plan()
        counts.append(len(named))
    assert 1 == len(scheduler.waiting)
    assert counts[0] == counts[1] > 0


def test_first_come_first_served() -> None:
    """A small prompt does not overtake a large one that came before."""
    scheduler = make_scheduler(num_blocks=6)
    add(scheduler, 1, 8, max_new_tokens=1)
    run_step(scheduler)
    add(scheduler, 2, 20)
    add(scheduler, 3, 1)
    assert {1} == {number for number, _, _ in run_step(scheduler)}


def test_a_prompt_as_large_as_the_cache_is_taken() -> None:
    """Also where a block that it would be copied from is one too many: it is computed in whole."""
    scheduler = make_scheduler(num_blocks=4, max_tokens=64)
    first = add(scheduler, 1, 7, max_new_tokens=1)
    run_step(scheduler)
    scheduler.remove(first)
    ids = [*first.token_ids[:6], *range(9)]
    scheduler.add(Sequence(Job(2, ids, 1), list(ids)))
    taken = run_step(scheduler)
    scheduler.end_copies()

    assert [(2, 4, 11)] == taken
    assert 0 == scheduler.pool.num_available


def test_no_more_than_max_running() -> None:
    """The batch has a bound, and the next one enters when a place is free."""
    scheduler = make_scheduler(max_running=2, max_tokens=64)
    sequences = [add(scheduler, number, 3) for number in (1, 2, 3)]
    assert [1, 2] == [number for number, _, _ in run_step(scheduler)]
    scheduler.remove(sequences[0])
    assert {2, 3} == {number for number, _, _ in run_step(scheduler)}


def test_full_cache_sends_the_latest_back() -> None:
    """When blocks run out the latest comer waits and the first goes on."""
    scheduler = make_scheduler(num_blocks=4, max_tokens=64)
    first = add(scheduler, 1, 4, max_new_tokens=9)
    second = add(scheduler, 2, 4, max_new_tokens=9)
    run_step(scheduler)
    for _ in range(6):
        run_step(scheduler)
    assert [first] == scheduler.running
    assert [second] == list(scheduler.waiting)
    assert [] == second.blocks


def test_who_needs_a_block_that_is_free_sends_nobody_back() -> None:
    """Each goes on in the step in which its last block is full."""
    scheduler = make_scheduler(num_blocks=6, max_tokens=64)
    add(scheduler, 1, 4, max_new_tokens=5)
    add(scheduler, 2, 4, max_new_tokens=5)
    run_step(scheduler)
    assert [[(1, at, 1), (2, at, 1)] for at in range(4, 8)] == [
        run_step(scheduler) for _ in range(4)
    ]


def test_who_made_room_by_sending_another_back_goes_on_at_once() -> None:
    """Its token is in the very step in which the other's is missing."""
    scheduler = make_scheduler(num_blocks=4, max_tokens=64)
    add(scheduler, 1, 4, max_new_tokens=9)
    add(scheduler, 2, 4, max_new_tokens=9)
    steps = [run_step(scheduler) for _ in range(6)]
    assert [[(1, 7, 1), (2, 7, 1)], [(1, 8, 1)]] == steps[4:]


def test_every_answer_ends_in_the_smallest_cache() -> None:
    """With room for one answer at a time, all come to their end, and no block is lost."""
    scheduler = make_scheduler(num_blocks=4, max_tokens=64)
    sequences = [add(scheduler, number, 5, max_new_tokens=10) for number in range(1, 5)]
    for _ in range(200):
        run_step(scheduler)
        for sequence in sequences[:]:
            if sequence.num_new_tokens >= 10:
                scheduler.remove(sequence)
                sequences.remove(sequence)
    assert [] == sequences
    assert 4 == scheduler.pool.num_available


def test_single_token_chunks_come_first() -> None:
    """Kernels rely on single tokens before longer pieces, whoever they belong to."""
    scheduler = make_scheduler(max_tokens=64)
    add(scheduler, 1, 6)
    add(scheduler, 2, 1)
    assert [(2, 0, 1), (1, 0, 6)] == run_step(scheduler)


def test_cached_prefix_is_not_planned() -> None:
    """A follow-up computes only what is new, and says how much was cached."""
    scheduler = make_scheduler(max_tokens=64)
    first = add(scheduler, 1, 12)
    run_step(scheduler)
    scheduler.remove(first)
    follow_up = Sequence(Job(2, [*first.job.token_ids, 5, 6], 4), [*first.job.token_ids, 5, 6])
    scheduler.add(follow_up)
    assert [(2, 12, 2)] == run_step(scheduler)
    assert 12 == follow_up.cached_tokens


def test_a_running_chats_prompt_is_shared_to_the_token() -> None:
    """Its last block is not full, and others begin like it before its answer has ended."""
    scheduler = make_scheduler(max_tokens=64)
    first = add(scheduler, 1, 10)
    run_step(scheduler)
    ids = [*first.job.token_ids, *range(5)]
    scheduler.add(Sequence(Job(2, ids, 4), list(ids)))
    taken = run_step(scheduler)
    copied = [copy.num_tokens for copy in scheduler.copies]
    scheduler.end_copies()

    assert ([(1, 10, 1), (2, 10, 5)], [2]) == (taken, copied)


def test_a_block_that_is_not_full_is_named_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its prompt has been read and when its answer has ended, but not at every token."""
    scheduler = make_scheduler(max_tokens=8)
    named: list[int] = []
    register = scheduler.pool.register_beginning

    def note(block: int, parent: bytes, token_ids: Ids[int], owner: Hashable = None) -> None:
        named.append(len(token_ids))
        register(block, parent, token_ids, owner)

    monkeypatch.setattr(scheduler.pool, "register_beginning", note)
    first = add(scheduler, 1, 13)
    for _ in range(4):
        run_step(scheduler)
    scheduler.remove(first)

    assert [1, 3] == named


def test_what_was_cached_is_told_as_of_the_first_time() -> None:
    """What it finds of its own after it was sent back, here a block, was not spared it."""
    scheduler = make_scheduler(num_blocks=4, max_tokens=64)
    first = add(scheduler, 1, 4, max_new_tokens=9)
    second = add(scheduler, 2, 4, max_new_tokens=9)
    run_step(scheduler)
    second.scheduled_at_seconds = 1.0
    while second in scheduler.running:
        run_step(scheduler)
    scheduler.remove(first)
    taken = run_step(scheduler)

    assert ([(2, 4, 5)], 0) == (taken, second.cached_tokens)


def test_plan_is_empty_without_work() -> None:
    """An idle scheduler plans nothing."""
    empty: list[Chunk] = []
    assert empty == make_scheduler().plan()


def add_of(scheduler: Scheduler, tenant: str, number: int, num_tokens: int, new: int = 8) -> None:
    """Queue a prompt of a tenant's."""
    ids = [100 * number + index for index in range(num_tokens)]
    scheduler.add(Sequence(Job(number, ids, new, tenant=tenant), list(ids)))


def test_a_small_prompt_does_not_wait_for_anothers_long_one() -> None:
    """Tenants' prompts take turns, a step each; what one leaves of its step is the next one's."""
    scheduler = make_scheduler(max_tokens=8)
    add_of(scheduler, "ada", 1, 40)
    add_of(scheduler, "ada", 2, 40)
    first = run_step(scheduler)
    add_of(scheduler, "bob", 3, 19)
    steps = [sorted(run_step(scheduler)) for _ in range(6)]
    assert [(1, 0, 8)] == first
    assert [
        [(3, 0, 8)],
        [(1, 8, 8)],
        [(3, 8, 8)],
        [(1, 16, 8)],
        [(1, 24, 5), (3, 16, 3)],
        [(1, 29, 8), (3, 19, 1)],
    ] == steps


def test_who_has_the_fewest_inside_is_let_in_next() -> None:
    """However many another had put in line before, whose own come in the order of their coming."""
    scheduler = make_scheduler(max_running=3, max_tokens=64)
    for number in (1, 2, 3, 4):
        add_of(scheduler, "ada", number, 2)
    run_step(scheduler)
    add_of(scheduler, "bob", 5, 2)
    add_of(scheduler, "bob", 6, 2)
    entered = []
    for _ in range(3):
        scheduler.remove(scheduler.running[0])
        entered += [number for number, start, _ in run_step(scheduler) if start == 0]
    assert [5, 4, 6] == entered


def test_tenants_with_as_many_inside_are_let_in_by_turns() -> None:
    """The one that was let in longest ago is next, and who is away keeps its rank."""
    scheduler = make_scheduler(max_running=1, max_tokens=64)
    entered = []
    for number, tenant in enumerate(["ada", "bob", "eve"] * 3, 1):
        add_of(scheduler, tenant, number, 2)
    # Asks one after another, so that it is never in line twice.
    for number in range(10, 19):
        run_step(scheduler)
        entered.append(scheduler.running[0].job.tenant)
        scheduler.remove(scheduler.running[0])
        if entered[-1] == "ada":
            add_of(scheduler, "ada", number, 2)
    assert ["ada", "bob", "eve"] * 3 == entered


def test_who_is_next_is_passed_by_nobody() -> None:
    """A prompt for which there is no room yet would wait for ever if smaller ones took it."""
    scheduler = make_scheduler(num_blocks=8, max_tokens=64)
    add_of(scheduler, "ada", 1, 16)
    run_step(scheduler)
    add_of(scheduler, "bob", 2, 20)
    add_of(scheduler, "ada", 3, 1)
    add_of(scheduler, "eve", 4, 1)
    assert [1] == [number for number, _, _ in run_step(scheduler)]
    scheduler.remove(scheduler.running[0])
    # Then there is room for one more, and eve has none inside.
    assert {2, 4} == {number for number, _, _ in run_step(scheduler)}
