"""Which numbers, kernels and sizes fit which machine: pure decisions, without torch.

Every rule says where it comes from. Nothing here looks at the machine; `loading` does.
"""

from dataclasses import dataclass, replace

from llavachat_server.engine.batching.budget import MIN_CHUNK_TOKENS
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.values import Quantization

DEFAULT_CPU_CACHE_TOKENS = 8_192
"""Room of the cache on a CPU: 16 chats of 512 tokens, or two whole contexts of LLaVA-1.5. 48 MiB
with the embedded model, and 4 GiB with LLaVA-1.5-7B in bfloat16, beside 13 GiB of weights, on a
machine that may have other work."""

PIECE_BLOCK_TOKENS = 16
"""Width of a cache block. Prefixes are shared in whole blocks, so small ones share more."""

PAGED_BLOCK_TOKENS = 256
"""FlashAttention 2 reads paged caches in multiples of 256 tokens.

Source: ``mha_varlen_fwd`` in the FlashAttention repository, which torch carries.
"""

FLASH_CAPABILITY = 8
"""FlashAttention 2 needs Ampere (A10G: 8.6) or newer. Source: its README. bfloat16 is multiplied
by tensor cores from there on, too; a T4 (7.5) has them for float16 alone. Source: "Arithmetic
Instructions" and "Compute Capabilities" in NVIDIA's CUDA C++ programming guide."""

CPU_BATCH_TOKENS = 256
GPU_BATCH_TOKENS = 1024

EXACT_CPU_PRODUCTS = 256e9
"""Tokens of a step times weights, at most, where answers must come out again: there a step can not
be sized by the time that it takes. Two cores with AVX-512 multiplied 7B's weights in int8 by 18
tokens a second, prompt and picture together; this is two seconds of that, and 32 tokens of 7B."""

GPU_GAP_SECONDS = 0.1
"""The longest pause that an entering prompt should cause in running answers. Reading stays
fluent: at 250 words a minute a person takes 0.18 s for a token."""

CPU_GAP_SECONDS = 0.01
"""Likewise on a CPU, where a chunk costs in proportion to its tokens: small ones lose little. With
16 new chats at once on two cores with AVX-512, 20 ms gave pauses of 20 ms (p99), 975 tok/s and a
first token after 0.42 s (median); this gives 15 ms, 935 tok/s and 0.49 s."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What `loading` found.

    Args:
        has_cuda: torch sees a GPU.
        capability: the GPU's major compute capability, 0 without one.
        has_paged_kernel: torch's ``varlen_attn`` takes a block table (torch 2.12 and newer).
    """

    has_cuda: bool = False
    capability: int = 0
    has_paged_kernel: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """How the model sits on the machine.

    `attention` is "paged" or "pieces", see `batching.attention`; `records_decoding`: steps of
    single tokens are recorded as CUDA graphs.
    """

    device: str
    dtype: str
    attention: str
    records_decoding: bool
    page_tokens: int
    max_batch_tokens: int
    gap_seconds: float
    cache_tokens: int | None

    @property
    def nf4_dtype(self) -> str:
        """What nf4's layers are unpacked to and multiplied in: on a GPU what all else is in."""
        return self.dtype if self.device == "cuda" else "bfloat16"


def place_model(settings: EngineSettings, machine: Machine) -> Placement:
    """Decide for a machine.

    Args:
        settings: what was asked for; "auto" and None are resolved here.
        machine: what there is.

    Raises:
        ValueError: a GPU was asked for and there is none.
    """
    if settings.device == "cuda" and not machine.has_cuda:
        raise ValueError('device "cuda" was asked for, but torch finds no GPU; use "cpu" or "auto"')
    on_gpu = machine.has_cuda and settings.device != "cpu"
    dtype = _choose_dtype(settings, machine, on_gpu=on_gpu)
    is_paged = (
        on_gpu
        and dtype != "float32"
        and machine.has_paged_kernel
        and machine.capability >= FLASH_CAPABILITY
    )
    return Placement(
        device="cuda" if on_gpu else "cpu",
        dtype=dtype,
        attention="paged" if is_paged else "pieces",
        records_decoding=is_paged and not _looks_at_host(settings),
        page_tokens=PAGED_BLOCK_TOKENS if is_paged else PIECE_BLOCK_TOKENS,
        max_batch_tokens=settings.max_batch_tokens
        or max(settings.max_running, GPU_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS),
        gap_seconds=GPU_GAP_SECONDS if on_gpu else CPU_GAP_SECONDS,
        cache_tokens=settings.kv_cache_tokens or (None if on_gpu else DEFAULT_CPU_CACHE_TOKENS),
    )


def count_exact_tokens(placement: Placement, num_layer_weights: int) -> int:
    """Prompt tokens of a step in exact mode: by model and settings alone, so always the same."""
    if placement.device == "cuda":
        return placement.max_batch_tokens
    fitting = int(EXACT_CPU_PRODUCTS / num_layer_weights)
    return min(max(MIN_CHUNK_TOKENS, fitting // 8 * 8), placement.max_batch_tokens)


def lacks_paged_kernel(placement: Placement, machine: Machine) -> bool:
    """Whether a newer torch would compute this model otherwise on this machine."""
    return (
        placement.device == "cuda"
        and placement.dtype != "float32"
        and machine.capability >= FLASH_CAPABILITY
        and not machine.has_paged_kernel
    )


def place_in_pieces(placement: Placement) -> Placement:
    """The same without the kernel that reads pages."""
    return replace(
        placement, attention="pieces", records_decoding=False, page_tokens=PIECE_BLOCK_TOKENS
    )


def _looks_at_host(settings: EngineSettings) -> bool:
    # In every layer LLM.int8() asks the host which columns have outliers, where it is to look for
    # any; a graph can not record that.
    return settings.quantization is Quantization.INT8 and bool(settings.int8_threshold)


def _choose_dtype(settings: EngineSettings, machine: Machine, *, on_gpu: bool) -> str:
    if settings.dtype != "auto":
        return settings.dtype
    if not on_gpu:
        return "float32"
    has_bfloat16 = machine.capability >= FLASH_CAPABILITY
    return "bfloat16" if settings.quantization is Quantization.NF4 and has_bfloat16 else "float16"
