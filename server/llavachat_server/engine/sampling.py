"""How the next token is drawn: each row of a batch by its own rules, and by nothing else.

A row's draw depends on its scores, its parameters, its seed and the position of the token in
its context: the same seed gives the same answer whoever shares the batch. Sampling is an
argmax over scores plus Gumbel noise, and the noise is a hash of (seed, position, token).

Pure tensor functions and one table; it knows no requests and no loop.
"""

import math
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llavachat_server.values import InvalidRequest, Sampling

MAX_TEMPERATURE = 2.0
MAX_REPETITION_PENALTY = 2.0
MAX_SEED = 2**64 - 1
MAX_STOP_TEXTS = 8
MAX_STOP_CHARS = 64


def validate_sampling(sampling: Sampling, *, max_tokens: int, vocab_size: int) -> None:
    """Refuse values that the contract does not allow.

    Args:
        sampling: resolved parameters.
        max_tokens: the longest answer of the profile.
        vocab_size: the upper end of `top_k`.

    Raises:
        InvalidRequest: names the field and what is allowed.
    """
    rules = (
        (
            1 <= sampling.max_tokens <= max_tokens,
            "max_tokens",
            f"must be 1 to {max_tokens}",
        ),
        (
            math.isfinite(sampling.temperature) and 0 <= sampling.temperature <= MAX_TEMPERATURE,
            "temperature",
            f"must be 0 to {MAX_TEMPERATURE:g}",
        ),
        (
            math.isfinite(sampling.top_p) and 0 < sampling.top_p <= 1,
            "top_p",
            "must be over 0 and at most 1",
        ),
        (
            0 <= sampling.top_k <= vocab_size,
            "top_k",
            f"must be 0 (no limit) to {vocab_size}",
        ),
        (
            math.isfinite(sampling.repetition_penalty)
            and 0 < sampling.repetition_penalty <= MAX_REPETITION_PENALTY,
            "repetition_penalty",
            f"must be over 0 and at most {MAX_REPETITION_PENALTY:g}",
        ),
        (0 <= sampling.seed <= MAX_SEED, "seed", "must be 0 to 2^64 - 1"),
        (len(sampling.stop) <= MAX_STOP_TEXTS, "stop", f"at most {MAX_STOP_TEXTS} texts"),
        (
            all(1 <= len(text) <= MAX_STOP_CHARS for text in sampling.stop),
            "stop",
            f"each text must have 1 to {MAX_STOP_CHARS} characters",
        ),
    )
    for is_met, field, expected in rules:
        if not is_met:
            raise InvalidRequest(field=field, expected=expected)


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
        # Twice as many rows as needed, in turn: on a GPU a step that was under way when a
        # request ended may still write to its row.
        num_rows = 2 * max_running
        # The last column swallows ids above the vocabulary.
        self.table = torch.zeros(num_rows + 1, vocab_size + 1, dtype=torch.bool, device=device)
        self._vocab_size = vocab_size
        self._free_rows = deque(range(1, num_rows + 1))

    def take_row(self, token_ids: tuple[int, ...]) -> int:
        """Reserve a row for a prompt; wait until it is written."""
        row = self._free_rows.popleft()
        ids = torch.tensor(token_ids, dtype=torch.int64, device=self.table.device)
        self.table[row].zero_()
        self.table[row, ids.clamp(max=self._vocab_size)] = True
        if self.table.is_cuda:
            torch.cuda.current_stream().synchronize()
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


def pick_largest(scores: NDArray[np.float32], silent_ids: NDArray[np.intp]) -> list[int]:
    """What is drawn at temperature 0 without penalties; on a CPU in less time than by torch.

    Args:
        scores: (requests, vocabulary); the silent ids' are overwritten.
        silent_ids: ids that are never drawn.
    """
    if len(silent_ids):
        scores[:, silent_ids] = -np.inf
    drawn: list[int] = scores.argmax(axis=1).tolist()
    return drawn


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
    probabilities = ordered.softmax(dim=-1)
    # What lies before a token decides, so that the first one always stays.
    before = probabilities.cumsum(dim=-1) - probabilities
    limit_p = top_ps.unsqueeze(1)
    ordered = ordered.masked_fill((limit_p < 1) & (before >= limit_p), -torch.inf)
    kept = torch.empty_like(ordered).scatter_(-1, order, ordered)
    noise = draw_gumbel(seeds, positions, scores.shape[-1])
    return torch.where(is_greedy, scores, kept + noise)


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
"""Constants of SplitMix64 as signed 64-bit numbers; products wrap around.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
"""


def draw_gumbel(seeds: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """Standard Gumbel noise that depends on nothing but (seed, position, token).

    Args:
        seeds: (requests,), int64.
        positions: (requests,).
        vocab_size: tokens.

    Returns:
        (requests, vocab_size), float32.
    """
    keys = _mix_bits(seeds + _GOLDEN * (positions.to(torch.int64) + 1))
    tokens = torch.arange(1, vocab_size + 1, dtype=torch.int64, device=seeds.device)
    bits = _mix_bits(keys.unsqueeze(1) + _GOLDEN * tokens)
    uniform = (_shift_right(bits, 11).to(torch.float64) + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform)).to(torch.float32)


def _mix_bits(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    # int64's own shift drags the sign along.
    return (bits >> count) & ((1 << (64 - count)) - 1)
