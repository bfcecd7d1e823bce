"""Are a model's weights those that they were? Hashes recorded once, compared at every load.

What comes with llavachat is recorded when its wheel is built: pip keeps each file's SHA-256. A
hub's model is recorded when this server loads it for the first time, since its revision names a
commit but nothing here has signed it. A folder that the operator names is the operator's own, and
is not recorded. It must not know how weights are read.
"""

import base64
import importlib.metadata
import json
from pathlib import Path

from llavachat_server.drafts import draft_of
from llavachat_server.engine.checkpoint import (
    Checkpoint,
    LoadingError,
    hash_file,
    list_small_files,
)

_DISTRIBUTION = "llavachat"
_PACKAGE = Path(__file__).parent.parent
_WEIGHTS = "weights"


def check_provenance(checkpoint: Checkpoint, weights_sha256: str, folder: Path | None) -> None:
    """Let a checkpoint through that is what it was, and record one that is new.

    Args:
        checkpoint: which, on this machine.
        weights_sha256: of its weights as they were read; see `fingerprint.hash_weights`.
        folder: where hubs' models are recorded. None: nowhere.

    Raises:
        LoadingError: it has changed; the message says what to do.
    """
    if checkpoint.folder.resolve().is_relative_to(_PACKAGE):
        _check_embedded(checkpoint, weights_sha256)
    elif checkpoint.revision and folder is not None:
        _check_recorded(checkpoint, weights_sha256, folder)


def read_build_record() -> dict[Path, str]:
    """SHA-256 of each file of the installed wheel; empty in a checkout, which has none."""
    try:
        files = importlib.metadata.files(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {
        Path(str(file.locate())).resolve(): _read_hash(file.hash.value)
        for file in files
        if file.hash is not None and file.hash.mode == "sha256"
    }


def _check_embedded(checkpoint: Checkpoint, weights_sha256: str) -> None:
    recorded = read_build_record()
    found = _describe(checkpoint.folder, weights_sha256)
    weights = sorted(checkpoint.folder.resolve().glob("*.safetensors"))
    for name, sha256 in found.items():
        if name == _WEIGHTS:
            expected = recorded.get(weights[0]) if len(weights) == 1 else None
        else:
            expected = recorded.get((checkpoint.folder / name).resolve())
        if expected is not None and expected != sha256:
            raise LoadingError(
                f"{name} of the model {checkpoint.name} is not what llavachat was built with; "
                "install llavachat again"
            )


def _check_recorded(checkpoint: Checkpoint, weights_sha256: str, folder: Path) -> None:
    path = folder / f"{checkpoint.name.replace('/', '--')}@{checkpoint.revision}.json"
    found = _describe(checkpoint.folder, weights_sha256)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with draft_of(path) as draft:
                draft.write(f"{json.dumps(found, indent=1)}\n".encode())
        except OSError as error:
            raise LoadingError(
                f"the model's hashes can not be recorded in {folder}: {error.strerror}"
            ) from error
        return
    try:
        recorded = json.loads(path.read_text("utf-8"))
        changed = sorted(name for name in recorded | found if recorded.get(name) != found.get(name))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LoadingError(f"the record {path} can not be read: {type(error).__name__}") from error
    if changed:
        raise LoadingError(
            f"{', '.join(changed)} of {checkpoint.name} changed since its first load here, though "
            f"its revision is the same; fetch it anew, or, if you changed it, remove {path}"
        )


def _describe(folder: Path, weights_sha256: str) -> dict[str, str]:
    """SHA-256 of everything that shapes an answer, by name."""
    small = {path.name: hash_file(path) for path in list_small_files(folder)}
    return {_WEIGHTS: weights_sha256, **small}


def _read_hash(text: str) -> str:
    """A hash as pip records it, in hexadecimal."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
