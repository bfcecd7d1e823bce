"""What a step is made of."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Input:
    """One request's tokens in a step.

    Args:
        token_ids: the tokens to compute.
        start: position of the first of them.
        blocks: the request's blocks, enough for these tokens.
        wants_logits: the last token's logits are needed.
    """

    token_ids: Sequence[int]
    start: int
    blocks: Sequence[int]
    wants_logits: bool
