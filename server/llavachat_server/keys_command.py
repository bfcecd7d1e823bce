"""``llavachat-server keys add NAME | list | revoke NAME-OR-ID``: who may call.

The secret of a new key is told once, alone on stdout, and kept nowhere: the file has its hash, and
gets it only once the secret is told. A running server takes up a change within seconds. Exit codes:
0 done, 1 could not be done, 2 wrong use.
"""

import argparse
import secrets
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llavachat_server.flags import SettingsError
from llavachat_server.folders import KEYS_NAME, find_state_folder
from llavachat_server.output import NotSaid, describe, say
from llavachat_server.rpc.auth import BadKey, Key, hash_secret
from llavachat_server.rpc.key_file import (
    BadKeyFile,
    add_key,
    parse_limit,
    parse_scopes,
    read_keys,
    revoke_keys,
)
from llavachat_server.settings import read

SECRET_PREFIX = "llavachat_"  # noqa: S105 - by it scanners know a secret of ours
_SECRET_BYTES = 32
_NONE = "-"
_CLOSES = (
    " It is the only one there: a server that had no key let everybody in, and from then on ends "
    "the calls of those who have none."
)
_SHUTS = (
    " Unless another file has keys, nobody may call any more, and the server will not start until "
    "a key is added or the file is removed; without the file, it lets everybody in."
)


class _CanNot(Exception):
    """It can not be done; one sentence."""


def run(words: Sequence[str]) -> int:
    """Do what the command line says.

    Args:
        words: the command line after ``keys``.

    Returns:
        The exit code.
    """
    options = _build_parser().parse_args(words)
    try:
        path = Path(options.file) if options.file else find_state_folder(read(())) / KEYS_NAME
        options.act(path, options)
    except (BadKeyFile, _CanNot, SettingsError) as error:
        print(f"llavachat-server: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except NotSaid as error:
        print(f"llavachat-server: stdout can not be written: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        print(f"llavachat-server: {describe(error)}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _add(path: Path, options: argparse.Namespace) -> None:
    secret = SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    try:
        key = Key(
            options.name,
            hash_secret(secret),
            options.scopes,
            options.requests_per_minute,
            options.tokens_per_minute,
            options.max_concurrent,
            datetime.now(UTC).date().isoformat(),
        )
    except BadKey as error:
        raise _CanNot(f"{options.name!r} given; {error}") from error
    try:
        add_key(path, key, lambda: say(secret))
    except NotSaid as error:
        raise _CanNot(f"the secret could not be written; no key was added: {error}") from error
    first = _CLOSES if len(read_keys(path)) == 1 else ""
    _tell(
        f"This is the key {key.id} of {key.tenant}, told only now. {path.absolute()} has its "
        f"hash; {_name_reader(path)} takes it up within 5 seconds.{first}"
    )


def _name_reader(path: Path) -> str:
    """Which server goes by this file; see `find_keys_files`."""
    whole = path.absolute()
    if whole.name == KEYS_NAME:
        return f"a server that keeps its state in {whole.parent}"
    return f"a server with --keys-file {shlex.quote(str(whole))}"


def _list(path: Path, _: argparse.Namespace) -> None:
    keys = read_keys(path) if path.exists() else []
    if not keys:
        _tell(f"There is no key in {path}.")
        return
    head = ("NAME", "ID", "SCOPES", "REQUESTS/MIN", "TOKENS/MIN", "CONCURRENT", "CREATED")
    rows = [head, *map(_row, sorted(keys, key=lambda key: (key.tenant, key.created)))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def _row(key: Key) -> tuple[str, ...]:
    limits = (key.requests_per_minute, key.tokens_per_minute, key.max_concurrent)
    return (
        key.tenant,
        key.id,
        ",".join(sorted(scope.value for scope in key.scopes)),
        *(str(limit) if limit else _NONE for limit in limits),
        key.created or _NONE,
    )


def _revoke(path: Path, options: argparse.Namespace) -> None:
    word = options.key
    keys = read_keys(path) if path.exists() else []
    meant = [key for key in keys if word in (key.id, key.tenant)]
    if not meant:
        named = f" --file {shlex.quote(options.file)}" if options.file else ""
        raise _CanNot(f"{path} has no key {word!r}; see llavachat-server keys list{named}")
    if len(meant) > 1 and not options.all:
        ids = ", ".join(key.id for key in meant)
        raise _CanNot(f"{word} has {len(meant)} keys: give one of {ids}, or --all for all of them")
    hashes = {key.sha256 for key in meant}
    revoke_keys(path, lambda key: key.sha256 in hashes)
    left = len(keys) - len(meant)
    _tell(
        f"Revoked {', '.join(f'{key.id} of {key.tenant}' for key in meant)}; {left} left. A "
        f"running server ends what runs with it within 5 seconds.{'' if left else _SHUTS}"
    )


def _tell(sentence: str) -> None:
    """Beside the secret or the list, which stdout has to itself."""
    print(sentence, file=sys.stderr)  # noqa: T201


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llavachat-server keys",
        description="Say who may call. A server without any key lets everybody in.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(required=True, metavar="add | list | revoke")
    add = actions.add_parser("add", help="make a key and print its secret, once")
    add.add_argument("name", metavar="NAME", help="whose chats it opens; keys may share a name")
    add.add_argument(
        "--scopes",
        type=_checked(parse_scopes),
        default=parse_scopes("chat"),
        metavar="LIST",
        help="what it opens: chat, admin, metrics, a comma between them (default: chat)",
    )
    for flag, what in (
        ("--requests-per-minute", "calls a minute"),
        ("--tokens-per-minute", "tokens a minute, of prompts and answers together"),
        ("--max-concurrent", "calls side by side"),
    ):
        add.add_argument(flag, type=_checked(parse_limit), metavar="N", help=f"at most N {what}")
    add.set_defaults(act=_add)
    listing = actions.add_parser("list", help="show the keys, by name and id")
    listing.set_defaults(act=_list)
    revoke = actions.add_parser("revoke", help="let a key in no more, and end what runs with it")
    revoke.add_argument("key", metavar="NAME-OR-ID", help="as `keys list` shows it")
    revoke.add_argument("--all", action="store_true", help="all keys of that name")
    revoke.set_defaults(act=_revoke)
    for action in (add, listing, revoke):
        action.add_argument(
            "--file",
            metavar="FILE",
            help="the file of keys (default: keys in the server's state_folder, as settings in "
            "the environment say)",
        )
    return parser


def _checked(parse: Any) -> Any:
    def check(text: str) -> Any:
        try:
            return parse(text)
        except BadKey as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return check
