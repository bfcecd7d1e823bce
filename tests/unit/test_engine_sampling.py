"""Drawing tokens: by the rules, by the seed, and by nobody else in the batch."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.engine.batching.sequence import Draw
from llavachat_server.engine.native import sampling as arrays
from llavachat_server.engine.native.sampling import ArraySampler
from llavachat_server.engine.sampling import Sampler, validate_sampling
from llavachat_server.engine.tensors import noise as tensor_noise
from llavachat_server.engine.tensors.sampling import SeenTokens, TensorSampler, perturb_scores
from llavachat_server.values import InvalidField, Sampling

VOCABULARY = 50


def draw_gumbel(seeds: torch.Tensor, positions: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Noise for every token of a vocabulary."""
    return tensor_noise.draw_gumbel(seeds, positions, torch.arange(vocab_size).unsqueeze(0))


GOOD = Sampling(max_tokens=8)


def draw(
    scores: torch.Tensor,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seeds: list[int],
    position: int = 7,
) -> list[int]:
    """One token for each row."""
    rows = scores.shape[0]
    drawn = perturb_scores(
        scores,
        torch.full((rows,), temperature),
        torch.full((rows,), top_p),
        torch.full((rows,), top_k, dtype=torch.int32),
        torch.tensor(seeds, dtype=torch.int64),
        torch.full((rows,), position, dtype=torch.int32),
    ).argmax(-1)
    return drawn.tolist()


def make_scores(rows: int, seed: int = 0) -> torch.Tensor:
    """(rows, vocabulary) scores."""
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 101}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": VOCABULARY + 1}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ("",)}, "stop"),
        ({"stop": ("x" * 65,)}, "stop"),
        ({"stop": ("x",) * 9}, "stop"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, object], field: str) -> None:
    """The path is the contract's, and the message says what is allowed."""
    with pytest.raises(InvalidField) as refusal:
        validate_sampling(replace(GOOD, **change), max_tokens=100, vocab_size=VOCABULARY)  # type: ignore[arg-type]
    assert f"params.{field}" == refusal.value.field
    assert refusal.value.expected


def test_values_at_the_borders_pass() -> None:
    """Borders belong to the range."""
    for sampling in (
        replace(GOOD, max_tokens=100, temperature=2.0, top_p=1.0, top_k=VOCABULARY),
        replace(GOOD, seed=2**64 - 1, repetition_penalty=2.0, stop=("x" * 64,) * 8),
    ):
        validate_sampling(sampling, max_tokens=100, vocab_size=VOCABULARY)


def test_temperature_zero_is_exactly_greedy() -> None:
    """Scores pass through untouched."""
    scores = make_scores(4)

    assert scores.argmax(-1).tolist() == draw(scores, temperature=0.0, seeds=[1, 2, 3, 4])


def test_top_k_one_is_greedy_too() -> None:
    """One token is left, whatever the noise."""
    scores = make_scores(4)

    assert scores.argmax(-1).tolist() == draw(scores, top_k=1, seeds=[1, 2, 3, 4])


def test_frequencies_follow_the_softmax() -> None:
    """20,000 seeds: no token strays more than 0.015 from its probability."""
    scores = make_scores(1)
    drawn = draw(scores.expand(20_000, -1), temperature=0.7, seeds=list(range(20_000)))
    counts = torch.bincount(torch.tensor(drawn), minlength=VOCABULARY) / 20_000
    expected = (scores[0] / 0.7).softmax(-1)

    assert (counts - expected).abs().max() < 0.015


def test_positions_are_independent_draws() -> None:
    """One seed, 20,000 positions: the same law."""
    scores = make_scores(1)
    noise = draw_gumbel(
        torch.full((20_000,), 5, dtype=torch.int64), torch.arange(20_000), VOCABULARY
    )
    counts = torch.bincount((scores + noise).argmax(-1), minlength=VOCABULARY) / 20_000

    assert (counts - scores[0].softmax(-1)).abs().max() < 0.015


@pytest.mark.parametrize("top_k", [1, 3, 10])
def test_top_k_keeps_the_likeliest(top_k: int) -> None:
    """And nothing else."""
    scores = make_scores(1)
    drawn = set(draw(scores.expand(2000, -1), top_k=top_k, seeds=list(range(2000))))

    assert drawn <= set(scores[0].topk(top_k).indices.tolist())
    assert len(drawn) > 1 or top_k == 1


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9])
def test_top_p_keeps_the_smallest_sufficient_set(top_p: float) -> None:
    """The fewest tokens whose probabilities reach the limit."""
    scores = make_scores(1)
    probabilities, order = scores[0].softmax(-1).sort(descending=True)
    size = int((probabilities.cumsum(-1) < top_p).sum()) + 1
    drawn = set(draw(scores.expand(4000, -1), top_p=top_p, seeds=list(range(4000))))

    assert drawn <= set(order[:size].tolist())
    assert int(order[0]) in drawn


@pytest.mark.parametrize("top_p", [1e-11, 1e-40])
def test_the_smallest_top_p_keeps_the_likeliest(top_p: float) -> None:
    """One token is left, by both samplers."""
    scores = make_scores(4)
    rules = [Draw(1.0, top_p, 0, 1.0, seed, 0) for seed in (1, 2, 3, 4)]
    pairs = zip(scores.numpy(), rules, strict=True)

    assert scores.argmax(-1).tolist() == draw(scores, top_p=top_p, seeds=[1, 2, 3, 4])
    assert scores.argmax(-1).tolist() == [arrays.draw_token(*pair, 7) for pair in pairs]


def test_top_p_cuts_where_exact_sums_do() -> None:
    """Limits within float32's steps of a sum: neither its order nor its rounding decides."""
    scores = torch.randn(1, 2000, generator=torch.Generator().manual_seed(1))
    ordered = scores[0].sort(descending=True).values.softmax(-1).double()
    before = [math.fsum(ordered[:index]) for index in range(len(ordered))]
    limits = torch.tensor(before[1:200], dtype=torch.float32)
    rows = len(limits)
    kept = perturb_scores(
        scores.expand(rows, -1),
        torch.ones(rows),
        limits,
        torch.zeros(rows, dtype=torch.int32),
        torch.arange(rows),
        torch.arange(rows),
    ).isfinite()

    expected = [sum(mass < limit for mass in before) for limit in limits.tolist()]
    assert expected == kept.sum(-1).tolist()


def test_top_p_cuts_where_exact_sums_do_by_numpy() -> None:
    """500 of 1,000 equal tokens, where sums in float32 made it 501; and both samplers agree."""
    scores = torch.zeros(1, 1000)
    noise = torch.stack([torch.from_numpy(arrays.draw_gumbel(s, 7, 1000)) for s in range(4000)])
    # Seeds by which the first token that is cut would be drawn.
    seeds = (noise[:, :501].argmax(-1) == 500).nonzero().flatten().tolist()
    rules = [Draw(1.0, 0.5, 0, 1.0, seed, 0) for seed in seeds]
    drawn = [arrays.draw_token(scores[0].numpy(), rule, 7) for rule in rules]

    assert seeds
    assert [int(noise[seed, :500].argmax()) for seed in seeds] == drawn
    assert drawn == draw(scores.expand(len(seeds), -1), top_p=0.5, seeds=seeds)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=17), st.integers(0, 4000))
def test_a_row_does_not_care_about_its_neighbours(seeds: list[int], position: int) -> None:
    """The same seed and scores draw the same token alone and among others, in any place."""
    scores = make_scores(len(seeds), seed=position)
    together = draw(scores, temperature=1.5, top_p=0.95, seeds=seeds, position=position)
    alone = [
        draw(scores[i : i + 1], temperature=1.5, top_p=0.95, seeds=[seed], position=position)[0]
        for i, seed in enumerate(seeds)
    ]

    assert alone == together


def test_seed_and_position_both_count() -> None:
    """Other seed or other position, other noise; the high half of the seed counts too."""
    seeds = torch.tensor([1, 2, 1, 1 + 2**40], dtype=torch.int64)
    noise = draw_gumbel(seeds, torch.tensor([5, 5, 6, 5]), VOCABULARY)

    assert 4 == len({tuple(row) for row in noise.tolist()})


def compute_noise(seed: int, position: int, token_id: int) -> float:
    """SplitMix64 in whole numbers, as its paper has it, and Gumbel's quantile function."""
    word, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(bits: int) -> int:
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & word
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & word
        return bits ^ (bits >> 31)

    key = mix((seed + golden * (position + 1)) & word)
    bits = mix((key + golden * (token_id + 1)) & word)
    return -math.log(-math.log(((bits >> 11) + 0.5) / 2**53))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31 - 1))
def test_noise_is_that_of_plain_arithmetic(seed: int, position: int) -> None:
    """Replaying a recorded turn depends on these very numbers, on every device."""
    signed = seed - 2**64 if seed >= 2**63 else seed
    noise = draw_gumbel(torch.tensor([signed]), torch.tensor([position]), 4)[0].tolist()
    expected = [compute_noise(seed, position, i) for i in range(4)]

    assert pytest.approx(expected, abs=1e-5) == noise
    assert pytest.approx(expected, abs=1e-5) == arrays.draw_gumbel(seed, position, 4).tolist()


def test_repetition_penalty_is_transformers_own() -> None:
    """Same scores as RepetitionPenaltyLogitsProcessor; a neighbour without penalty is untouched."""
    from transformers import RepetitionPenaltyLogitsProcessor

    seen = SeenTokens(2, VOCABULARY, torch.device("cpu"))
    row = seen.take_row((3, 9, 9, 70))
    scores = make_scores(2)
    result = seen.apply(
        scores, torch.tensor([5, 6]), torch.tensor([row, 0]), torch.tensor([1.7, 1.0])
    )
    expected = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.tensor([[3, 9, 9, 5]]), scores[:1].clone()
    )

    assert torch.equal(expected[0], result[0])
    assert torch.equal(scores[1], result[1])


def test_a_returned_row_comes_back_clean() -> None:
    """The next request starts with its own prompt only."""
    seen = SeenTokens(1, VOCABULARY, torch.device("cpu"))
    for _ in range(5):
        row = seen.take_row((1, 2))
        assert [1, 2] == seen.table[row].nonzero().flatten().tolist()
        seen.table[row, 7] = True
        seen.give_row(row)


RULES = st.builds(
    Draw,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.2, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 7, VOCABULARY]),
    repetition_penalty=st.sampled_from([0.7, 1.0, 1.3]),
    seed=st.integers(0, 2**64 - 1),
)


@given(st.lists(RULES, min_size=1, max_size=8), st.integers(0, 4000), st.integers(0, 2**31))
def test_both_samplers_draw_the_same(rules: list[Draw], position: int, seed: int) -> None:
    """By NumPy as by torch, by any rules, some ids silent, for two tokens on end."""
    samplers: list[Sampler] = [
        ArraySampler(8, VOCABULARY, (4, 5)),
        TensorSampler(8, VOCABULARY, (4, 5), torch.device("cpu")),
    ]
    scores = [make_scores(len(rules), seed), make_scores(len(rules), seed + 1)]
    drawn: list[list[list[int]]] = []
    for sampler in samplers:
        draws = [
            replace(draw, seen_row=sampler.take_row((1, 8, 9, 2**20)))
            if draw.repetition_penalty != 1
            else draw
            for draw in rules
        ]
        last_ids, tokens = [2**20] * len(rules), []
        for step, logits in enumerate(scores):
            own = logits.clone()
            given = own.numpy() if isinstance(sampler, ArraySampler) else own
            last_ids = sampler.draw(draws, last_ids, [position + step] * len(rules), given)
            tokens.append(last_ids)
        drawn.append(tokens)

    assert drawn[0] == drawn[1]


def test_a_returned_row_of_arrays_comes_back_clean() -> None:
    """As the tensors' does."""
    sampler = ArraySampler(1, VOCABULARY, ())
    for _ in range(3):
        row = sampler.take_row((1, 2))
        assert [1, 2] == sampler.table[row].nonzero()[0].tolist()
        sampler.table[row, 7] = True
        sampler.give_row(row)
