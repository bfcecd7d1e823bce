"""The store and the audit record that the settings ask for, opened and closed together."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llavachat_server.chats.audit import AuditError, AuditLog
from llavachat_server.chats.audited import AuditedStore
from llavachat_server.chats.errors import StoreFull
from llavachat_server.chats.memory import MemoryStore
from llavachat_server.chats.retention import KeptChats
from llavachat_server.chats.store import FULL_RETRY_SECONDS, ChatStore
from llavachat_server.folders import find_state_folder
from llavachat_server.settings import Settings, find_audit_mode

if TYPE_CHECKING:
    from llavachat_server.chats.sql.reading import CutTurn
    from llavachat_server.chats.sql.store import SqlStore

log = logging.getLogger("llavachat.store")

DATABASE_NAME = "chats.db"
AUDIT_FOLDER_NAME = "audit"


class StoreNotOpened(Exception):
    """Chats can not be kept as the settings ask; one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """What keeps chats while the server runs.

    Args:
        store: keeps them.
        kept: tells of them, for retention. None: the store forgets by itself.
        close: writes what is left, and lets go. Blocks.
        lost: done, with a sentence for the log, once another server owns the chats. None: none can.
    """

    store: ChatStore
    kept: KeptChats | None
    close: Callable[[], None]
    lost: "Future[str] | None" = None


def open_store(settings: Settings) -> OpenedStore:
    """Open what the settings ask for. Blocks.

    Raises:
        StoreNotOpened: it can not be.
    """
    closes: list[Callable[[], None]] = []
    kept: KeptChats | None = None
    lost: Future[str] | None = None
    try:
        audit = _open_audit(settings)
        if audit is not None:
            closes.append(partial(_close_audit, audit))
        sql: SqlStore | None = None
        if settings.store == "memory":
            store: ChatStore = MemoryStore(
                max_chats=settings.max_chats,
                max_picture_bytes=settings.max_picture_memory_bytes,
                max_turns_per_chat=settings.max_turns_per_chat,
            )
        else:
            kept = sql = _open_sql(settings, audit)
            store, lost = sql, sql.lost
            closes.insert(0, sql.close)
        if audit is not None:
            audited = _account_for(store, sql, audit, with_content=settings.audit == "content")
            # Before the database closes, which forgets what is settled then.
            closes.insert(0, audited.settle_late)
            store = audited
    except BaseException:
        for close in closes:
            close()
        raise
    if audit is not None and settings.audit == "content":
        log.warning(
            "the audit record keeps what is said, also of chats that are erased",
            extra={"fields": {"folder": str(audit_folder(settings))}},
        )

    def close_all() -> None:
        for close in closes:
            close()

    return OpenedStore(store, kept, close_all, lost)


def audit_folder(settings: Settings) -> Path:
    """Where the audit record is."""
    return find_state_folder(settings) / AUDIT_FOLDER_NAME


def database_file(settings: Settings) -> Path:
    """Where the chats are, unless PostgreSQL or memory has them."""
    return find_state_folder(settings) / DATABASE_NAME


def _check_state_folder(settings: Settings) -> None:
    """Refuse a link that leads to nothing, of which the system says that it exists."""
    folder = find_state_folder(settings)
    # What can not even be looked at is told by who opens it.
    with suppress(OSError):
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                raise StoreNotOpened(
                    f"state_folder: {place} leads to nothing ({place.readlink()}); is its volume "
                    "mounted?"
                )


def _open_audit(settings: Settings) -> AuditLog | None:
    if find_audit_mode(settings) == "off":
        return None
    _check_state_folder(settings)
    try:
        return AuditLog(audit_folder(settings))
    except AuditError as error:
        raise StoreNotOpened(str(error)) from error


def _close_audit(audit: AuditLog) -> None:
    lost = audit.close()
    if lost is not None:
        log.error("lines of the audit record are lost", extra={"fields": asdict(lost)})


def _open_sql(settings: Settings, audit: AuditLog | None) -> "SqlStore":
    # Here, because a server without a database need not load its libraries.
    from llavachat_server.chats.sql.database import StoreError, sqlite_url
    from llavachat_server.chats.sql.store import SqlStore

    if is_sqlite := settings.store == "sqlite":
        _check_state_folder(settings)
    try:
        store = SqlStore(
            sqlite_url(database_file(settings)) if is_sqlite else settings.store,
            max_bytes=settings.max_store_bytes,
            max_turns_per_chat=settings.max_turns_per_chat,
            tell_cut=_make_teller(audit),
        )
    except StoreError as error:
        raise StoreNotOpened(str(error)) from error
    return store


def _account_for(
    store: ChatStore, sql: "SqlStore | None", audit: AuditLog, *, with_content: bool
) -> AuditedStore:
    """The store with its record, which has all that was erased before, with or without it."""
    if sql is None:
        return AuditedStore(store, audit, with_content=with_content)
    audited = AuditedStore(store, audit, with_content=with_content, settle=sql.erasures.settle)
    from llavachat_server.chats.sql.database import StoreError

    try:
        audited.record_erasures(sql.erasures.read())
    except StoreError as error:
        raise StoreNotOpened(str(error)) from error
    return audited


def _make_teller(audit: AuditLog | None) -> "Callable[[Sequence[CutTurn]], None]":
    """What tells of turns that were cut, once, and returns when that is on the disk."""
    is_told = False

    def tell(cut_turns: "Sequence[CutTurn]") -> None:
        nonlocal is_told
        lines = []
        for cut in () if is_told else cut_turns:
            fields = {"chat_id": cut.chat_id, "turn_id": cut.turn_id}
            log.warning("turn cut", extra={"fields": fields})
            if audit is not None:
                time = datetime.now(UTC).isoformat()
                lines.append(
                    audit.append({"event": "cut", "time": time, "tenant": cut.tenant, **fields})
                )
        is_told = True
        try:
            for line in lines:
                line.result()
            if audit is not None and audit.is_behind:
                audit.catch_up().result()
        except OSError as error:
            raise StoreFull(FULL_RETRY_SECONDS) from error

    return tell
