"""What a request may ask of the draw of its tokens, and who draws them.

A row's draw depends on its scores, its parameters, its seed and the position of the token in
its context: the same seed gives the same answer whoever shares the batch. Sampling is an
argmax over scores plus Gumbel noise, and the noise is a hash of (seed, position, token).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from llavachat_server.values import (
    MAX_REPETITION_PENALTY,
    MAX_SEED,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TEMPERATURE,
    InvalidField,
    Sampling,
)

if TYPE_CHECKING:
    from llavachat_server.engine.batching.sequence import Draw


def validate_sampling(sampling: Sampling, *, max_tokens: int, vocab_size: int) -> None:
    """Refuse values that the contract does not allow.

    Args:
        sampling: resolved parameters.
        max_tokens: the longest answer of the profile.
        vocab_size: the upper end of `top_k`.

    Raises:
        InvalidField: names the field and what is allowed.
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
        (len(sampling.stop) <= MAX_STOPS, "stop", f"at most {MAX_STOPS} texts"),
        (
            all(1 <= len(text) <= MAX_STOP_CHARS for text in sampling.stop),
            "stop",
            f"each text must have 1 to {MAX_STOP_CHARS} characters",
        ),
    )
    for is_met, field, expected in rules:
        if not is_met:
            raise InvalidField(f"params.{field}", expected)


GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
"""Constants of SplitMix64, whose products wrap around at 64 bits.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
"""


TOP_P_TOLERANCE = 1e-10
"""The part of top_p that the probabilities before a token may lack and count as reaching it.

They are summed in float64. In which order is the device's affair: CUDA's is not the same twice
(torch 2.13 counts `cumsum` among its nondeterministic operations), and its sums differ by 4e-12 at
most where a vocabulary has 32,064 tokens. Steps of float32 are 6e-8 wide at top_p 0.7.
"""


class Sampler(Protocol):
    """Draws the next tokens of a batch, each row by its own rules and by nothing else.

    It knows which tokens are in the context of each request that asks for a repetition penalty: a
    row of a table each. Row 0 belongs to all others. It belongs to the generation loop's thread: a
    row is written between the steps that read the table.
    """

    def take_row(self, token_ids: Sequence[int]) -> int:
        """Reserve a row for a prompt."""
        ...

    def give_row(self, row: int) -> None:
        """Return a row. Row 0 is nobody's and may be given freely."""
        ...

    def draw(
        self,
        draws: "Sequence[Draw]",
        last_ids: Sequence[int],
        positions: Sequence[int],
        logits: Any,
    ) -> list[int]:
        """Draw a token for each row.

        Args:
            draws: the rows' rules.
            last_ids: the token that each has just processed.
            positions: of the tokens that are drawn, counted from the first of the prompt.
            logits: (rows, vocabulary), as the runner computes them; they are overwritten.
        """
        ...
