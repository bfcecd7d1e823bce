"""What the command line remembers between runs: the last chat of each server, and what was typed.

In the user's state folder, or in LLAVACHAT_STATE_DIR. A state that can not be read or written is
no reason to fail: there is then no last chat.
"""

import contextlib
import json
import os
from pathlib import Path

from platformdirs import user_state_path

from llavachat.cli.files import replace_file

_FILE = "last-chats.json"


def find_state_folder() -> Path:
    """Where the state is; it may not exist yet."""
    override = os.environ.get("LLAVACHAT_STATE_DIR")
    return Path(override) if override else user_state_path("llavachat", appauthor=False)


def find_history_file() -> Path | None:
    """Where `llavachat chat` keeps what was typed. None: nowhere, the folder can not be made."""
    folder = find_state_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / "history"


def read_last_chat(address: str) -> str | None:
    """The id of the last chat on a server. None: there was none."""
    chat_id = _read().get(address)
    return chat_id if isinstance(chat_id, str) else None


def write_last_chat(address: str, chat_id: str | None) -> None:
    """Remember the last chat on a server; None forgets it.

    The file is replaced whole, so that a run at the same time never reads half of it.
    """
    chats = _read()
    chats.pop(address, None)
    if chat_id is not None:
        chats[address] = chat_id
    folder = find_state_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(folder / _FILE, json.dumps(chats).encode(), is_private=True)


def _read() -> dict[str, object]:
    try:
        chats = json.loads((find_state_folder() / _FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return chats if isinstance(chats, dict) else {}
