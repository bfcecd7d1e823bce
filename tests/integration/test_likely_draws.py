"""Draws from the likeliest tokens, one operation after the other and recorded: the full draw's."""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.engine.batching.sequence import Draw
from llavachat_server.engine.native.sampling import ArraySampler
from llavachat_server.engine.tensors.likely import (
    MAX_TOKENS,
    DrawLikely,
    draw_eagerly,
    draw_likely,
    has_likely_tokens,
)
from llavachat_server.engine.tensors.sampling import TensorSampler, perturb_scores
from paged_reference import RepeatedDraws
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

VOCABULARY = 400
MAX_RUNNING = 6
CPU = torch.device("cpu")


@cache
def make_recorded() -> RepeatedDraws:
    """Draws for steps of 1, 2, 4 and 6 rows."""
    recorded = RepeatedDraws(MAX_RUNNING, VOCABULARY, CPU)
    recorded.record()
    return recorded


def make_scores(rows: int, seed: int, *, width: float, step: float = 0.0) -> Tensor:
    """(rows, vocabulary) scores; the wider, the fewer are likely. With a step many are equal."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, VOCABULARY, generator=generator) * width
    return scores if step == 0 else (scores / step).round() * step


def draw_fully(scores: Tensor, draws: Sequence[Draw], position: int) -> list[int]:
    """By sorting all of the vocabulary."""
    seeds = [draw.seed - 2**64 if draw.seed >= 2**63 else draw.seed for draw in draws]
    drawn: list[int] = (
        perturb_scores(
            scores,
            torch.tensor([draw.temperature for draw in draws]),
            torch.tensor([draw.top_p for draw in draws]),
            torch.tensor([draw.top_k for draw in draws]),
            torch.tensor(seeds),
            torch.full((len(draws),), position),
        )
        .argmax(-1)
        .tolist()
    )
    return drawn


RULES = st.builds(
    Draw,
    temperature=st.sampled_from([0.0, 0.2, 1.0, 2.0]),
    top_p=st.sampled_from([0.11, 0.71, 0.97, 1.0]),
    top_k=st.sampled_from([0, 1, 7, MAX_TOKENS - 1, MAX_TOKENS, VOCABULARY]),
    seed=st.integers(0, 2**64 - 1),
)
ANY_STEP = given(
    rules=st.lists(RULES, min_size=1, max_size=MAX_RUNNING),
    position=st.integers(0, 4000),
    seed=st.integers(0, 2**31),
    width=st.sampled_from([0.01, 1.0, 4.0]),
    step=st.sampled_from([0.0, 0.125, 2.0]),
)


@ANY_STEP
def test_what_is_sure_is_what_sorting_would_draw(
    rules: list[Draw], position: int, seed: int, width: float, step: float
) -> None:
    """Among equal scores too, with few likely tokens or many."""
    scores = make_scores(len(rules), seed, width=width, step=step)
    drawn, is_sure = draw_eagerly(scores, rules, [position] * len(rules))
    full = draw_fully(scores, rules, position)
    expected = [token for token, sure in zip(full, is_sure, strict=True) if sure]

    assert expected == [token for token, sure in zip(drawn, is_sure, strict=True) if sure]
    assert all(
        sure for draw, sure in zip(rules, is_sure, strict=True) if width == 4.0 and draw.top_p < 0.9
    )


@ANY_STEP
def test_the_sampler_draws_the_same_by_each_way(
    rules: list[Draw], position: int, seed: int, width: float, step: float
) -> None:
    """Eagerly, recorded and padded, and by NumPy; whoever is beside a row."""
    scores = make_scores(len(rules), seed, width=width, step=step)
    last_ids, positions = [1] * len(rules), [position] * len(rules)
    ways: list[DrawLikely] = [draw_eagerly, make_recorded()]
    samplers = [TensorSampler(MAX_RUNNING, VOCABULARY, (4, 5), CPU, way) for way in ways]
    drawn = [s.draw(rules, last_ids, positions, scores.clone()) for s in samplers]
    alone = [
        samplers[1].draw([draw], [1], [position], row.unsqueeze(0).clone())[0]
        for draw, row in zip(rules, scores, strict=True)
    ]
    arrays = ArraySampler(MAX_RUNNING, VOCABULARY, (4, 5))

    assert drawn[0] == drawn[1]
    assert drawn[0] == alone
    assert drawn[0] == arrays.draw(rules, last_ids, positions, scores.clone().numpy())


def test_a_flat_row_is_not_sure() -> None:
    """More tokens may be drawn than were looked at; the sampler looks again."""
    scores = make_scores(1, 3, width=0.01)
    rule = Draw(temperature=1.0, top_p=0.97, seed=8)
    _, is_sure = draw_eagerly(scores, [rule], [7])
    drawn = {
        TensorSampler(1, VOCABULARY, (), CPU).draw(
            [Draw(temperature=1.0, top_p=0.97, seed=seed)], [1], [7], scores.clone()
        )[0]
        for seed in range(400)
    }

    assert [False] == is_sure
    assert len(drawn) > MAX_TOKENS


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Draw(temperature=0.2, top_p=0.7), True),
        (Draw(temperature=1.0, top_k=40), True),
        (Draw(temperature=1.0, top_k=MAX_TOKENS), False),
        (Draw(temperature=1.0), False),
        (Draw(temperature=0.0, top_p=0.5), False),
    ],
)
def test_who_is_drawn_from_the_likeliest(rule: Draw, expected: bool) -> None:
    """Those whose rules let few tokens be drawn, and who are not greedy."""
    assert expected is has_likely_tokens(rule)


def test_it_can_be_recorded() -> None:
    """It asks nothing about values."""
    with FakeTensorMode():
        drawn = draw_likely(
            torch.empty(3, VOCABULARY),
            torch.empty(3, 3, dtype=torch.int64),
            torch.empty(2, 3),
        )

    assert (2, 3) == drawn.shape
