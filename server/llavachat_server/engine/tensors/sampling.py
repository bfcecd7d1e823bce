"""Draws tokens by torch, on whichever device the scores are.

Pure tensor functions and one table; it knows no requests and no loop.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from llavachat_server.engine.batching.sequence import Draw
from llavachat_server.engine.sampling import TOP_P_TOLERANCE
from llavachat_server.engine.tensors.likely import DrawLikely, draw_eagerly, has_likely_tokens
from llavachat_server.engine.tensors.noise import draw_gumbel, to_signed


class TensorSampler:
    """See `engine.sampling.Sampler`.

    Args:
        max_running: requests that run at once.
        vocab_size: width of the output head.
        silent_ids: ids that are never drawn.
        device: where the scores are.
        draw_likely: draws most rows, from the likeliest tokens; see `likely`.
    """

    def __init__(
        self,
        max_running: int,
        vocab_size: int,
        silent_ids: Sequence[int],
        device: torch.device,
        draw_likely: DrawLikely = draw_eagerly,
    ) -> None:
        self._seen = SeenTokens(max_running, vocab_size, device)
        self._silent = torch.tensor(silent_ids, dtype=torch.int64, device=device)
        self._draw_likely = draw_likely

    def take_row(self, token_ids: Sequence[int]) -> int:
        """See `engine.sampling.Sampler`."""
        return self._seen.take_row(token_ids)

    def give_row(self, row: int) -> None:
        """See `engine.sampling.Sampler`."""
        self._seen.give_row(row)

    @torch.inference_mode()
    def draw(
        self,
        draws: Sequence[Draw],
        last_ids: Sequence[int],
        positions: Sequence[int],
        logits: Tensor,
    ) -> list[int]:
        """See `engine.sampling.Sampler`."""
        if self._silent.numel():
            logits.index_fill_(1, self._silent, -torch.inf)
        device = logits.device
        if any(draw.seen_row for draw in draws):
            logits = self._seen.apply(
                logits,
                torch.tensor(last_ids, device=device),
                torch.tensor([draw.seen_row for draw in draws], device=device),
                torch.tensor([draw.repetition_penalty for draw in draws], device=device),
            )
        likely = [has_likely_tokens(draw) for draw in draws]
        if any(likely):
            drawn, is_sure = self._draw_likely(logits, draws, positions)
        else:
            drawn, is_sure = logits.argmax(-1).tolist(), [False] * len(draws)
        # By which way a row is drawn depends on nothing but the row.
        left = [
            index
            for index, draw in enumerate(draws)
            if draw.temperature > 0 and not (likely[index] and is_sure[index])
        ]
        if left:
            chosen = [draws[index] for index in left]
            scores = perturb_scores(
                logits[torch.tensor(left, device=device)],
                torch.tensor([draw.temperature for draw in chosen], device=device),
                torch.tensor([draw.top_p for draw in chosen], device=device),
                torch.tensor([draw.top_k for draw in chosen], device=device),
                torch.tensor([to_signed(draw.seed) for draw in chosen], device=device),
                torch.tensor([positions[index] for index in left], device=device),
            )
            for index, token_id in zip(left, scores.argmax(-1).tolist(), strict=True):
                drawn[index] = token_id
        return drawn


class SeenTokens:
    """Which tokens each request has in its context, for the repetition penalty.

    A table on the device, one row for each request that asks for a penalty. Row 0 belongs to
    all others and is never read with a penalty.

    Args:
        max_running: requests that may use it at once.
        vocab_size: width of the output head.
        device: where the scores are.
    """

    def __init__(self, max_running: int, vocab_size: int, device: torch.device) -> None:
        # The last column swallows ids above the vocabulary.
        self.table = torch.zeros(max_running + 1, vocab_size + 1, dtype=torch.bool, device=device)
        self._vocab_size = vocab_size
        self._free_rows = deque(range(1, max_running + 1))

    def take_row(self, token_ids: Sequence[int]) -> int:
        """Reserve a row for a prompt; on a GPU it is written before the next step reads it."""
        ids = torch.tensor(token_ids, dtype=torch.int64, device=self.table.device)
        row = self._free_rows.popleft()
        self.table[row].zero_()
        self.table[row, ids.clamp(max=self._vocab_size)] = True
        return row

    def give_row(self, row: int) -> None:
        """Return a row. Row 0 is nobody's and may be given freely."""
        if row:
            self._free_rows.append(row)

    def apply(self, scores: Tensor, last_ids: Tensor, rows: Tensor, penalties: Tensor) -> Tensor:
        """Note the latest tokens, then divide positive and multiply negative scores.

        Args:
            scores: (requests, vocabulary).
            last_ids: (requests,), the token that each request has just processed.
            rows: (requests,), from `take_row`.
            penalties: (requests,), 1 changes nothing.

        Returns:
            (requests, vocabulary).

        Source: "CTRL", Keskar et al. 2019, section 4.1, as in transformers.
        """
        self.table[rows, last_ids.clamp(0, self._vocab_size)] = True
        seen = self.table[rows][:, : self._vocab_size]
        penalty = penalties.unsqueeze(1)
        penalised = torch.where(scores < 0, scores * penalty, scores / penalty)
        return torch.where(seen & (penalty != 1), penalised, scores)


def perturb_scores(
    scores: Tensor,
    temperatures: Tensor,
    top_ps: Tensor,
    top_ks: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> Tensor:
    """Turn scores into ones whose argmax is the drawn token.

    Args:
        scores: (requests, vocabulary), float32.
        temperatures: (requests,); 0 leaves the row as it is: its argmax is the greedy token.
        top_ps: (requests,), over 0 to 1.
        top_ks: (requests,), 0 for no limit.
        seeds: (requests,), int64, the 64 bits of the seed.
        positions: (requests,), of the token that is drawn, counted from the first of the prompt.

    Returns:
        (requests, vocabulary).
    """
    is_greedy = (temperatures == 0).unsqueeze(1)
    divisor = torch.where(is_greedy, 1.0, temperatures.unsqueeze(1))
    ordered, order = (scores / divisor).sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scores.shape[-1], device=scores.device)
    limit = top_ks.unsqueeze(1)
    ordered = ordered.masked_fill((limit > 0) & (rank >= limit), -torch.inf)
    probabilities = ordered.softmax(dim=-1).to(torch.float64)
    # What lies before a token decides, so that the first one always stays.
    before = probabilities.cumsum(dim=-1) - probabilities
    limit_p = top_ps.unsqueeze(1)
    is_cut = before >= limit_p.to(torch.float64) * (1 - TOP_P_TOLERANCE)
    ordered = ordered.masked_fill((limit_p < 1) & is_cut, -torch.inf)
    kept = torch.empty_like(ordered).scatter_(-1, order, ordered)
    tokens = torch.arange(scores.shape[-1], device=scores.device).unsqueeze(0)
    noise = draw_gumbel(seeds, positions, tokens)
    return torch.where(is_greedy, scores, kept + noise)
