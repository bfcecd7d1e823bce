"""The embedded checkpoint with another tokenizer: the same weights, and words have other ids."""

import json
import shutil
from pathlib import Path
from typing import Any

from llavachat_server.profiles import SHAPES_FOLDER

IMAGE_TOKEN_ID, PAD_TOKEN_ID = 1216, 1217
_FIRST_WORD_ID, _LAST_WORD_ID = 300, 1215


def write_other_words(folder: Path) -> Path:
    """As many words, in the opposite order: no id is out of range, each says something else."""

    def turn_around(tokenizer: dict[str, Any]) -> None:
        words = tokenizer["model"]["vocab"]
        for word, token_id in words.items():
            if token_id >= _FIRST_WORD_ID:
                words[word] = _FIRST_WORD_ID + _LAST_WORD_ID - token_id

    return _write(folder, turn_around, IMAGE_TOKEN_ID)


def write_other_image_token(folder: Path) -> Path:
    """The placeholder of pictures and the padding have changed places."""

    def exchange(tokenizer: dict[str, Any]) -> None:
        for token in tokenizer["added_tokens"]:
            if token["id"] in (IMAGE_TOKEN_ID, PAD_TOKEN_ID):
                token["id"] = IMAGE_TOKEN_ID + PAD_TOKEN_ID - token["id"]
        tokenizer["added_tokens"].sort(key=lambda token: token["id"])

    return _write(folder, exchange, PAD_TOKEN_ID)


def _write(folder: Path, change: Any, image_token_id: int) -> Path:
    shutil.copytree(SHAPES_FOLDER, folder)
    for name, edit in (
        ("tokenizer.json", change),
        ("config.json", lambda config: config.update(image_token_index=image_token_id)),
    ):
        path = folder / name
        content = json.loads(path.read_text("utf-8"))
        edit(content)
        path.write_text(json.dumps(content), "utf-8")
    return folder
