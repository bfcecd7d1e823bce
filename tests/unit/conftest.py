"""Fixtures of the store on SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from llavachat_server.chats.sql.store import SqlStore


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A new database."""
    return f"sqlite:///{tmp_path}/chats.db"


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    """An empty store."""
    opened = SqlStore(url)
    yield opened
    opened.close()
