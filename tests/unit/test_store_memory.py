"""The store in memory keeps what every store promises."""

import pytest
from llavachat_server.chats.memory import MemoryStore
from store_contract import StoreContract


class TestMemoryStore(StoreContract):
    """The contract, in memory."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        """An empty store."""
        return MemoryStore()
