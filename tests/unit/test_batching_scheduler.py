"""Who computes what: order, chunks, admission, stepping back."""

from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.scheduler import Chunk, Scheduler
from llavachat_server.engine.batching.sequence import Job, Sequence


class Clock:
    """Stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def make_scheduler(
    num_blocks: int = 32,
    *,
    max_running: int = 4,
    max_tokens: int = 8,
    gather_seconds: float = 0.0,
    clock: Clock | None = None,
) -> Scheduler:
    """A scheduler over blocks of four tokens."""
    budget = GapBudget(1.0, max_tokens)
    pool = BlockPool(num_blocks, 4)
    return Scheduler(pool, budget, max_running, gather_seconds, clock or Clock())


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
        if chunk.sequence.scheduled_at_seconds is None:
            chunk.sequence.scheduled_at_seconds = scheduler._clock()
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


def test_running_answers_do_not_wait_for_a_prompt() -> None:
    """While a prompt enters, each step also brings the running answer's next token."""
    scheduler = make_scheduler(max_tokens=16)
    add(scheduler, 1, 4)
    run_step(scheduler)
    add(scheduler, 2, 40)
    steps = [run_step(scheduler) for _ in range(3)]
    assert [(1, 4, 1), (1, 5, 1), (1, 6, 1)] == [step[0] for step in steps]
    assert all(2 == step[1][0] for step in steps)


def test_first_come_first_served() -> None:
    """A small prompt does not overtake a large one that came before."""
    scheduler = make_scheduler(num_blocks=6)
    add(scheduler, 1, 8, max_new_tokens=1)
    run_step(scheduler)
    add(scheduler, 2, 20)
    add(scheduler, 3, 1)
    assert {1} == {number for number, _, _ in run_step(scheduler)}


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


def test_those_who_come_together_begin_together() -> None:
    """The last tokens of all prompts are computed in one step, and none is computed twice."""
    scheduler = make_scheduler(max_tokens=16, gather_seconds=1.0)
    for number in (1, 2, 3):
        add(scheduler, number, 12)
    assert [
        [(1, 0, 11), (2, 0, 4)],
        [(2, 4, 7), (3, 0, 8)],
        [(1, 11, 1), (2, 11, 1), (3, 8, 4)],
        [(1, 12, 1), (2, 12, 1), (3, 12, 1)],
    ] == [run_step(scheduler) for _ in range(4)]


def test_who_comes_alone_waits_for_nobody() -> None:
    """The same steps as where nobody gathers."""
    alone = make_scheduler(max_tokens=8, gather_seconds=1.0)
    add(alone, 1, 19)
    assert [[(1, 0, 8)], [(1, 8, 8)], [(1, 16, 3)], [(1, 19, 1)]] == [
        run_step(alone) for _ in range(4)
    ]


def test_an_answer_that_runs_does_not_wait() -> None:
    """However many prompts come, each step brings its next token."""
    scheduler = make_scheduler(max_tokens=16, gather_seconds=1.0)
    add(scheduler, 1, 4)
    run_step(scheduler)
    for number in (2, 3):
        add(scheduler, number, 20)
    steps = [run_step(scheduler) for _ in range(3)]
    assert [(1, 4, 1), (1, 5, 1), (1, 6, 1)] == [step[0] for step in steps]


def test_nobody_waits_longer_than_the_limit() -> None:
    """Though prompts keep coming, an answer begins when its time is over."""
    clock = Clock()
    scheduler = make_scheduler(num_blocks=64, max_tokens=16, gather_seconds=0.25, clock=clock)
    add(scheduler, 1, 6)
    add(scheduler, 2, 40)
    add(scheduler, 3, 40)
    first = run_step(scheduler)
    clock.now += 0.24
    second = run_step(scheduler)
    clock.now += 0.02
    third = run_step(scheduler)
    assert [(1, 0, 5), (2, 0, 10)] == first
    assert [(2, 10, 16)] == second
    assert [(1, 5, 1), (2, 26, 14), (3, 0, 2)] == third


def test_a_known_prompt_waits_as_well() -> None:
    """One whose prefix is cached, but for its last token, begins with the others."""
    scheduler = make_scheduler(max_tokens=16, gather_seconds=1.0)
    first = add(scheduler, 1, 9)
    run_step(scheduler)
    scheduler.remove(first)
    add(scheduler, 2, 20)
    again = Sequence(Job(1, list(first.job.token_ids), 8), list(first.job.token_ids))
    scheduler.waiting.appendleft(again)
    assert [[(2, 0, 15)], [(1, 8, 1), (2, 15, 5)]] == [run_step(scheduler) for _ in range(2)]


def test_those_who_were_waited_for_may_go() -> None:
    """When the other prompt is cancelled, the next step begins the answer."""
    scheduler = make_scheduler(max_tokens=8, gather_seconds=1.0)
    add(scheduler, 1, 4)
    other = add(scheduler, 2, 40)
    first = run_step(scheduler)
    scheduler.remove(other)
    assert [[(1, 0, 3), (2, 0, 4)], [(1, 3, 1)]] == [first, run_step(scheduler)]


def test_who_finds_no_room_is_not_waited_for() -> None:
    """A prompt that must wait for the cache, or for a place, holds nobody up."""
    scheduler = make_scheduler(num_blocks=4, max_tokens=16, gather_seconds=1.0)
    add(scheduler, 1, 5)
    add(scheduler, 2, 12)
    full = make_scheduler(max_running=1, max_tokens=5, gather_seconds=1.0)
    add(full, 1, 5)
    add(full, 2, 5)
    assert [[(1, 0, 5)], [(1, 0, 5)]] == [run_step(scheduler), run_step(full)]


def test_plan_is_empty_without_work() -> None:
    """An idle scheduler plans nothing."""
    empty: list[Chunk] = []
    assert empty == make_scheduler().plan()
