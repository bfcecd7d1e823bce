"""The journal of systemd, spoken to in its own protocol, so that a line has fields and a priority.

Contract: one entry for each log record. ``MESSAGE`` is the JSON line that would stand on stderr;
``PRIORITY`` comes from the level; ``LLAVACHAT_EVENT`` and a ``LLAVACHAT_`` field for each of the
event's own make it findable, as by ``journalctl LLAVACHAT_TURN_ID=...``. Where the journal does
not take an entry, it goes to stderr with a ``<N>`` prefix, which the journal reads as a priority.
It must not know what the server does.

Sources: systemd's "Native Journal Protocol" (systemd.io/JOURNAL_NATIVE_PROTOCOL), sd-daemon(3)
for the prefix, systemd.exec(5) for JOURNAL_STREAM.
"""

import array
import errno
import fcntl
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

SOCKET = Path("/run/systemd/journal/socket")

PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
"""The least level for each of syslog's priorities; what is less is 7, "debug"."""

_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_FIELD = re.compile(r"[^A-Z0-9_]")
_MAX_FIELD_CHARS = 64


class JournalHandler(logging.Handler):
    """Sends records to the journal.

    Args:
        path: the journal's socket.
        stderr: what takes what the journal does not; `sys.stderr` when not given.
    """

    def __init__(self, path: Path = SOCKET, stderr: TextIO | None = None) -> None:
        super().__init__()
        self._path = str(path)
        self._stderr = stderr or sys.stderr
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        try:
            line = self.format(record)
            priority = find_priority(record.levelno)
            try:
                self._send(encode(describe(record, line, priority)))
            except OSError:
                self._stderr.write(f"<{priority}>{line}\n")
                self._stderr.flush()
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """See `logging.Handler.close`."""
        self._socket.close()
        super().close()

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_by_file(entry)

    def _send_by_file(self, entry: bytes) -> None:
        # More than a datagram holds, such as many stacks: the journal reads it from memory.
        memory = os.memfd_create("llavachat-log", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.write(memory, entry)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as carrier:
                carrier.connect(self._path)
                rights = array.array("i", [memory])
                carrier.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            os.close(memory)


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream leads into the journal by itself, as a service's stderr does."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    with suppress(OSError, ValueError, AttributeError):
        found = os.fstat(stream.fileno())
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    return False


def find_priority(level: int) -> int:
    """syslog's priority of a level."""
    return next((priority for least, priority in PRIORITIES if level >= least), 7)


def describe(record: logging.LogRecord, line: str, priority: int) -> dict[str, str]:
    """An entry's fields.

    Args:
        record: what happened.
        line: as it would stand on stderr.
        priority: syslog's.
    """
    fields = {
        "MESSAGE": line,
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "llavachat-server",
        "LOGGER": record.name,
        "LLAVACHAT_EVENT": record.getMessage(),
    }
    own = getattr(record, "fields", {})
    for name, value in own.items() if isinstance(own, Mapping) else ():
        if value not in ("", None):
            fields[f"LLAVACHAT_{_FIELD.sub('_', name.upper())}"[:_MAX_FIELD_CHARS]] = str(value)
    return fields


def encode(fields: Mapping[str, str]) -> bytes:
    """An entry on the wire. A value with line breaks comes with its length."""
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "surrogateescape")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
