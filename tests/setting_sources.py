"""Where a server's settings come from: what tests give, and what they take away."""

from pathlib import Path

import pytest
from llavachat_server.settings import Settings


def forget_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have none come from the environment that the tests run in."""
    for name in (*Settings.model_fields, "config"):
        monkeypatch.delenv(f"LLAVACHAT_{name.upper()}", raising=False)


def write_config(folder: Path, text: str) -> str:
    """A settings file; its path."""
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return str(path)
