"""The file of settings: TOML, a name and a value a line, and no name that is not a setting's.

It knows settings by their names alone; it must not know what they mean.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llavachat_server.flags import SettingsError, suggest


def read_file(config: Path, names: Sequence[str]) -> dict[str, Any]:
    """The file's settings, their values not looked at.

    Args:
        config: the file.
        names: of all settings.

    Raises:
        SettingsError: it can not be read, is not TOML, or has something else in it.
    """
    try:
        with config.open("rb") as file:
            given = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"config: {str(config)!r} can not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"config: {str(config)!r} is not TOML: it is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"config: {str(config)!r} is not TOML: {error}") from error
    except RecursionError as error:
        # Of the parser, for a file that nests as no setting does; a server that runs reads it too.
        raise SettingsError(f"config: {str(config)!r} is nested too deep") from error
    for name, value in given.items():
        if header := _find_header(name, value):
            raise SettingsError(
                f"{header} in {str(config)!r}: sections are not used; write `name = value` for "
                "each setting, one a line"
            )
        if name not in names:
            # Also what differs in capitals alone: one name stands for one setting.
            raise SettingsError(
                f"{name!r} in {str(config)!r} is not a setting{suggest(name, names)}"
            )
    return given


def _find_header(name: str, value: object) -> str:
    """Under what a section stands; "" where a value is none."""
    if isinstance(value, dict):
        return f"[{name}]"
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return f"[[{name}]]"
    return ""
