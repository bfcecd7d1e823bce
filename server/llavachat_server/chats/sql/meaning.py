"""What a database's errors mean to those who keep chats in it."""

import logging
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from llavachat_server.chats.errors import StoreDamaged, StoreFull, StoreUnavailable
from llavachat_server.chats.sql.database import NotOwned, is_away, is_damaged, is_full
from llavachat_server.chats.sql.lanes import GONE_RETRY_SECONDS
from llavachat_server.chats.store import FULL_RETRY_SECONDS

log = logging.getLogger("llavachat.store")


def translate(
    note_away: Callable[[DBAPIError], None], error: Exception, is_told: bool = False
) -> Exception:
    """What an error means to a caller. `is_told`: the log has this damage, which is met again."""
    if isinstance(error, NotOwned):
        # Told by `lost`, for the server to end.
        return StoreUnavailable(GONE_RETRY_SECONDS)
    if not isinstance(error, DBAPIError):
        return error
    if is_full(error):
        return StoreFull(FULL_RETRY_SECONDS)
    if is_damaged(error):
        if not is_told:
            # Some are followed by what was said in a chat.
            why = str(error.orig).partition(" with text ")[0]
            log.error("the store is damaged", extra={"fields": {"why": why}})
        return StoreDamaged()
    if is_away(error):
        note_away(error)
        return StoreUnavailable(GONE_RETRY_SECONDS)
    return error
