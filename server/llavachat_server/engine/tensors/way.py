"""How steps come to be computed on a machine, in words and figures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """What was chosen, and what came of it.

    Args:
        attention: "paged" or "pieces", see `Placement.attention`.
        dtype: what the model is computed in.
        page_tokens: of a block of the cache.
        cache_tokens: that the cache holds.
        records_steps: steps of single tokens are replayed as CUDA graphs.
        records_draws: draws from the likeliest tokens, too.
        troubles: why it is not as `Placement` wanted it; empty where it is.
    """

    attention: str
    dtype: str
    page_tokens: int
    cache_tokens: int
    records_steps: bool = False
    records_draws: bool = False
    troubles: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words, for a log."""
        name = "pages" if self.attention == "paged" else "pieces"
        recorded = {
            (True, True): "steps and draws are recorded",
            (True, False): "steps are recorded, draws are not",
        }.get((self.records_steps, self.records_draws), "nothing is recorded")
        return (
            f"attention in {name} of {self.page_tokens} tokens, {self.dtype}, a cache of "
            f"{self.cache_tokens:,} tokens, {recorded}"
        )
