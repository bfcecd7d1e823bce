"""Which chats an audit record says are erased: what a copy of the chats from before does not know.

Contract: the last word about a chat holds; who brings an erased one back says so in the record. It
reads no line of any other event, and says nothing of whether the record is whole.
"""

import json
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from llavachat_server.chats.audit import AuditError, AuditLog, list_files

ChatName = tuple[str, str]
"""A tenant, and the id of a chat of it."""

_ERASED, _RESTORED = (f'{{"event":"{event}",'.encode() for event in ("erased", "restored"))


def read_erased(folder: Path) -> set[ChatName]:
    """The chats that are erased and were not brought back; read it while no server writes.

    Raises:
        AuditError: a line about one is not as it was written.
        OSError: the record can not be read.
    """
    erased: set[ChatName] = set()
    for path in list_files(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                # A record may have millions of lines, of which few are of these.
                if line.startswith((_ERASED, _RESTORED)) and line.endswith(b"\n"):
                    name = _read_name(line, path, number)
                    (erased.add if line.startswith(_ERASED) else erased.discard)(name)
    return erased


def note_restored(folder: Path, names: Collection[ChatName]) -> None:
    """Write that chats are back. Blocks until that is on the disk.

    Raises:
        AuditError: the record can not be opened, as where a server uses it.
        OSError: it has no room.
    """
    log = AuditLog(folder)
    try:
        time = datetime.now(UTC).isoformat()
        lines = [
            log.append({"event": "restored", "time": time, "tenant": tenant, "chat_id": chat_id})
            for tenant, chat_id in sorted(names)
        ]
        for line in lines:
            line.result()
    finally:
        log.close()


def _read_name(line: bytes, path: Path, number: int) -> ChatName:
    try:
        record = json.loads(line)
        return str(record["tenant"]), str(record["chat_id"])
    except (ValueError, KeyError):
        raise AuditError(
            f"audit: line {number} of {path} is damaged; see llavachat-server audit verify"
        ) from None
