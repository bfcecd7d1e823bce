"""How much of a prompt a step takes: learnt from steps, bounded by the gap."""

import pytest
from llavachat_server.engine.batching.budget import MAX_STEP_SECONDS, GapBudget


def test_chunk_follows_the_gap_budget() -> None:
    """Chunks shrink until a step with decodes takes no longer than the gap."""
    budget = GapBudget(0.050, 512)
    budget.observe(4, 0, 0.010)
    for _ in range(20):
        budget.observe(4, 0, 0.010)
    budget.observe(4, 64, 0.010 + 64 * 0.001)
    assert 40 == budget.count_tokens(4)


def test_nobody_runs_nobody_waits() -> None:
    """Without running answers a prompt may take the largest step, however long a gap it makes."""
    budget = GapBudget(0.050, 512)
    budget.observe(1, 0, 0.010)
    budget.observe(0, 512, 0.9 * MAX_STEP_SECONDS)
    assert 512 == budget.count_tokens(0)


def test_a_slow_machine_takes_no_step_that_looks_like_a_hang() -> None:
    """Seven billion parameters on two cores: a prompt of 256 tokens would be one step of 22 s."""
    budget = GapBudget(0.010, 256)
    budget.observe(1, 0, 1.4)
    budget.observe(2, 0, 2.9)
    budget.observe(0, 256, 1.4 + 256 * 0.08)
    assert 16 == budget.count_tokens(0)


def test_small_chunks_spare_nothing_where_steps_take_long_by_themselves() -> None:
    """Then a prompt gets half of the step, and all of it before that is known."""
    budget = GapBudget(0.010, 256)
    budget.observe(0, 256, 4.0 + 256 * 0.08)
    unknown = budget.count_tokens(0)
    budget.observe(1, 0, 4.0)
    budget.observe(0, 256, 4.0 + 256 * 0.08)
    for _ in range(60):
        budget.observe(0, 48, 4.0 + 48 * 0.08)
    assert [256, 48] == [unknown, budget.count_tokens(0)]


def test_prompt_gets_on_under_the_tightest_budget() -> None:
    """A gap that not even decoding meets still lets a prompt advance."""
    budget = GapBudget(0.001, 512)
    budget.observe(4, 0, 0.01)
    budget.observe(4, 64, 1.0)
    assert 8 == budget.count_tokens(4)


def test_prompts_get_as_much_of_a_step_as_many_answers() -> None:
    """Where the answers alone outlast the gap, newcomers wait no longer than for their share."""
    budget = GapBudget(0.025, 512)
    budget.observe(32, 0, 0.0405)
    budget.observe(32, 64, 0.0405 + 64 * 0.0005)
    assert 80 == budget.count_tokens(32)


def test_a_step_is_judged_by_those_with_as_many_answers() -> None:
    """Few answers leave a prompt most of the gap, whatever many took before."""
    budget = GapBudget(0.025, 512)
    budget.observe(1, 0, 0.001)
    budget.observe(2, 0, 0.004)
    budget.observe(32, 0, 0.0305)
    budget.observe(2, 32, 0.004 + 32 * 0.0005)
    assert [48, 40, 40, 56, 56] == [budget.count_tokens(number) for number in (1, 2, 3, 32, 63)]
    # Unknown: as with fewer.
    assert [40, 40] == [budget.count_tokens(number) for number in (4, 31)]


def test_few_answers_are_judged_by_more_where_no_fewer_were_seen() -> None:
    """Which bounds the pause that a prompt causes from above."""
    budget = GapBudget(0.025, 512)
    budget.observe(4, 0, 0.005)
    budget.observe(32, 0, 0.0305)
    budget.observe(4, 32, 0.005 + 32 * 0.0005)
    assert 40 == budget.count_tokens(1)


def test_one_slow_step_of_answers_is_not_believed() -> None:
    """Nor forgotten: a fifth of it counts."""
    budget = GapBudget(0.050, 512)
    budget.observe(4, 0, 0.010)
    budget.observe(4, 64, 0.010 + 64 * 0.0005)
    budget.observe(4, 0, 0.020)
    assert 72 == budget.count_tokens(4)


def test_a_prompt_that_nothing_is_known_beside_is_all_of_its_step() -> None:
    """Answers that came with it, of which no step was seen yet, count as no time."""
    budget = GapBudget(0.050, 512)
    budget.observe(4, 8, 8 * 0.0005)
    assert 96 == budget.count_tokens(4)


def test_what_every_step_costs_is_no_prompts_cost() -> None:
    """A short follow-up alone, which reads all weights, does not make later chunks small."""
    budget = GapBudget(0.100, 1024)
    budget.observe(1, 0, 0.025)
    budget.observe(2, 0, 0.030)
    budget.observe(0, 1024, 0.025 + 1024 * 0.0001)
    before = budget.count_tokens(1)
    budget.observe(0, 20, 0.025 + 20 * 0.0001)
    assert (744, 744) == (before, budget.count_tokens(1))


def test_a_step_takes_no_more_than_it_may() -> None:
    """However much of a prompt would fit into the gap."""
    budget = GapBudget(0.050, 64)
    budget.observe(4, 0, 0.010)
    budget.observe(4, 64, 0.010 + 64 * 0.0001)
    assert 64 == budget.count_tokens(4)


def test_slower_is_believed_at_once_and_faster_by_and_by() -> None:
    """A gap too long is what is felt."""
    budget = GapBudget(0.050, 512)
    budget.observe(4, 0, 0.010)
    budget.observe(4, 64, 0.010 + 64 * 0.0005)
    before = budget.count_tokens(4)
    budget.observe(4, 64, 0.010 + 64 * 0.001)
    slow = budget.count_tokens(4)
    budget.observe(4, 64, 0.010 + 64 * 0.0005)
    then = budget.count_tokens(4)
    for _ in range(60):
        budget.observe(4, 64, 0.010 + 64 * 0.0005)
    assert (80, 40, 40, 72) == (before, slow, then, budget.count_tokens(4))


def test_a_prompts_last_few_tokens_teach_nothing() -> None:
    """What such a step takes is the step's, not theirs."""
    budget = GapBudget(0.050, 512)
    budget.observe(4, 0, 0.010)
    budget.observe(4, 7, 1.0)
    assert 64 == budget.count_tokens(4)
    budget.observe(4, 64, 0.010 + 64 * 0.0005)
    budget.observe(4, 7, 1.0)
    assert 80 == budget.count_tokens(4)


def test_a_step_that_was_quicker_than_answers_alone_makes_no_chunk_small() -> None:
    """Its prompt took some time all the same, and less than none is no time."""
    budget = GapBudget(0.050, 512)
    budget.observe(4, 0, 0.020)
    budget.observe(4, 64, 0.010)
    assert 512 == budget.count_tokens(4)


@pytest.mark.parametrize("stall_seconds", [8.0, 20.0, 600.0])
@pytest.mark.parametrize("num_seen", [0, 20])
def test_a_machine_that_stood_still_once_takes_no_long_steps_for_ever(
    num_seen: int, stall_seconds: float
) -> None:
    """In the first step of two answers, or a later one, with prompts in each that follows."""

    def take(num_prompt_tokens: int) -> float:
        return 0.3 + 0.055 * num_prompt_tokens

    budget = GapBudget(0.010, 256)
    budget.observe(1, 0, take(0))
    budget.observe(0, 256, take(256))
    for _ in range(num_seen):
        budget.observe(2, 0, take(0))
    budget.observe(2, 0, stall_seconds)
    longest = 0.0
    for _ in range(100):
        num_tokens = budget.count_tokens(2)
        longest = max(longest, take(num_tokens))
        budget.observe(2, num_tokens, take(num_tokens))
    assert longest < MAX_STEP_SECONDS


def test_answers_steps_are_learnt_from_prompts_steps_that_were_shorter() -> None:
    """Where each step has a prompt no other ever tells."""
    budget = GapBudget(0.050, 512)
    budget.observe(4, 0, 0.040)
    budget.observe(4, 64, 0.040 + 64 * 0.0005)
    before = budget.count_tokens(4)
    budget.observe(4, 64, 0.030)
    assert (72, 56) == (before, budget.count_tokens(4))
