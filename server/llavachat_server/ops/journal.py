"""The journal of systemd, spoken to in its own protocol, so that a line has fields and a priority.

Contract: one entry for each log record. ``MESSAGE`` is the JSON line that would stand on stderr;
``PRIORITY`` comes from the level; ``LLAVACHAT_EVENT`` and a ``LLAVACHAT_`` field for each of the
event's own make it findable, as by ``journalctl LLAVACHAT_TURN_ID=...``. Where there is no journal
that takes an entry, it goes to stderr with a ``<N>`` prefix, which the journal reads as a priority.
Nobody ever waits for the journal: entries that come while it does not read are dropped, and the
next one that it takes says how many, as ``lines_dropped``. It must not know what the server does.

Sources: systemd's "Native Journal Protocol" (systemd.io/JOURNAL_NATIVE_PROTOCOL), sd-daemon(3)
for the prefix, systemd.exec(5) for JOURNAL_STREAM.
"""

import array
import copy
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
        # The event loop logs as well, and a journal that is being restarted reads nothing.
        self._socket.setblocking(False)
        self._num_dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        try:
            if self._num_dropped:
                record = _add_field(record, "lines_dropped", self._num_dropped)
            line = self.format(record)
            priority = find_priority(record.levelno)
            try:
                self._send(encode(describe(record, line, priority)))
                self._num_dropped = 0
            except BlockingIOError:
                # Not to stderr, which leads to the same journal and would be waited for.
                self._num_dropped += 1
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
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                carrier.sendmsg([], ancillary, socket.MSG_DONTWAIT)
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


def _add_field(record: logging.LogRecord, name: str, value: object) -> logging.LogRecord:
    # A copy: the record is not this handler's alone.
    added = copy.copy(record)
    own = getattr(record, "fields", {})
    added.fields = {**(own if isinstance(own, Mapping) else {}), name: value}
    return added


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
