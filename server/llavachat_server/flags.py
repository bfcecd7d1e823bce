"""The command line of the server: a flag for every setting, and a sentence for what is wrong.

It knows settings by their fields alone; it must not know what they mean.
"""

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from llavachat_server import __version__

_OTHER_NAMES = {
    "--address": "--listen",
    "--bind": "--listen",
    "--host": "--listen",
    "--port": "--listen",
}
"""What other servers call a setting of ours, where its spelling leads elsewhere or nowhere."""

_OTHER_COMMANDS = "Other commands: llavachat-server keys | certs | audit; each has a --help."


_CREDENTIALS = re.compile(r"^([^@]*?:/+)?.*@", re.DOTALL)
"""What may be a name and a password in an address, also one that is written wrong."""
_PASSWORD = re.compile(r"(password=)[^&\s'\"]+", re.IGNORECASE)
_MASK = "***"


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
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""
