"""What the engine must be told to start: plain values, without torch.

Where the values come from (profiles, files, flags) is not the engine's business.
"""

from dataclasses import dataclass

from llavachat_server.values import Quantization


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How to load a model and how much of the machine to use.

    Args:
        model: a checkpoint's folder, or its id on the Hugging Face hub, "owner/name".
        profile: the name under which the server presents the model.
        revision: a commit of the hub's repository, 40 hexadecimal digits. Required with a hub id,
            not used with a folder.
        quantization: the form of the language model's weights. The vision tower, the projector
            and the output head are never quantised.
        int8_threshold: for INT8. None: activations are multiplied in two digits of 8 bits, which is
            as exact as 16 bits and the same in any company; see `tensors.products`. 0: in 8
            bits, half the multiplying, and less exact where activations have outliers. Above:
            LLM.int8(): columns in which an activation exceeds this magnitude are multiplied in 16
            bits. They are looked for in all rows of a batch together, so that an answer depends
            on who shares the batch, and a GPU's steps can not be recorded. Source of the usual
            6.0: Dettmers et al., "LLM.int8()", 2022, section 3.2.
        hashes_folder: where the hashes of a hub's model are recorded at its first load; see
            `provenance`. None: nowhere.
        quantized_folder: where what became of the weights is kept for the next start, quantised or
            in the kernels' order; see `shelf`. None: it is made at every start.
        compile_steps: on a CPU in float32, decode by kernels that are compiled for the processor at
            the first start; needs numba. See `llavachat_server.engine.native`.
        compiled_folder: where the machine code of the kernels for a CPU is kept for the next
            start; see `llavachat_server.engine.native`. None: compiled at every start.
        dtype: "auto", "float32", "bfloat16" or "float16". "auto": float32 on a CPU; on a GPU
            bfloat16 with NF4 where the GPU multiplies it (Ampere or newer), float16 otherwise.
        device: "auto", "cpu" or "cuda". "auto": the first GPU, or the CPU where there is none.
        max_running: answers that are generated side by side, 1 or more.
        max_queued: requests that may wait for their place, 0 or more.
        max_tokens: the longest answer that a request may ask for, in tokens.
        kv_cache_tokens: room of the key-value cache, in tokens. None: 8,192 on a CPU; on a GPU
            what `kv_memory_fraction` leaves room for.
        kv_memory_fraction: share of the GPU's free memory for the cache and its buffers, over 0
            and below 1. Used where `kv_cache_tokens` is None.
        max_batch_tokens: the most prompt tokens of one forward pass. While answers are running
            the loop takes fewer, so that their next tokens do not wait too long. None: 256 on a
            CPU, 1,024 on a GPU.
        exact: answers are computed one at a time and from their beginning, so that the same prompt
            and seed give the same tokens in any company; see `batching.exact`. Several times
            slower where many ask.
        num_bank_images: pictures whose features are kept on the device, 1 or more.
        num_threads: CPU threads for the model. None: what torch finds.
    """

    model: str
    profile: str = "custom"
    revision: str | None = None
    quantization: Quantization = Quantization.NONE
    int8_threshold: float | None = None
    quantized_folder: str | None = None
    compile_steps: bool = False
    compiled_folder: str | None = None
    hashes_folder: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    max_running: int = 16
    max_queued: int = 64
    max_tokens: int = 1024
    kv_cache_tokens: int | None = None
    kv_memory_fraction: float = 0.85
    max_batch_tokens: int | None = None
    exact: bool = False
    num_bank_images: int = 64
    num_threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no engine can run with.

        Raises:
            ValueError: names the setting and what is allowed.
        """
        rules = (
            (
                not self.int8_threshold or self.int8_threshold > 0,
                "int8_threshold must be 0 or more",
            ),
            (self.max_running >= 1, "max_running must be 1 or more"),
            (self.max_queued >= 0, "max_queued must be 0 or more"),
            (self.max_tokens >= 1, "max_tokens must be 1 or more"),
            (0 < self.kv_memory_fraction < 1, "kv_memory_fraction must be over 0 and below 1"),
            (self.num_bank_images >= 1, "num_bank_images must be 1 or more"),
            (self.num_threads is None or self.num_threads >= 1, "num_threads must be 1 or more"),
            (
                self.kv_cache_tokens is None or self.kv_cache_tokens >= 256,
                "kv_cache_tokens must be 256 or more",
            ),
            (
                self.max_batch_tokens is None or self.max_batch_tokens >= self.max_running,
                "max_batch_tokens must be max_running or more",
            ),
            (
                self.dtype in ("auto", "float32", "bfloat16", "float16"),
                'dtype must be "auto", "float32", "bfloat16" or "float16"',
            ),
            (self.device in ("auto", "cpu", "cuda"), 'device must be "auto", "cpu" or "cuda"'),
        )
        for is_met, rule in rules:
            if not is_met:
                raise ValueError(rule)
