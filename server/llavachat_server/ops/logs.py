"""Logs: text for a person at a terminal, JSON lines for everything else, and fields in the journal.

Contract: one event a line, on stderr, or one entry of systemd's journal where stderr leads there;
what is logged never holds a prompt, an answer, a picture
or a key, because nobody who has them passes them here. It must not know what the server does.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

from llavachat_server.ops.journal import SOCKET, JournalHandler, is_journal

Form = Literal["auto", "text", "json", "journal"]

OWN_LOGGERS = ("llavachat", "llavachat_server")
"""Whose level is set: names by subject, and names by module."""


def set_up(form: Form, level: str, stream: TextIO | None = None) -> None:
    """Send all logging one way, in one form.

    Args:
        form: "auto" is text on a terminal, "journal" where the stream leads into systemd's
            journal, and JSON lines elsewhere.
        level: the least that is logged, such as "info".
        stream: stderr when not given.
    """
    target = stream or sys.stderr
    if form == "auto":
        form = "text" if target.isatty() else "journal" if is_journal(target) else "json"
    handler: logging.Handler = logging.StreamHandler(target)
    if form == "journal":
        handler = JournalHandler(SOCKET, target)
    handler.setFormatter(TextLines() if form == "text" else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Change the least that is logged; at any time."""
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= _fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """A line for people: the time of day, the event and its fields, or the event's own `text`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        text = getattr(record, "text", None)
        if isinstance(text, str):
            return text
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items() if value)
        line = f"{clock} {level}{record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", {})
    return fields if isinstance(fields, Mapping) else {}
