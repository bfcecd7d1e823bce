"""From a checkpoint's name to a model that is ready: one path for folders and hub ids.

Weights come from safetensors files only, and no code of a checkpoint is ever run. A hub id is
fetched at a pinned revision into the hub's own cache and read from there as a folder.
Everything here is slow and belongs on a worker thread.
"""

import hashlib
import importlib.metadata
import importlib.util
import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from llavachat_server.engine.placement import Placement, place_model
from llavachat_server.engine.prompt import PromptBuilder, SpecialTokens
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.values import Quantization

_log = logging.getLogger(__name__)

UNQUANTISED_MODULES = ["vision_tower", "multi_modal_projector", "lm_head"]
"""The picture half is small and its errors reach every answer; the head decides each token."""

HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]
"""What is fetched of a repository: no pickles, no code."""

ANSWER_LIBRARIES = ("torch", "transformers", "tokenizers", "bitsandbytes", "pillow")
"""Distributions whose version can change an answer."""

Progress = Callable[[str, float | None], None]
"""Called with a stage's name and None when it begins, and with its seconds when it is done."""


class LoadingError(Exception):
    """The checkpoint can not be loaded; the message says why and what would be right."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A checkpoint in memory, and what was found in it.

    `context_tokens` is what the positions reach, `silent_ids` are ids without text, which are
    never drawn.
    """

    model: LlavaForConditionalGeneration
    image_processor: CLIPImageProcessorPil
    tokenizer: Tokenizer
    prompts: PromptBuilder
    placement: Placement
    name: str
    revision: str
    weights_sha256: str
    eos_token_ids: tuple[int, ...]
    context_tokens: int
    num_image_tokens: int
    vocab_size: int
    silent_ids: tuple[int, ...]


def find_checkpoint(model: str, revision: str | None) -> Path:
    """The folder of a checkpoint; fetched first where it is a hub id.

    Args:
        model: a folder, or "owner/name".
        revision: see `EngineSettings`.

    Raises:
        LoadingError: it is neither, the revision is not pinned, or it can not be fetched.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise LoadingError(f'"{model}" is neither a folder nor a hub id such as "owner/name"')
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise LoadingError(
            f"the hub's {model} needs a pinned revision: a commit of 40 hexadecimal digits"
        )
    try:
        path = huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=HUB_FILES)
    except Exception as error:
        raise LoadingError(
            f"{model} at {revision} can not be fetched: {type(error).__name__}"
        ) from error
    return Path(path)


def build_quantization(
    quantization: Quantization, int8_threshold: float
) -> BitsAndBytesConfig | None:
    """What bitsandbytes is to do to the language model's linear layers.

    Args:
        quantization: the form.
        int8_threshold: see `EngineSettings`. Source: Dettmers et al., "LLM.int8()", 2022,
            section 3.2, finds 6.0 enough to keep the quality of 16 bits.
    """
    if quantization is Quantization.INT8:
        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=float(int8_threshold),
            llm_int8_skip_modules=UNQUANTISED_MODULES,
        )
    if quantization is Quantization.NF4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=UNQUANTISED_MODULES,
        )
    return None


def load_model(settings: EngineSettings, progress: Progress) -> LoadedModel:
    """Load everything that the engine needs of a checkpoint.

    Args:
        settings: which, and how.
        progress: told about the stages "checkpoint", "weights" and "fingerprint".

    Raises:
        LoadingError: names what is wrong with the checkpoint or the settings.
    """
    with _stage("checkpoint", progress):
        folder = find_checkpoint(settings.model, settings.revision)
        config = _read_config(folder)
        placement = _look_at_machine(settings)
        prompts, tokenizer = _read_tokenizer(folder, config)
        processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    with ThreadPoolExecutor(1, "fingerprint") as pool:
        # Reading the files twice at once costs one reading.
        fingerprint = pool.submit(hash_weights, folder)
        with _stage("weights", progress):
            model = _read_weights(folder, settings, placement)
        with _stage("fingerprint", progress):
            weights_sha256 = fingerprint.result()
    vocab_size = int(config.text_config.vocab_size)
    eos_token_ids = _find_eos(model.generation_config, config)
    return LoadedModel(
        model=model,
        image_processor=processor,
        tokenizer=tokenizer,
        prompts=prompts,
        placement=placement,
        name=folder.resolve().name
        if Path(settings.model).expanduser().is_dir()
        else settings.model,
        revision="" if Path(settings.model).expanduser().is_dir() else settings.revision or "",
        weights_sha256=weights_sha256,
        eos_token_ids=eos_token_ids,
        context_tokens=int(config.text_config.max_position_embeddings),
        num_image_tokens=_count_image_tokens(config),
        vocab_size=vocab_size,
        silent_ids=_find_silent_ids(tokenizer, vocab_size, eos_token_ids),
    )


def hash_weights(folder: Path) -> str:
    """SHA-256 over the weights' files, one after another in the order of their names.

    For a single file it is the file's own.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


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


def _read_config(folder: Path) -> LlavaConfig:
    if not (folder / "config.json").is_file():
        raise LoadingError(f"the folder {folder.name} holds no config.json")
    if not any(folder.glob("*.safetensors")):
        raise LoadingError(f"the folder {folder.name} holds no weights in safetensors files")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not isinstance(config, LlavaConfig):
        raise LoadingError(f"{folder.name} is a {config.model_type} model; LLaVA-1.5 is needed")
    return config


def _look_at_machine(settings: EngineSettings) -> Placement:
    has_flash = importlib.util.find_spec("flash_attn") is not None
    try:
        return place_model(
            settings, has_cuda=torch.cuda.is_available(), has_flash_attention=has_flash
        )
    except ValueError as error:
        raise LoadingError(str(error)) from error


def _read_tokenizer(folder: Path, config: LlavaConfig) -> tuple[PromptBuilder, Tokenizer]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise LoadingError(f"the folder {folder.name} holds no tokenizer.json")
    tokenizer = Tokenizer.from_file(str(path))
    eos = config.text_config.eos_token_id
    special = SpecialTokens(
        bos=int(config.text_config.bos_token_id),
        eos=int(eos[0] if isinstance(eos, list) else eos),
        image=int(config.image_token_id),
    )
    try:
        return PromptBuilder(tokenizer, special), tokenizer
    except ValueError as error:
        raise LoadingError(str(error)) from error


def _read_weights(
    folder: Path, settings: EngineSettings, placement: Placement
) -> LlavaForConditionalGeneration:
    quantization = build_quantization(settings.quantization, settings.int8_threshold)
    arguments: dict[str, Any] = (
        {} if quantization is None else {"quantization_config": quantization}
    )
    model = LlavaForConditionalGeneration.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=getattr(torch, placement.dtype),
        attn_implementation={"": placement.attention, "vision_config": "sdpa"},
        device_map={"": placement.device},
        low_cpu_mem_usage=True,
        **arguments,
    )
    return model.eval().requires_grad_(False)


def _find_eos(generation: GenerationConfig | None, config: LlavaConfig) -> tuple[int, ...]:
    eos = generation.eos_token_id if generation is not None else None
    if eos is None:
        eos = config.text_config.eos_token_id
    return tuple(eos) if isinstance(eos, list) else (int(eos),)


def _count_image_tokens(config: LlavaConfig) -> int:
    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    return int(patches + (config.vision_feature_select_strategy == "full"))


def _find_silent_ids(
    tokenizer: Tokenizer, vocab_size: int, eos_token_ids: tuple[int, ...]
) -> tuple[int, ...]:
    # Rows that only pad the matrices, and structural tokens: an answer that holds the image
    # placeholder would need a picture in the next turn.
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    padding = range(tokenizer.get_vocab_size(with_added_tokens=True), vocab_size)
    return tuple(sorted((special | set(padding)) - set(eos_token_ids)))
