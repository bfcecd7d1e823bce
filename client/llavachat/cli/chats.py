"""``llavachat chats``: what the server keeps, listed, shown and erased."""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from llavachat.cli.characters import spell
from llavachat.cli.failure import ExitCode, wrong_use
from llavachat.cli.options import ServerOptions
from llavachat.cli.output import open_stdout, say, write
from llavachat.cli.state import read_last_chat, write_last_chat
from llavachat.client import Client
from llavachat.errors import LlavaChatError, NotFound
from llavachat.transcript import to_plain
from llavachat.types import ChatRecord

DEFAULT_LIMIT = 20

_HEADERS = ("ID", "TURNS", "USED", "FIRST QUESTION")
_LEAST_QUESTION_COLUMNS = 6
"""Less of a question says nothing."""
_PAGE_SIZE = 1000
"""Where all chats are read: as many at a time as the contract allows."""
_ERASED_PAGE_SIZE = 50
"""Of chats that are erased as they are read: one that is used in that time is erased as well."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which chats are meant; those that everything here is true of.

    Args:
        labels: they have all of these.
        since, before: they were used in this time; with a time zone.
        limit: at most so many. None: not said.
        all: no limit, whatever else is true.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    before: datetime | None = None
    limit: int | None = None
    all: bool = False

    @property
    def has_condition(self) -> bool:
        """True where it may leave chats out for what they are."""
        return bool(self.labels) or self.since is not None or self.before is not None

    def arguments(self) -> dict[str, Any]:
        """As arguments of `Client.chats`."""
        return {
            "labels": self.labels,
            "updated_since": self.since,
            "updated_before": self.before,
        }


def chats(
    chat_id: str | None,
    server: ServerOptions,
    *,
    as_json: bool,
    raw: bool,
    delete: bool,
    yes: bool,
    choice: Choice,
) -> ExitCode:
    """List chats, show one, or erase one or all that are chosen.

    Raises:
        Failure: the options contradict each other, or nobody can be asked.
        LlavaChatError: the server refused or failed.
    """
    _check(chat_id, as_json=as_json, raw=raw, delete=delete, choice=choice)
    with Client.from_environment(**server.overrides()) as client:
        if chat_id is None:
            if delete:
                return _erase_chosen(client, choice, yes=yes)
            _list_chosen(client, choice, as_json=as_json)
        elif delete:
            _erase(client, chat_id)
            say(f"Chat {chat_id} is erased.")
        elif raw:
            write(client.chat(chat_id).raw_prompt() + "\n")
        else:
            transcript = client.chat(chat_id).transcript("json" if as_json else "markdown")
            write(transcript)
    return ExitCode.OK


def _check(chat_id: str | None, *, as_json: bool, raw: bool, delete: bool, choice: Choice) -> None:
    if sum((raw, delete, as_json)) > 1:
        raise wrong_use("--json, --raw and --delete exclude each other.")
    if choice.limit is not None and choice.all:
        raise wrong_use("--limit and --all exclude each other.")
    if chat_id is not None and choice != Choice():
        raise wrong_use(
            "An ID names one chat; --label, --since, --before, --limit and --all choose among all."
        )
    if chat_id is None and raw:
        raise wrong_use("--raw is about one chat; give its ID.")
    if chat_id is None and delete and choice.limit is not None:
        raise wrong_use("--delete erases all chats that are chosen, and --limit is for lists.")
    if chat_id is None and delete and not (choice.has_condition or choice.all):
        raise wrong_use(
            "--delete is about one chat, give its ID, or about several: choose them by --label, "
            "--since, --before or --all."
        )


def _list_chosen(client: Client, choice: Choice, *, as_json: bool) -> None:
    if choice.all:
        _list(list(client.chats(**choice.arguments(), page_size=_PAGE_SIZE)), as_json=as_json)
        return
    limit = choice.limit or DEFAULT_LIMIT
    found = list(itertools.islice(client.chats(**choice.arguments()), min(limit + 1, sys.maxsize)))
    _list(found[:limit], as_json=as_json)
    if len(found) > limit:
        listed = "This is the chat" if limit == 1 else f"These are the {limit} chats"
        say(f"{listed} used last; there are more: see --limit and --all.")


def _erase_chosen(client: Client, choice: Choice, *, yes: bool) -> ExitCode:
    chat_ids = [chat.id for chat in client.chats(**choice.arguments(), page_size=_PAGE_SIZE)]
    if not chat_ids:
        say("There are no such chats.")
        return ExitCode.OK
    if not yes:
        if not sys.stdin.isatty():
            raise wrong_use(
                f"Nobody can be asked here; give --yes to erase {_count(len(chat_ids))}."
            )
        sys.stderr.write(f"Erase {_count(len(chat_ids))} for good? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            say("Nothing was erased.")
            return ExitCode.FAILED
    num_erased, left = 0, set(chat_ids)
    try:
        for chat_id in _choose_again(client, choice, chat_ids):
            try:
                _erase(client, chat_id)
            except NotFound:  # somebody was quicker
                continue
            left.discard(chat_id)
            num_erased += 1
    except (LlavaChatError, KeyboardInterrupt):
        say(f"{num_erased} of {_count(len(chat_ids))} are erased.")
        raise
    say(f"{_count(num_erased)} {'is' if num_erased == 1 else 'are'} erased.")
    if left:
        say(f"{_count(len(left))} {'was' if len(left) == 1 else 'were'} used or erased meanwhile.")
    return ExitCode.OK


def _choose_again(client: Client, choice: Choice, chat_ids: Sequence[str]) -> Iterator[str]:
    """Those of the chats that are chosen still; what is read of them is some moments old."""
    if choice.before is None:  # nothing that is done with a chat leaves it out
        yield from chat_ids
        return
    known = set(chat_ids)
    for chat in client.chats(**choice.arguments(), page_size=_ERASED_PAGE_SIZE):
        if chat.id in known:
            yield chat.id


def _erase(client: Client, chat_id: str) -> None:
    client.delete_chat(chat_id)
    if read_last_chat(client.address) == chat_id:
        write_last_chat(client.address, None)


def _count(number: int) -> str:
    return "1 chat" if number == 1 else f"{number:,} chats"


def _list(found: Sequence[ChatRecord], *, as_json: bool) -> None:
    if as_json:
        plain = [to_plain(chat) for chat in found]
        for chat in plain:
            del chat["turns"]
        write(json.dumps(plain, ensure_ascii=False, indent=2) + "\n")
        return
    if not found:
        say("There are no chats.")
        return
    # Not by what rich takes for a terminal, which FORCE_COLOR makes of a pipe.
    if not sys.stdout.isatty():
        for chat in found:
            time = chat.update_time.isoformat(timespec="seconds") if chat.update_time else ""
            write(f"{_one_line(chat.id)}\t{chat.num_turns}\t{time}\t{_one_line(chat.title)}\n")
        return
    console, now = open_stdout(), datetime.now(UTC)
    rows = []
    for chat in found:
        used = _tell_age(now, chat.update_time) if chat.update_time else ""
        rows.append((_one_line(chat.id), str(chat.num_turns), used, _one_line(chat.title)))
    for number, line in enumerate(lay_out(rows, console.width)):
        console.print(Text(line, style="" if number else "bold"), soft_wrap=True)


def lay_out(rows: Sequence[tuple[str, str, str, str]], width: int) -> list[str]:
    """A table as lines that fit a width, its headers the first.

    What does not fit is cut from the right: of the question, then whole columns. IDs are always
    whole, also where that takes more than the width.

    Args:
        rows: ID, turns, when it was used and the first question of each chat.
        width: of the terminal, in cells.
    """
    table = [_HEADERS, *rows]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    num_columns = 3
    while num_columns > 1 and sum(widths[:num_columns]) + num_columns - 1 > width:
        num_columns -= 1
    left = width - sum(widths[:num_columns]) - num_columns
    lines = []
    for row in table:
        gaps = [" " * (size - cell_len(cell)) for cell, size in zip(row, widths, strict=True)]
        parts = [row[0] + gaps[0], gaps[1] + row[1], row[2] + gaps[2]][:num_columns]
        if num_columns == 3 and left >= _LEAST_QUESTION_COLUMNS:
            question = Text(row[3])
            question.truncate(left, overflow="ellipsis")
            parts.append(question.plain)
        lines.append(" ".join(parts).rstrip())
    return lines


def _tell_age(now: datetime, time: datetime) -> str:
    seconds = max(0, int((now - time).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "just now"


def _one_line(text: str) -> str:
    """For a cell, also where there is no terminal: what reads it there may show it on one."""
    return spell(" ".join(text.split()))
