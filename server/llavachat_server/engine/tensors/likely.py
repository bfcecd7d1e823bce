"""Draws from the likeliest tokens alone, where top_p or top_k lets no others be drawn.

To sort a vocabulary and to make noise for all of it is long work on a GPU, beside a step of a few
milliseconds, and most draws need a few dozen tokens. What is drawn is what
`sampling.perturb_scores` would draw; whether it surely is comes with it. Nothing here looks at
values on the host before the end, so that it can be recorded.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llavachat_server.engine.batching.sequence import Draw
from llavachat_server.engine.sampling import TOP_P_TOLERANCE
from llavachat_server.engine.tensors.noise import draw_gumbel, to_signed

MAX_TOKENS = 128
"""Candidates of a row. LLaVA's own defaults, temperature 0.2 and top_p 0.7, leave a few."""

DrawLikely = Callable[[Tensor, Sequence[Draw], Sequence[int]], tuple[list[int], list[bool]]]
"""(logits, draws, positions) to the tokens, and which of them are sure."""


def has_likely_tokens(draw: Draw) -> bool:
    """Whether the likeliest tokens may be enough for a request."""
    return draw.temperature > 0 and (draw.top_p < 1 or 0 < draw.top_k < MAX_TOKENS)


def list_numbers(
    draws: Sequence[Draw], positions: Sequence[int]
) -> tuple[list[list[int]], list[list[float]]]:
    """What `draw_likely` takes beside the scores, one row of numbers for each kind."""
    whole = [
        [draw.top_k for draw in draws],
        [to_signed(draw.seed) for draw in draws],
        list(positions),
    ]
    return whole, [[draw.temperature for draw in draws], [draw.top_p for draw in draws]]


def draw_eagerly(
    logits: Tensor, draws: Sequence[Draw], positions: Sequence[int]
) -> tuple[list[int], list[bool]]:
    """See `DrawLikely`."""
    whole, broken = list_numbers(draws, positions)
    drawn, is_sure = draw_likely(
        logits,
        torch.tensor(whole, device=logits.device),
        torch.tensor(broken, device=logits.device),
    ).tolist()
    return drawn, [bool(value) for value in is_sure]


def draw_likely(scores: Tensor, whole: Tensor, broken: Tensor) -> Tensor:
    """Draw from the `MAX_TOKENS` likeliest tokens of each row.

    Args:
        scores: (requests, vocabulary), float32.
        whole: (3, requests), int64; top_k, seed and position, see `perturb_scores`.
        broken: (2, requests), float32; temperature, 0 for the greedy token, and top_p.

    Returns:
        (2, requests), int64; tokens, and 1 where no other one could have been drawn.
    """
    top_ks, seeds, positions = whole
    temperatures, top_ps = broken
    is_greedy = temperatures == 0
    scaled = scores / torch.where(is_greedy, 1.0, temperatures).unsqueeze(1)
    values, tokens = scaled.topk(min(MAX_TOKENS, scores.shape[-1]), -1)
    most, least = values[:, :1], values[:, -1:]
    # Entry (j, i): token i comes before j where all are sorted, the lower of two equal ones first.
    one, other = values.unsqueeze(1), values.unsqueeze(2)
    is_lower = tokens.unsqueeze(1) < tokens.unsqueeze(2)
    is_before = (one > other) | ((one == other) & is_lower)
    limit = top_ks.unsqueeze(1)
    has_limit = (limit > 0) & (limit < scores.shape[-1])
    is_among = ~has_limit | (is_before.sum(-1) < limit)
    weights = (values - most).exp() * is_among
    everything = (scaled - most).exp().sum(-1, keepdim=True)
    total = torch.where(has_limit, weights.sum(-1, keepdim=True), everything)
    shares = (weights / total).to(torch.float64)
    # What lies before a token decides, so that the first one always stays.
    before = (is_before * shares.unsqueeze(1)).sum(-1)
    share_limit = top_ps.unsqueeze(1)
    is_reached = before >= share_limit.to(torch.float64) * (1 - TOP_P_TOLERANCE)
    is_kept = is_among & ~((share_limit < 1) & is_reached)
    noise = draw_gumbel(seeds, positions, tokens)
    perturbed = torch.where(is_kept, values + noise, -torch.inf)
    chosen = tokens.gather(1, perturbed.argmax(-1, keepdim=True)).squeeze(1)
    is_sure = most.squeeze(1).isfinite()
    if values.shape[1] < scores.shape[1]:
        # Of those that are as likely as the last candidate, others may have been left out; and
        # what a share is a share of are all that top_k lets through.
        is_left_out = (is_kept & (values == least)) | (has_limit & (limit > values.shape[1]))
        is_sure = is_sure & ~is_left_out.any(-1)
    return torch.stack([torch.where(is_greedy, scores.argmax(-1), chosen), is_sure | is_greedy])
