"""Which numbers, kernels and sizes fit which machine: pure decisions, without torch.

Every rule says where it comes from. Nothing here looks at the machine; `loading` does.
"""

from dataclasses import dataclass

from llavachat_server.engine.settings import EngineSettings
from llavachat_server.values import Quantization

DEFAULT_CPU_CACHE_TOKENS = 16_384
"""Room of the cache on a CPU: 16 chats of 1,024 tokens; 96 MiB with the embedded model."""

CPU_PAGE_TOKENS = 16
"""Width of a shared cache page. Prefixes are shared in whole pages, so small ones share more."""

FLASH_PAGE_TOKENS = 256
"""FlashAttention 2 reads paged caches in multiples of 256 tokens.

Source: ``flash_attn_with_kvcache`` in the FlashAttention repository.
"""

CPU_BATCH_TOKENS = 256
GPU_BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Placement:
    """How the model sits on the machine.

    `cuda_graphs` is (for batches with prompts, for batches of single tokens).
    """

    device: str
    dtype: str
    attention: str
    cuda_graphs: tuple[bool, bool]
    page_tokens: int
    max_batch_tokens: int
    cache_tokens: int | None


def place_model(
    settings: EngineSettings, *, has_cuda: bool, has_flash_attention: bool
) -> Placement:
    """Decide for a machine.

    Args:
        settings: what was asked for; "auto" and None are resolved here.
        has_cuda: whether torch sees a GPU.
        has_flash_attention: whether the FlashAttention 2 package is installed.

    Raises:
        ValueError: a GPU was asked for and there is none.
    """
    if settings.device == "cuda" and not has_cuda:
        raise ValueError('device "cuda" was asked for, but torch finds no GPU; use "cpu" or "auto"')
    on_gpu = has_cuda and settings.device != "cpu"
    flash = on_gpu and has_flash_attention
    return Placement(
        device="cuda" if on_gpu else "cpu",
        dtype=_choose_dtype(settings, on_gpu=on_gpu, flash=flash),
        # "sdpa" masks and gathers, and runs everywhere; flash kernels read the pages themselves.
        attention="flash_attention_2" if flash else "sdpa",
        cuda_graphs=_choose_cuda_graphs(settings.quantization, flash=flash),
        page_tokens=FLASH_PAGE_TOKENS if flash else CPU_PAGE_TOKENS,
        max_batch_tokens=settings.max_batch_tokens
        or max(settings.max_running, GPU_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS),
        cache_tokens=settings.kv_cache_tokens or (None if on_gpu else DEFAULT_CPU_CACHE_TOKENS),
    )


def _choose_dtype(settings: EngineSettings, *, on_gpu: bool, flash: bool) -> str:
    if settings.dtype != "auto":
        if flash and settings.dtype == "float32":
            raise ValueError("FlashAttention works in 16 bits: dtype must not be float32")
        return settings.dtype
    if not on_gpu:
        return "float32"
    return "bfloat16" if settings.quantization is Quantization.NF4 else "float16"


def _choose_cuda_graphs(quantization: Quantization, *, flash: bool) -> tuple[bool, bool]:
    # LLM.int8() looks for outliers on the host in every layer, which a graph cannot record.
    # Masked attention would pay for the padding that graphs need.
    is_possible = flash and quantization is not Quantization.INT8
    return is_possible, is_possible
