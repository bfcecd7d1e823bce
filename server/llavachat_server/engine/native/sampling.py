"""Draws tokens by NumPy, by the rules and the numbers of `tensors.sampling`.

See there for what a draw depends on. Rows are drawn one by one: few are, and most of them need no
sorting.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llavachat_server.engine.batching.sequence import Draw
from llavachat_server.engine.sampling import GOLDEN, MIX_1, MIX_2, TOP_P_TOLERANCE

Floats = NDArray[np.float32]


class ArraySampler:
    """See `engine.sampling.Sampler`.

    Args:
        max_running: requests with a repetition penalty at once, at most.
        vocab_size: width of the output head.
        silent_ids: ids that are never drawn.
    """

    def __init__(self, max_running: int, vocab_size: int, silent_ids: Sequence[int]) -> None:
        # Row 0 is nobody's. The last column swallows ids above the vocabulary.
        self.table = np.zeros((max_running + 1, vocab_size + 1), np.bool_)
        self._vocab_size = vocab_size
        self._silent_ids = np.array(silent_ids, np.intp)
        self._free_rows = deque(range(1, max_running + 1))

    def take_row(self, token_ids: Sequence[int]) -> int:
        """See `engine.sampling.Sampler`."""
        ids = np.minimum(token_ids, self._vocab_size)
        row = self._free_rows.popleft()
        self.table[row] = False
        self.table[row, ids] = True
        return row

    def give_row(self, row: int) -> None:
        """See `engine.sampling.Sampler`."""
        if row:
            self._free_rows.append(row)

    def draw(
        self,
        draws: Sequence[Draw],
        last_ids: Sequence[int],
        positions: Sequence[int],
        logits: Floats,
    ) -> list[int]:
        """See `engine.sampling.Sampler`."""
        if len(self._silent_ids):
            logits[:, self._silent_ids] = -np.inf
        for scores, draw, last_id in zip(logits, draws, last_ids, strict=True):
            if draw.seen_row:
                self._penalise(scores, draw, last_id)
        drawn: list[int] = logits.argmax(1).tolist()
        for index, draw in enumerate(draws):
            if draw.temperature > 0:
                drawn[index] = draw_token(logits[index], draw, positions[index])
        return drawn

    def _penalise(self, scores: Floats, draw: Draw, last_id: int) -> None:
        """Note the latest token, then divide positive and multiply negative scores, in place.

        Source: "CTRL", Keskar et al. 2019, section 4.1, as in transformers.
        """
        seen = self.table[draw.seen_row]
        seen[min(last_id, self._vocab_size)] = True
        penalty, own = np.float32(draw.repetition_penalty), seen[: self._vocab_size]
        picked = scores[own]
        scores[own] = np.where(picked < 0, picked * penalty, picked / penalty)


def draw_token(scores: Floats, draw: Draw, position: int) -> int:
    """One token by the rules of a request whose temperature is above 0.

    Args:
        scores: (vocabulary,).
        draw: the rules.
        position: of the token that is drawn, counted from the first of the prompt.
    """
    scaled = scores / np.float32(draw.temperature)
    has_top_k = 0 < draw.top_k < len(scores)
    if has_top_k or draw.top_p < 1:
        order = np.argsort(-scaled, kind="stable")
        ordered = scaled[order]
        if has_top_k:
            ordered[draw.top_k :] = -np.inf
        if draw.top_p < 1:
            shares = np.exp(ordered - ordered[0])
            shares /= shares.sum()
            # What lies before a token decides, so that the first one always stays.
            before = np.cumsum(shares, dtype=np.float64) - shares
            limit = float(np.float32(draw.top_p)) * (1 - TOP_P_TOLERANCE)
            ordered[before >= limit] = -np.inf
        scaled[order] = ordered
    return int((scaled + draw_gumbel(draw.seed, position, len(scores))).argmax())


def draw_gumbel(seed: int, position: int, vocab_size: int) -> Floats:
    """Standard Gumbel noise that depends on nothing but (seed, position, token).

    Args:
        seed: 64 bits.
        position: 0 or more.
        vocab_size: tokens.

    Returns:
        (vocab_size,).
    """
    golden = np.array([GOLDEN], np.uint64)
    key = _mix_bits(np.array([seed], np.uint64) + golden * np.array([position + 1], np.uint64))
    bits = _mix_bits(key + golden * np.arange(1, vocab_size + 1, dtype=np.uint64))
    uniform = ((bits >> 11).astype(np.float64) + 0.5) * 2.0**-53
    noise: Floats = (-np.log(-np.log(uniform))).astype(np.float32)
    return noise


def _mix_bits(bits: Any) -> Any:
    # Products wrap around.
    bits = (bits ^ (bits >> 30)) * np.uint64(MIX_1)
    bits = (bits ^ (bits >> 27)) * np.uint64(MIX_2)
    return bits ^ (bits >> 31)
