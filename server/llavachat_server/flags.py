"""The command line of the server: a flag for every setting, and a sentence for what is wrong.

It knows settings by their fields alone; it must not know what they mean.
"""

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, get_args

from pydantic.fields import FieldInfo

from llavachat_server import __version__

_OTHER_NAMES = {
    "--address": "--listen",
    "--bind": "--listen",
    "--host": "--listen",
    "--port": "--listen",
}
"""What other servers call a setting of ours, where its spelling leads elsewhere or nowhere."""

_OTHER_COMMANDS = (
    "A command comes first, and reads settings in the environment and in LLAVACHAT_CONFIG's file.\n"
    "Other commands: llavachat-server keys | certs | audit | store; each has a --help."
)

_COMMANDS = {
    "keys": "of settings it takes --file FILE alone",
    "certs": "it takes no settings",
    "audit": "of settings it takes the FOLDER of a record alone",
    "store": "of settings it takes --state-folder FOLDER alone",
}
"""What each of the other commands takes of what settings say."""

_READS = ", and reads LLAVACHAT_STATE_FOLDER and LLAVACHAT_CONFIG"

_CREDENTIALS = re.compile(r"^([^@]*?:/+)?.*@", re.DOTALL)
"""What may be a name and a password in an address, also one that is written wrong."""
_PASSWORD = re.compile(r"(password=)[^&\s'\"]+", re.IGNORECASE)
_MASK = "***"

_UNITS = {"bytes", "days", "seconds", "tokens"}
"""In which a setting's name may end."""


class SettingsError(Exception):
    """The settings can not be used; one sentence for the operator."""


class _Parser(argparse.ArgumentParser):
    """argparse, refusing by exception and in our form."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)

    def format_help(self) -> str:
        # Not in the epilog, which is set as one paragraph.
        return f"{super().format_help()}\n{_OTHER_COMMANDS}\n"


def parse_flags(
    arguments: Sequence[str], fields: Mapping[str, FieldInfo], environment_prefix: str
) -> dict[str, Any]:
    """Read the command line.

    Args:
        arguments: without the program's name; "serve" may come first.
        fields: the settings by name.
        environment_prefix: for the help.

    Returns:
        What was given, by the setting's name, as text or as a switch; and `config`.

    Raises:
        SettingsError: a word is no setting, or lacks its value.
    """
    words = list(arguments)
    if words and words[0] == "serve":
        del words[0]
    parser = _Parser(
        prog="llavachat-server",
        usage="llavachat-server [serve] [--SETTING VALUE ...]",
        description="Serve chats about pictures over gRPC.",
        epilog=f"Every setting can also be given as {environment_prefix}NAME in the environment "
        "or as NAME in the TOML file of --config; flags win over both, the environment over "
        "the file. A path may begin with ~ in each.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"llavachat-server {__version__}")
    parser.add_argument("--config", metavar="FILE", help="a TOML file of settings")
    for name, field in fields.items():
        flag = flag_of(name)
        help_text = (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_text)
        else:
            parser.add_argument(flag, metavar="VALUE", help=help_text)
    values, unknown = parser.parse_known_args(words)
    if unknown:
        first = unknown[0]
        if first in _COMMANDS:
            raise SettingsError(
                f"{first} is a command and comes first, as in `llavachat-server {first} --help`; "
                f"{_COMMANDS[first]}{'' if first == 'certs' else _READS}"
            )
        word = first.partition("=")[0] if first.startswith("-") else mask(first)
        raise SettingsError(
            f"{word} is not a setting{_suggest_flag(word, [*map(flag_of, fields)])}; "
            "see llavachat-server --help"
        )
    return vars(values)


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def mask(text: str) -> str:
    """A value as a sentence may show it, which stands in logs: without a database's password."""
    masked = _CREDENTIALS.sub(rf"\1{_MASK}@", text)
    return _PASSWORD.sub(rf"\1{_MASK}", masked)


def show(value: object) -> str:
    """A value as Python writes it, masked."""
    return repr(mask(value)) if isinstance(value, str) else mask(repr(value))


def _suggest_flag(word: str, flags: Sequence[str]) -> str:
    known = _OTHER_NAMES.get(word)
    return f"; did you mean {known}?" if known in flags else suggest(word, flags)


def suggest(word: str, names: Sequence[str]) -> str:
    """Ask whether the nearest of some names was meant; "" where none is near."""
    near = find_near(word, names)
    return f"; did you mean {near}?" if near else ""


def find_near(word: str, names: Sequence[str]) -> str:
    """The nearest of some names, whatever its capitals; "" where none is near."""
    for each in (word, word.lower()):
        if near := difflib.get_close_matches(each, names, n=1):
            return near[0]
    return ""


def describe_numbers(name: str, field: FieldInfo) -> str:
    """What a number may be: its kind, its unit and both its bounds, as one may give them."""
    kind = "number" if float in {field.annotation, *get_args(field.annotation)} else "whole number"
    unit = name.rpartition("_")[2]
    words = f"a {kind}" + (f" of {unit}" if unit in _UNITS else "")
    bounds = {
        bound: getattr(each, bound)
        for each in field.metadata
        for bound in ("ge", "gt", "le")
        if hasattr(each, bound)
    }
    if "gt" in bounds:
        words += f", over {bounds['gt']}"
    if "ge" in bounds:
        words += f", {bounds['ge']}"
    if "le" not in bounds:
        return words + (" or more" if "ge" in bounds else "")
    return words + (" to " if "ge" in bounds else " and at most ") + f"{bounds['le']}"
