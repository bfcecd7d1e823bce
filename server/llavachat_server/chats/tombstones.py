"""Which chats an audit record says are erased: what a copy of the chats from before does not know.

Contract: the last word about a chat holds; who brings an erased one back says so in the record. It
reads no line of any other event, and says nothing of whether the record is whole.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from llavachat_server.chats.audit import AuditError, AuditLog, list_files
from llavachat_server.chats.audit_lines import describe_erasure

ChatName = tuple[str, str]
"""A tenant, and the id of a chat of it."""

ERASED, RESTORED = "erased", "restored"
"""The events that are words about a whole chat."""

_BEGIN_ERASED, _BEGIN_RESTORED = (f'{{"event":"{event}",'.encode() for event in (ERASED, RESTORED))


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a record says last of chats that were ever erased.

    Args:
        erased: these are, since when: the latest time that was said since they were there.
        restored: these were brought back.
    """

    erased: dict[ChatName, datetime] = field(default_factory=dict)
    restored: set[ChatName] = field(default_factory=set)


def read_last_words(folder: Path) -> LastWords:
    """What the record says; read it while no server writes.

    Raises:
        AuditError: a line about one is not as it was written.
        OSError: the record can not be read.
    """
    words = LastWords()
    for path in list_files(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                # A record may have millions of lines, of which few are of these.
                if line.startswith((_BEGIN_ERASED, _BEGIN_RESTORED)) and line.endswith(b"\n"):
                    name, time = _read_line(line, path, number)
                    before = words.erased.pop(name, time)
                    words.restored.discard(name)
                    if line.startswith(_BEGIN_ERASED):
                        # A start may write an older one once more.
                        words.erased[name] = max(before, time)
                    else:
                        words.restored.add(name)
    return words


def note(folder: Path, words: Iterable[tuple[str, ChatName]]) -> None:
    """Write that chats are back, or are not. Blocks until that is on the disk.

    Args:
        folder: the record's.
        words: events, `ERASED` or `RESTORED`, and the chats that they are about.

    Raises:
        AuditError: the record can not be opened, as where a server uses it.
        OSError: it has no room.
    """
    log = AuditLog(folder)
    try:
        time = datetime.now(UTC)
        lines = [
            log.append({**describe_erasure(*name, time), "event": event}) for event, name in words
        ]
        for line in lines:
            line.result()
    finally:
        # What is lost has been told by an error.
        log.close()


def _read_line(line: bytes, path: Path, number: int) -> tuple[ChatName, datetime]:
    try:
        record = json.loads(line)
        time = datetime.fromisoformat(record["time"]).astimezone(UTC)
        return (str(record["tenant"]), str(record["chat_id"])), time
    except (ValueError, KeyError, TypeError):
        raise AuditError(
            f"audit: line {number} of {path} is damaged; see llavachat-server audit verify"
        ) from None
