"""Where a checkpoint is, and what its small files say: everything but the weights.

One path for folders and hub ids: a hub id is fetched at a pinned revision into the hub's own
cache and read from there as a folder. No pickles are fetched and no code of a checkpoint is
ever run.
"""

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from llavachat_server.engine.llava.config import (
    CLIP_VISION,
    ConfigError,
    LlavaConfig,
    TextConfig,
    parse_config,
)
from llavachat_server.engine.pixels import PixelForm, parse_pixel_form
from llavachat_server.engine.prompt import PromptBuilder, SpecialTokens
from llavachat_server.values import HUB_ID

HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]
"""What is fetched of a repository."""

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
"""How files end that torch would unpickle."""


class LoadingError(Exception):
    """The checkpoint can not be loaded; the message says why and what would be right."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on this machine. `revision` is "" for one that was given as a folder."""

    folder: Path
    name: str
    revision: str


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointFacts:
    """What the small files say.

    Args:
        config: of the whole model.
        pixel_form: what becomes of a picture before the vision tower reads it.
        tokenizer: whole.
        prompts: the template over the tokenizer.
        eos_token_ids: end an answer.
        context_tokens: what the positions reach.
        num_image_tokens: of one picture.
        vocab_size: rows of the embedding and of the head, padding among them.
        silent_ids: ids without text, which are never drawn.
    """

    config: LlavaConfig
    pixel_form: PixelForm
    tokenizer: Tokenizer
    prompts: PromptBuilder
    eos_token_ids: tuple[int, ...]
    context_tokens: int
    num_image_tokens: int
    vocab_size: int
    silent_ids: tuple[int, ...]


def find_checkpoint(model: str, revision: str | None) -> Checkpoint:
    """Find a checkpoint; fetch it first where it is a hub id.

    Args:
        model: a folder, or "owner/name".
        revision: a commit of the hub's repository, 40 hexadecimal digits.

    Raises:
        LoadingError: it is neither, the revision is not pinned, or it can not be fetched.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, folder.resolve().name, "")
    if not HUB_ID.fullmatch(model):
        raise LoadingError(f'"{model}" is neither a folder nor a hub id such as "owner/name"')
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise LoadingError(
            f"the hub's {model} needs a pinned revision: a commit of 40 hexadecimal digits"
        )
    return Checkpoint(_fetch(model, revision), model, revision)


def _fetch(model: str, revision: str) -> Path:
    """The folder in the hub's own cache."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # What the library says comes to our handlers as well; its own would say it once more, as text.
    logging.getLogger("huggingface_hub").handlers.clear()
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=HUB_FILES))
    except LocalEntryNotFoundError as error:
        is_forbidden = constants.HF_HUB_OFFLINE
        why = "must not be asked, by HF_HUB_OFFLINE" if is_forbidden else "can not be reached"
        raise LoadingError(
            f"{model} at {revision} is not on this machine, and the hub {why}; --model may name a "
            "folder that holds it"
        ) from error
    except Exception as error:
        raise LoadingError(
            f"{model} at {revision} can not be fetched: {type(error).__name__}"
        ) from error


def read_facts(folder: Path) -> CheckpointFacts:
    """Read everything but the weights.

    Raises:
        LoadingError: a file is missing, or it is not a LLaVA-1.5 checkpoint.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise LoadingError(f"the folder {folder.name} holds no {name}")
    _refuse_code(folder)
    try:
        config = parse_config(_read_object(folder / "config.json"))
    except ConfigError as error:
        raise LoadingError(f"config.json in {folder.name} does not fit: {error}") from error
    try:
        tokenizer_file = (folder / "tokenizer.json").read_bytes()
        tokenizer = Tokenizer.from_buffer(tokenizer_file)
    except Exception as error:
        raise LoadingError(
            f"tokenizer.json in {folder.name} can not be read: {type(error).__name__}"
        ) from error
    text = config.text_config
    if config.image_token_id >= text.vocab_size:
        raise LoadingError(
            f"config.json in {folder.name} does not fit: image_token_id must be below "
            f"text_config.vocab_size, {text.vocab_size}, not {config.image_token_id}"
        )
    eos_token_ids = _find_eos(folder, text)
    special = SpecialTokens(
        bos=text.bos_token_id, eos=eos_token_ids[0], image=config.image_token_id
    )
    try:
        prompts = PromptBuilder(tokenizer, special, file=tokenizer_file)
    except ValueError as error:
        raise LoadingError(str(error)) from error
    return CheckpointFacts(
        config=config,
        pixel_form=_read_pixel_form(folder),
        tokenizer=tokenizer,
        prompts=prompts,
        eos_token_ids=eos_token_ids,
        context_tokens=text.max_position_embeddings,
        num_image_tokens=_count_image_tokens(config),
        vocab_size=text.vocab_size,
        silent_ids=_find_silent_ids(tokenizer, text.vocab_size, eos_token_ids),
    )


def list_small_files(folder: Path) -> list[Path]:
    """Everything of a checkpoint that is read besides its weights."""
    return sorted(path for pattern in ("*.json", "*.jinja") for path in folder.glob(pattern))


def hash_file(path: Path) -> str:
    """SHA-256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _refuse_code(folder: Path) -> None:
    """Refuse a checkpoint that wants code of its own to be run, in whichever way.

    Nothing here would run it: no call to transformers trusts remote code or reads a pickle. But
    such a checkpoint would be loaded as something that it is not.
    """
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        if pickles:
            raise LoadingError(
                f"the weights in {folder.name} are a pickle ({pickles[0]}), which could run any "
                "code; convert them to safetensors"
            )
        raise LoadingError(f"the folder {folder.name} holds no weights in safetensors files")
    for path in list_small_files(folder):
        if path.suffix != ".json":
            continue
        content = _read_json(path)
        if isinstance(content, dict) and "auto_map" in content:
            raise LoadingError(
                f"{path.name} in {folder.name} asks for code of its own to be run (auto_map); "
                "llavachat runs none: use a checkpoint in transformers' own LLaVA-1.5 form"
            )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LoadingError(
            f"{path.name} in {path.parent.name} can not be read: {type(error).__name__}"
        ) from error


def _read_object(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    if not isinstance(content, dict):
        raise LoadingError(f"{path.name} in {path.parent.name} must hold an object")
    return content


def _read_pixel_form(folder: Path) -> PixelForm:
    # Releases of transformers differ in where they write it; the newer place counts.
    nested, own = folder / "processor_config.json", folder / "preprocessor_config.json"
    content = _read_object(nested).get("image_processor") if nested.is_file() else None
    if not isinstance(content, dict):
        if not own.is_file():
            raise LoadingError(f"the folder {folder.name} holds no {own.name}")
        content, nested = _read_object(own), own
    try:
        return parse_pixel_form(content)
    except ValueError as error:
        raise LoadingError(f"{nested.name} in {folder.name} does not fit: {error}") from error


def _find_eos(folder: Path, text: TextConfig) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    eos = _read_object(path).get("eos_token_id") if path.is_file() else None
    if eos is None:
        eos = text.eos_token_id
    ids = tuple(eos) if isinstance(eos, list | tuple) else (eos,)
    if not ids or not all(isinstance(token_id, int) for token_id in ids):
        raise LoadingError(f"{path.name} in {folder.name}: eos_token_id must be a whole number")
    return ids


def _count_image_tokens(config: LlavaConfig) -> int:
    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    # "default" leaves the first state out, which is a class token's where the tower has one.
    num_states = patches + (vision.model_type == CLIP_VISION)
    return int(num_states - (config.vision_feature_select_strategy == "default"))


def _find_silent_ids(
    tokenizer: Tokenizer, vocab_size: int, eos_token_ids: tuple[int, ...]
) -> tuple[int, ...]:
    # Rows that only pad the matrices, and structural tokens: an answer that holds the image
    # placeholder would need a picture in the next turn.
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    padding = range(tokenizer.get_vocab_size(with_added_tokens=True), vocab_size)
    silent = (special | set(padding)) - set(eos_token_ids)
    # A tokenizer may know tokens for which the model never got rows.
    return tuple(sorted(token_id for token_id in silent if token_id < vocab_size))
