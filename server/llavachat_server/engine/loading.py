"""From a checkpoint's folder to a model in memory, quantised where that was asked for.

Weights come from safetensors files only. Slow: it belongs on a worker thread.
"""

import importlib.metadata
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llavachat_server.engine.batching.paged import has_paged_kernel
from llavachat_server.engine.checkpoint import (
    Checkpoint,
    CheckpointFacts,
    LoadingError,
    find_checkpoint,
    hash_weights,
    read_facts,
)
from llavachat_server.engine.llava.config import LlavaConfig
from llavachat_server.engine.llava.model import read_llava
from llavachat_server.engine.llava.weights import WeightsMissing
from llavachat_server.engine.placement import Machine, Placement, place_model
from llavachat_server.engine.provenance import check_provenance
from llavachat_server.engine.quantised import CopyForm, CopyShelf
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.values import Quantization

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

UNQUANTISED_MODULES = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
"""The picture half is small and its errors reach every answer; the head decides each token.

Full names, because transformers matches them from the beginning: "vision_tower" alone matches
nothing, and the tower is quantised without a word.
"""

ANSWER_LIBRARIES = ("torch", "transformers", "tokenizers", "bitsandbytes", "pillow")
"""Distributions whose version can change an answer."""

COPY_LIBRARIES = ("bitsandbytes", "torch", "transformers")
"""Distributions that quantise and write the copy."""

Progress = Callable[[str, float | None], None]
"""Called with a stage's name and None when it begins, and with its seconds when it is done."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A checkpoint in memory; the model is `llava.model.Llava` or transformers' own."""

    model: Any
    checkpoint: Checkpoint
    facts: CheckpointFacts
    placement: Placement
    weights_sha256: str


def load_model(settings: EngineSettings, progress: Progress) -> LoadedModel:
    """Load everything that the engine needs of a checkpoint.

    Args:
        settings: which, and how.
        progress: told about the stages "checkpoint", "weights" and "fingerprint", and "quantised
            copy" where one is written.

    Raises:
        LoadingError: names what is wrong with the checkpoint or the settings.
    """
    with _stage("checkpoint", progress):
        placement = _look_at_machine(settings)
        checkpoint = find_checkpoint(settings.model, settings.revision)
        facts = read_facts(checkpoint.folder)
    if settings.quantization is Quantization.NONE or settings.quantized_folder is None:
        model, weights_sha256 = _read_source(
            checkpoint.folder, settings, placement, progress, facts.config
        )
    else:
        shelf = CopyShelf(Path(settings.quantized_folder))
        model, weights_sha256 = _read_by_copy(
            shelf, checkpoint.folder, settings, placement, progress, facts.config
        )
    hashes = settings.hashes_folder
    check_provenance(checkpoint, weights_sha256, None if hashes is None else Path(hashes))
    return LoadedModel(model, checkpoint, facts, placement, weights_sha256)


def _read_source(
    folder: Path,
    settings: EngineSettings,
    placement: Placement,
    progress: Progress,
    config: LlavaConfig,
) -> tuple[Any, str]:
    with ThreadPoolExecutor(1, "fingerprint") as pool:
        # Reading the files twice at once costs one reading.
        fingerprint = pool.submit(hash_weights, folder)
        with _stage("weights", progress):
            model = _read_plain(folder, settings, placement, config)
            if model is None:
                model = read_weights(folder, settings, placement)
        with _stage("fingerprint", progress):
            return model, fingerprint.result()


def _read_by_copy(
    shelf: CopyShelf,
    folder: Path,
    settings: EngineSettings,
    placement: Placement,
    progress: Progress,
    config: LlavaConfig,
) -> tuple[Any, str]:
    form = CopyForm(
        quantization=settings.quantization.value,
        int8_threshold=settings.int8_threshold,
        dtype=placement.dtype,
        libraries={name: importlib.metadata.version(name) for name in COPY_LIBRARIES},
    )
    copy = shelf.find(folder, form)
    if copy is not None:
        with ThreadPoolExecutor(1, "fingerprint") as pool:
            whole = pool.submit(copy.is_whole)
            with _stage("weights", progress):
                model = _read_copy(copy.folder, settings, placement)
            with _stage("fingerprint", progress):
                is_whole = whole.result()
        if model is not None and is_whole:
            return model, copy.weights_sha256
        del model
        shelf.discard(copy)
    model, weights_sha256 = _read_source(folder, settings, placement, progress, config)
    with _stage("quantised copy", progress):
        shelf.keep(model, folder, form, weights_sha256)
    return model, weights_sha256


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
        raise LoadingError(
            f"the weights in {folder.name} can not be loaded: {type(error).__name__}"
        ) from error


def _read_copy(folder: Path, settings: EngineSettings, placement: Placement) -> Any:
    try:
        return read_weights(folder, settings, placement, is_copy=True)
    except LoadingError:
        return None


def build_quantization(
    quantization: Quantization, int8_threshold: float
) -> "BitsAndBytesConfig | None":
    """What bitsandbytes is to do to the language model's linear layers.

    Args:
        quantization: the form.
        int8_threshold: see `EngineSettings`.
    """
    if quantization is Quantization.NONE:
        return None
    from transformers import BitsAndBytesConfig

    if quantization is Quantization.INT8:
        # It warns in every layer of every step where activations are not in float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=True,
            llm_int8_threshold=float(int8_threshold),
            llm_int8_skip_modules=UNQUANTISED_MODULES,
        )
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
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
        LoadingError: the files are broken or do not fit into memory.
    """
    from transformers import LlavaForConditionalGeneration
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    quantization = build_quantization(settings.quantization, settings.int8_threshold)
    arguments: dict[str, Any] = (
        {} if quantization is None or is_copy else {"quantization_config": quantization}
    )
    try:
        model: Any = LlavaForConditionalGeneration.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=getattr(torch, placement.dtype),
            attn_implementation="sdpa",
            device_map={"": placement.device},
            **arguments,
        )
    except Exception as error:
        raise LoadingError(
            f"the weights in {folder.name} can not be loaded: {type(error).__name__}"
        ) from error
    return model.eval().requires_grad_(False)


def list_library_versions() -> dict[str, str]:
    """Versions of the installed libraries that shape an answer."""
    versions = {}
    for name in ANSWER_LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@contextmanager
def _stage(name: str, progress: Progress) -> Iterator[None]:
    progress(name, None)
    start = time.perf_counter()
    yield
    progress(name, time.perf_counter() - start)


def _look_at_machine(settings: EngineSettings) -> Placement:
    has_cuda = torch.cuda.is_available()
    machine = Machine(
        has_cuda=has_cuda,
        capability=torch.cuda.get_device_capability()[0] if has_cuda else 0,
        has_paged_kernel=has_cuda and has_paged_kernel(),
    )
    try:
        return place_model(settings, machine)
    except ValueError as error:
        raise LoadingError(str(error)) from error
