"""From a checkpoint's folder to a model in memory, quantised where that was asked for.

Weights come from safetensors files only. Slow: it belongs on a worker thread.
"""

import errno
import importlib.metadata
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import torch

from llavachat_server.engine.checkpoint import LoadingError
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.kept import CopyUnreadable, Recipe, read_by_copy
from llavachat_server.engine.llava.config import LlavaConfig
from llavachat_server.engine.llava.files import WeightsMissing
from llavachat_server.engine.llava.model import read_llava
from llavachat_server.engine.placement import Placement
from llavachat_server.engine.progress import Progress
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.shelf import Shelf
from llavachat_server.engine.shortage import is_memory_shortage, is_shortage
from llavachat_server.values import Quantization

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

UNQUANTISED_MODULES = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
"""The picture half is small and its errors reach every answer; the head decides each token.

Full names, because transformers matches them from the beginning: "vision_tower" alone matches
nothing, and the tower is quantised without a word.
"""

COPY_LIBRARIES = ("bitsandbytes", "torch", "transformers")
"""Distributions that quantise and write the copy."""

_SHARD_BYTES = 2 * 1024**3
"""Bounds the host memory that writing a copy takes: one file's worth is gathered at a time."""


def read_model(
    settings: EngineSettings,
    folder: Path,
    config: LlavaConfig,
    placement: Placement,
    progress: Progress,
    fingerprint: Fingerprint | None,
) -> tuple[Any, str]:
    """Read a checkpoint's weights, or the quantised copy of them.

    Args:
        settings: how.
        folder: of the checkpoint.
        config: of the same.
        placement: device and number format.
        fingerprint: where it was begun already.
        progress: told about the stages "weights" and "fingerprint", and "copy" where
            one is written.

    Returns:
        The model, `llava.model.Llava` or transformers' own, and the hash of its weights.

    Raises:
        LoadingError: names what is wrong with the checkpoint.
    """
    is_quantised = settings.quantization is not Quantization.NONE
    shelf = None
    if is_quantised and settings.quantized_folder is not None:
        shelf = Shelf(Path(settings.quantized_folder))
    recipe = Recipe(
        kind=settings.quantization.value,
        form={} if shelf is None else _describe_form(settings, placement),
        make=lambda: _read_source(folder, settings, placement, config),
        read=lambda copy: _read_copy(copy, settings, placement),
        write=lambda model, copy: model.save_pretrained(copy, max_shard_size=_SHARD_BYTES),
        count_bytes=_count_bytes,
    )
    if fingerprint is None:
        copy = None if shelf is None else shelf.find(recipe.kind, folder, recipe.form)
        fingerprint = Fingerprint(folder, copy)
    return read_by_copy(recipe, folder, shelf, fingerprint, progress)


def _describe_form(settings: EngineSettings, placement: Placement) -> dict[str, Any]:
    form = {
        "int8_threshold": settings.int8_threshold or 0.0,
        "dtype": placement.dtype,
        "libraries": {name: importlib.metadata.version(name) for name in COPY_LIBRARIES},
    }
    # A copy's configuration says what it is multiplied in. Those that say nothing here are
    # multiplied in bfloat16, as all once were, and stay good.
    is_nf4 = settings.quantization is Quantization.NF4
    if is_nf4 and placement.nf4_dtype != "bfloat16":
        form["nf4_dtype"] = placement.nf4_dtype
    return form


def _count_bytes(model: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def _read_source(
    folder: Path, settings: EngineSettings, placement: Placement, config: LlavaConfig
) -> Any:
    model = _read_plain(folder, settings, placement, config)
    return read_weights(folder, settings, placement) if model is None else model


def _read_plain(
    folder: Path, settings: EngineSettings, placement: Placement, config: LlavaConfig
) -> Any:
    # What our own modules do not compute, or do not find, is transformers' to read or refuse.
    is_plain = config.is_plain and settings.quantization is Quantization.NONE
    if not is_plain or placement.device != "cpu":
        return None
    try:
        return read_llava(folder, config, getattr(torch, placement.dtype))
    except WeightsMissing:
        return None
    except Exception as error:
        raise _explain(folder, error) from error


def _read_copy(folder: Path, settings: EngineSettings, placement: Placement) -> Any:
    try:
        return read_weights(folder, settings, placement, is_copy=True)
    except LoadingError as error:
        if is_shortage(error.__cause__):
            # Of which the copy is not to blame; and to quantise the source takes more.
            raise
        raise CopyUnreadable(str(error)) from error


def build_quantization(
    quantization: Quantization, int8_threshold: float | None, nf4_dtype: str = "bfloat16"
) -> "BitsAndBytesConfig | None":
    """What bitsandbytes is to do to the language model's linear layers.

    Args:
        quantization: the form.
        int8_threshold: see `EngineSettings`. bitsandbytes' own modules take None as 0.
        nf4_dtype: see `Placement`.
    """
    if quantization is Quantization.NONE:
        return None
    from transformers import BitsAndBytesConfig

    if quantization is Quantization.INT8:
        # Its modules, which `generate` calls, warn in every layer where activations are not in
        # float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=True,
            llm_int8_threshold=float(int8_threshold or 0),
            llm_int8_skip_modules=UNQUANTISED_MODULES,
        )
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, nf4_dtype),
        llm_int8_skip_modules=UNQUANTISED_MODULES,
    )


def read_weights(
    folder: Path, settings: EngineSettings, placement: Placement, *, is_copy: bool = False
) -> Any:
    """Read a checkpoint's weights onto the device, by transformers.

    Args:
        folder: of the checkpoint.
        settings: the quantisation.
        placement: device and number format.
        is_copy: the weights are quantised already, and their configuration says how.

    Raises:
        LoadingError: the files are broken, lack weights, or do not fit into memory.
    """
    _leave_kernels_unused()
    from transformers import LlavaForConditionalGeneration
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    quantization = build_quantization(
        settings.quantization, settings.int8_threshold, placement.nf4_dtype
    )
    arguments: dict[str, Any] = (
        {} if quantization is None or is_copy else {"quantization_config": quantization}
    )
    try:
        read: Any = LlavaForConditionalGeneration.from_pretrained
        model, told = read(
            folder,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=getattr(torch, placement.dtype),
            attn_implementation="sdpa",
            device_map={"": placement.device},
            **arguments,
        )
    except Exception as error:
        raise _explain(folder, error) from error
    _refuse_gaps(folder, told)
    return model.eval().requires_grad_(False)


def _leave_kernels_unused() -> None:
    """Have nothing compiled come from the hub, where somebody has installed the package for that.

    bitsandbytes asks it as it is imported on a processor with bfloat16, GPU or not, and tells who
    has it not to install it.
    """
    sys.modules.setdefault("kernels", cast(ModuleType, None))
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def _explain(folder: Path, error: Exception) -> LoadingError:
    name = type(error).__name__
    if is_memory_shortage(error) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return LoadingError(
            f"the weights in {folder.name} do not fit into what memory is free ({name}): another "
            "process may have taken it, or a smaller model or form is needed"
        )
    why = f", {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return LoadingError(f"the weights in {folder.name} can not be loaded: {name}{why}")


def _refuse_gaps(folder: Path, told: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of which transformers has made up a part: that draws random weights."""
    names = sorted({*told["missing_keys"], *(entry[0] for entry in told["mismatched_keys"])})
    if names:
        others = f" and {len(names) - 1} others" if len(names) > 1 else ""
        raise LoadingError(
            f"the weights in {folder.name} lack {names[0]}{others}, or have them in another shape; "
            "fetch the checkpoint anew"
        )
