"""Carries each request's sampling rules into the generation loop's batches.

Takes the place of transformers' logits processors: the rules travel in the loop's own static
tensors, so that recorded CUDA graphs see them change. What is drawn is `sampling`'s business.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.requests import FutureRequestState

from llavachat_server.engine.sampling import SeenTokens, perturb_scores

DRAW_KEY = "draw"
"""Where a request's `Draw` stands among its ``logit_processor_kwargs``."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One request's rules, ready for the device. `seen_row` is from `SeenTokens.take_row`."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int
    seen_row: int


GREEDY = Draw(0.0, 1.0, 0, 1.0, 0, 0)

_FLOAT_ROWS = 3  # temperature, top_p, repetition_penalty
_INT_ROWS = 5  # top_k, two halves of the seed, position, seen row


class BatchSampler(ContinuousBatchingLogitsProcessorList):
    """Turns a batch's logits into scores whose argmax is the token to take.

    Args:
        seen: rows for repetition penalties.
        silent_ids: ids that are no text and must never be drawn, such as the image placeholder.
        vocab_size: width of the output head.
    """

    def __init__(self, seen: SeenTokens, silent_ids: list[int], vocab_size: int) -> None:
        super().__init__(LogitsProcessorList())
        self.tensors_required = _FLOAT_ROWS + _INT_ROWS
        self.do_processing = True
        self._seen = seen
        self._is_silent = torch.zeros(vocab_size, dtype=torch.bool, device=seen.table.device)
        self._is_silent[silent_ids] = True

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Nothing to check: the engine's gate has."""

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        """Zeros: greedy, and harmless for the padding of a recorded graph."""
        int32_tensor.zero_()

    def prepare_tensor_args(
        self, requests_in_batch: list[FutureRequestState], arg_storage: Tensor
    ) -> Tensor:
        """Write the rules of those requests that get a token, in the order of their logits.

        Args:
            requests_in_batch: the batch; positions have been moved on already.
            arg_storage: (rules, at least as many columns as requests), int32.
        """
        states = [future.state for future in requests_in_batch if future.has_new_token]
        draws: list[Draw] = [s.logit_processor_kwargs.get(DRAW_KEY, GREEDY) for s in states]
        floats = [
            [draw.temperature for draw in draws],
            [draw.top_p for draw in draws],
            [draw.repetition_penalty for draw in draws],
        ]
        ints = [
            [draw.top_k for draw in draws],
            [_to_signed(draw.seed & 0xFFFFFFFF) for draw in draws],
            [_to_signed(draw.seed >> 32) for draw in draws],
            [state.position_offset for state in states],
            [draw.seen_row for draw in draws],
        ]
        rules = torch.cat(
            [
                torch.tensor(floats, dtype=torch.float32).view(torch.int32),
                torch.tensor(ints, dtype=torch.int32),
            ]
        )
        # Padding must not mark tokens as seen in a row that belongs to somebody.
        arg_storage.zero_()
        arg_storage[:, : len(states)] = rules.to(arg_storage.device)
        return arg_storage

    def __call__(self, input_ids: Tensor, scores: Tensor, logits_processor_args: Tensor) -> Tensor:
        """Scores to draw from.

        Args:
            input_ids: (requests,), each request's latest token.
            scores: (requests, vocabulary), float32.
            logits_processor_args: (rules, requests), int32.

        Returns:
            (requests, vocabulary).
        """
        temperatures, top_ps, penalties = logits_processor_args[:_FLOAT_ROWS].view(torch.float32)
        top_ks, seed_low, seed_high, positions, rows = logits_processor_args[_FLOAT_ROWS:]
        scores = scores.masked_fill(self._is_silent, -torch.inf)
        # On a CPU a look at the rules saves the work; on a GPU it would make the host wait.
        may_look = not scores.is_cuda
        if not (may_look and bool((rows == 0).all())):
            scores = self._seen.apply(scores, input_ids, rows, penalties)
        if may_look and bool((temperatures == 0).all()):
            return scores
        seeds = (seed_low.to(torch.int64) & 0xFFFFFFFF) | (seed_high.to(torch.int64) << 32)
        return perturb_scores(scores, temperatures, top_ps, top_ks, seeds, positions)


def _to_signed(bits: int) -> int:
    return bits - 2**32 if bits >= 2**31 else bits
