"""Where a question stands: its chat, the branch before it, the pictures it takes over."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from llavachat_server.chats.question import NewChat, Place
from llavachat_server.chats.record import Chat, Turn, TurnState
from llavachat_server.chats.store import ChatStore
from llavachat_server.images.intake import ImageInfo
from llavachat_server.values import InvalidField


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a question stands.

    Args:
        chat: its chat, with as many of its turns as matter here; without any when it is new.
        is_new: whether the question opens the chat.
        history: the finished turns before it, the first one first.
    """

    chat: Chat
    is_new: bool
    history: tuple[Turn, ...]

    @property
    def opening_images(self) -> tuple[ImageInfo, ...]:
        """A first question that is asked again keeps the pictures that the chat was opened with."""
        if self.history or not self.chat.turns:
            return ()
        return self.chat.turns[0].images


async def read_setting(
    store: ChatStore, tenant: str, where: NewChat | Place, new_chat_id: str = ""
) -> Setting:
    """Look up where a question stands.

    Raises:
        NotFound: no such chat or turn.
        InvalidField: the parent was cut short.
    """
    if isinstance(where, NewChat):
        return _new_setting(tenant, where.system_prompt, where.labels, new_chat_id)
    if where.parent_turn_id == "":
        return Setting(await store.get_opening(tenant, where.chat_id), False, ())
    chat = await store.get_branch(tenant, where.chat_id, where.parent_turn_id)
    if not chat.turns:
        # Nothing is finished: the first question is asked again.
        return Setting(await store.get_opening(tenant, where.chat_id), False, ())
    if chat.turns[-1].state is not TurnState.FINISHED:
        raise InvalidField("parent_turn_id", "this turn is not finished; name one that is")
    return Setting(chat, False, chat.turns)


def _new_setting(
    tenant: str, system_prompt: str | None, labels: Mapping[str, str], chat_id: str
) -> Setting:
    now = datetime.now(UTC)
    return Setting(Chat(chat_id, tenant, system_prompt, dict(labels), now, now), True, ())
