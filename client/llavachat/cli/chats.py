"""``llavachat chats``: what the server keeps, listed, shown and erased."""

import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from llavachat.cli.characters import spell
from llavachat.cli.failure import ExitCode, wrong_use
from llavachat.cli.options import ServerOptions, parse_labels
from llavachat.cli.output import open_stdout, say, write
from llavachat.cli.state import read_last_chat, write_last_chat
from llavachat.client import Client
from llavachat.transcript import to_plain
from llavachat.types import ChatRecord


def chats(
    chat_id: str | None,
    server: ServerOptions,
    *,
    as_json: bool,
    raw: bool,
    delete: bool,
    limit: int,
    labels: Sequence[str] | None,
) -> ExitCode:
    """List chats, or show or erase one.

    Raises:
        Failure: the options contradict each other.
        LlavaChatError: the server refused or failed.
    """
    wanted = parse_labels(labels)
    if chat_id is None and (raw or delete):
        raise wrong_use("--raw and --delete are about one chat; give its ID.")
    if sum((raw, delete, as_json)) > 1:
        raise wrong_use("--json, --raw and --delete exclude each other.")
    with Client.from_environment(**server.overrides()) as client:
        if chat_id is None:
            found = list(itertools.islice(client.chats(labels=wanted), limit))
            _list(found, as_json=as_json)
        elif delete:
            client.delete_chat(chat_id)
            if read_last_chat(client.address) == chat_id:
                write_last_chat(client.address, None)
            say(f"Chat {chat_id} is erased.")
        elif raw:
            write(client.chat(chat_id).raw_prompt() + "\n")
        else:
            transcript = client.chat(chat_id).transcript("json" if as_json else "markdown")
            write(transcript)
    return ExitCode.OK


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
    console = open_stdout()
    if not console.is_terminal:
        for chat in found:
            time = chat.update_time.isoformat(timespec="seconds") if chat.update_time else ""
            write(f"{_one_line(chat.id)}\t{chat.num_turns}\t{time}\t{_one_line(chat.title)}\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ID", no_wrap=True)
    table.add_column("TURNS", justify="right")
    table.add_column("USED", no_wrap=True)
    table.add_column("FIRST QUESTION", overflow="ellipsis", no_wrap=True)
    now = datetime.now(UTC)
    for chat in found:
        used = _tell_age(now, chat.update_time) if chat.update_time else ""
        cells = (_one_line(chat.id), str(chat.num_turns), used, _one_line(chat.title))
        table.add_row(*map(Text, cells))
    console.print(table)


def _tell_age(now: datetime, time: datetime) -> str:
    seconds = max(0, int((now - time).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "just now"


def _one_line(text: str) -> str:
    """For a cell, also where there is no terminal: what reads it there may show it on one."""
    return spell(" ".join(text.split()))
