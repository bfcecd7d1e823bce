"""One request inside the core: its tokens, its place in the cache, what became of it.

Plain state without behaviour of its own; the scheduler and the core move it along. It knows
no tensor.
"""

from collections.abc import Hashable
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Draw:
    """The sampling rules of one request.

    `temperature` 0 is greedy, `top_k` 0 and `top_p` 1 set no limit, `repetition_penalty` 1
    changes nothing, `seed` has 64 bits. `seen_row` is from ``Sampler.take_row``; 0 without
    a penalty, and in a `Job`, whose row the core takes.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    seen_row: int = 0


GREEDY = Draw()


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to generate.

    Args:
        number: unique among the jobs in the core.
        token_ids: the prompt, 1 or more ids; virtual ids stand for rows of picture features.
        max_new_tokens: 1 or more.
        eos_token_ids: end the answer; the closing one is reported too.
        draw: the sampling rules.
        seen_ids: what a repetition penalty knows of the prompt, as the tokenizer wrote it.
        salt: prefixes are shared between jobs of equal salt only.
        owner: whose prefix it is; see `BlockPool.forget_owner`.
        tenant: who asks; tenants take turns.
    """

    number: int
    token_ids: Ids[int]
    max_new_tokens: int
    eos_token_ids: frozenset[int] = frozenset()
    draw: Draw = GREEDY
    seen_ids: Ids[int] = ()
    salt: bytes = b""
    owner: Hashable | None = None
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a step brought to one job.

    Args:
        number: the job's.
        token_id: the new token; None when the job ended without one.
        is_over: the core has let go of the job and of its blocks.
        has_failed: the step in which the job was computed raised, or the core does not take it.
        cached_tokens: tokens of the prompt that were found in the cache.
        scheduled_at_seconds: when the job first entered the batch, by ``time.perf_counter``.
    """

    number: int
    token_id: int | None
    is_over: bool
    has_failed: bool
    cached_tokens: int
    scheduled_at_seconds: float


@dataclass(eq=False, slots=True)
class Sequence:
    """A job on its way.

    Args:
        job: as it came.
        token_ids: the prompt and the answer so far.
        draw: the job's, with a row of the sampler's where it needs one.
        num_computed: leading tokens whose keys and values are in the cache.
        blocks: the cache's blocks, in order of the tokens.
        digests: the names of the full blocks among them, see ``BlockPool``.
        known_names: of its tokens' full blocks, whether it holds them or waits.
        cached_tokens: see `Output`; counted once, when it first enters the batch.
        scheduled_at_seconds: see `Output`; None until then.
    """

    job: Job
    token_ids: list[int]
    draw: Draw = GREEDY
    num_computed: int = 0
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    known_names: list[bytes] = field(default_factory=list)
    cached_tokens: int = 0
    scheduled_at_seconds: float | None = None

    @property
    def num_uncomputed(self) -> int:
        """Tokens still to go through the model; 1 while it decodes."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_new_tokens(self) -> int:
        """Tokens of the answer."""
        return len(self.token_ids) - len(self.job.token_ids)

    @property
    def max_length(self) -> int:
        """Tokens of prompt and answer at most. The last one never enters the cache."""
        return len(self.job.token_ids) + self.job.max_new_tokens
