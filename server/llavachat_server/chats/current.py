"""Chats as they are at this moment: as they are kept, and a running answer as far as it has come.

A turn may end while it is read: then it is read once more, and told with its end.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from llavachat_server.chats.live import LiveTurn
from llavachat_server.chats.record import Chat, Turn, TurnState
from llavachat_server.chats.store import ChatStore


@dataclass(frozen=True, slots=True)
class CurrentChats:
    """Reads.

    Args:
        store: keeps.
        running: the turn that runs in a chat, by tenant and chat.
    """

    store: ChatStore
    running: Mapping[tuple[str, str], LiveTurn]

    async def get_chat(self, tenant: str, chat_id: str) -> Chat:
        """A chat with all its turns.

        Raises:
            NotFound: no such chat.
        """
        return await self._complete(tenant, chat_id, lambda: self.store.get_chat(tenant, chat_id))

    async def get_branch(self, tenant: str, chat_id: str, turn_id: str) -> Chat:
        """A chat with the turns down to one alone.

        Raises:
            NotFound: no such chat or turn.
        """
        return await self._complete(
            tenant, chat_id, lambda: self.store.get_branch(tenant, chat_id, turn_id)
        )

    async def get_turn(self, tenant: str, chat_id: str, turn_id: str) -> Turn:
        """One turn.

        Raises:
            NotFound: no such chat or turn.
        """
        turn = await self.store.get_turn(tenant, chat_id, turn_id)
        if turn.state is not TurnState.RUNNING:
            return turn
        live = self.running.get((tenant, chat_id))
        if live is None or live.turn_id != turn_id:
            return await self.store.get_turn(tenant, chat_id, turn_id)
        return replace(turn, answer=live.answer)

    async def _complete(
        self, tenant: str, chat_id: str, read: Callable[[], Awaitable[Chat]]
    ) -> Chat:
        strayed = ""
        while True:
            chat = await read()
            live = self.running.get((tenant, chat_id))
            stray = _find_stray(chat, live)
            if stray in ("", strayed):
                break
            # It has ended while the chat was read; or else its end could not be kept yet.
            strayed = stray
        if live is None:
            return chat
        turns = tuple(
            replace(turn, answer=live.answer)
            if turn.id == live.turn_id and turn.state is TurnState.RUNNING
            else turn
            for turn in chat.turns
        )
        return replace(chat, turns=turns)


def _find_stray(chat: Chat, live: LiveTurn | None) -> str:
    """A turn that is running as the chat was read, and runs no more; "" where there is none."""
    live_id = "" if live is None else live.turn_id
    strays = (t.id for t in chat.turns if t.state is TurnState.RUNNING and t.id != live_id)
    return next(strays, "")
