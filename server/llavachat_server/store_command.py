"""``llavachat-server store backup FILE | restore FILE``: copies of the chats.

Exit codes: 0 done, 1 could not be done, and all is as it was, 2 wrong use; stopped by Ctrl-C 130,
by SIGTERM 143, by SIGHUP 129, and nothing is half done.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llavachat_server.chats.audit import AuditError
from llavachat_server.chats.returning import Returning
from llavachat_server.chats.sql.backup import CopyError, back_up, restore
from llavachat_server.flags import SettingsError
from llavachat_server.interrupt import Stopped, raises_stopped
from llavachat_server.output import NotSaid, describe, say
from llavachat_server.settings import read
from llavachat_server.stores import AUDIT_FOLDER_NAME, DATABASE_NAME, database_file

_ENDED_BY = 128
"""With a signal's number: what a shell says of a program that the signal has ended."""

_ELSEWHERE = {
    "memory": "store: memory keeps nothing that could be copied",
    "postgresql": "store: the chats are in PostgreSQL; copy them by pg_dump, and bring them back "
    "by pg_restore",
}


def run(words: Sequence[str]) -> int:
    """Do what the command line says.

    Args:
        words: the command line after ``store``.

    Returns:
        The exit code.
    """
    options = _build_parser().parse_args(words)
    try:
        with raises_stopped():
            say(options.act(_find_database(options.state_folder), options))
    except (AuditError, CopyError, SettingsError) as error:
        print(f"llavachat-server: {error}", file=sys.stderr)  # noqa: T201
    except NotSaid as error:
        print(f"llavachat-server: done, but stdout can not be written: {error}", file=sys.stderr)  # noqa: T201
    except OSError as error:
        print(f"llavachat-server: {describe(error)}", file=sys.stderr)  # noqa: T201
    except KeyboardInterrupt:
        print("llavachat-server: stopped by Ctrl-C", file=sys.stderr)  # noqa: T201
        return _ENDED_BY + signal.SIGINT
    except Stopped as stopped:
        with suppress(OSError):  # the terminal may be gone
            print(f"llavachat-server: stopped by {stopped}", file=sys.stderr)  # noqa: T201
        return _ENDED_BY + stopped.signal
    else:
        return 0
    return 1


def _find_database(folder: Path | None) -> Path:
    if folder is not None:
        return folder / DATABASE_NAME
    settings = read(())
    if settings.store != "sqlite":
        raise CopyError(_ELSEWHERE["memory" if settings.store == "memory" else "postgresql"])
    return database_file(settings)


def _back_up(database: Path, options: argparse.Namespace) -> str:
    return f"{_count(back_up(database, options.file))} of {database} in {options.file}"


def _restore(database: Path, options: argparse.Namespace) -> str:
    record = database.parent / AUDIT_FOLDER_NAME
    returning = Returning(record, brings_back=options.bring_back_erased)
    num_chats, kept = restore(database, options.file, returning)
    rest = "" if kept is None else f"; what was there is in {kept}"
    return f"{_count(num_chats)} of {options.file} in {database}{_describe(returning)}{rest}"


def _describe(returning: Returning) -> str:
    """What became of the erased ones."""
    told = ""
    if not returning.has_record:
        num_known = returning.num_left_out + returning.num_brought_back + returning.num_used_since
        which = "which others" if num_known else "which"
        told += f"; no audit record in {returning.record} tells {which} of them were erased since"
    if not returning.has_readable:
        told += "; what lay there can not be read, and may have known of more that were erased"
    if returning.num_left_out:
        num_chats = _count(returning.num_left_out)
        told += (
            f"; {num_chats} more of it, erased after their last use in it, stay erased "
            "(--bring-back-erased brings them back as well)"
        )
    if returning.num_brought_back:
        told += f"; {_count(returning.num_brought_back)} of them had been erased, and are back"
    if returning.num_used_since:
        num_chats = _count(returning.num_used_since)
        told += f"; {num_chats} of them had been erased, were used after that, and stay"
    return told


def _count(num_chats: int) -> str:
    return "1 chat" if num_chats == 1 else f"{num_chats:,} chats"


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llavachat-server store",
        description="Copy the chats that a server keeps in SQLite, and bring a copy back.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(required=True, metavar="backup | restore")
    backup = actions.add_parser(
        "backup", help="copy all chats into a new file; a server may run meanwhile"
    )
    backup.set_defaults(act=_back_up)
    restoring = actions.add_parser(
        "restore",
        help="put a copy in the chats' place; no server may run. What was there is kept; chats "
        "that were erased since stay erased",
    )
    restoring.set_defaults(act=_restore)
    restoring.add_argument(
        "--bring-back-erased",
        action="store_true",
        help="bring back also chats that the audit record beside the database, or the database, "
        "says were erased since, as by mistake; the record has it",
    )
    for action in (backup, restoring):
        action.add_argument("file", type=Path, metavar="FILE", help="the copy")
        action.add_argument(
            "--state-folder",
            type=Path,
            metavar="FOLDER",
            help=f"where {DATABASE_NAME} is (default: the server's state_folder, as settings in "
            "the environment say)",
        )
    return parser
