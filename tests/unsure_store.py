"""A store whose database begins chats and does not live to say so."""

from llavachat_server.chats.errors import StoreUnavailable
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.record import Chat, RequestClaim, Turn
from llavachat_server.images.intake import Picture


class UnsureStore(MemoryStore):
    """Keeps what begins, and tells that nobody knows whether it did."""

    async def begin_chat(
        self,
        chat: Chat,
        turn: Turn,
        pictures: tuple[Picture, ...],
        claim: RequestClaim | None,
    ) -> None:
        """Do it and fail."""
        await super().begin_chat(chat, turn, pictures, claim)
        raise StoreUnavailable(1.0, may_be_done=True)
