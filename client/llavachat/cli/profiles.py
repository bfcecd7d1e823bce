"""Saved servers: where one is, its key and whom to trust, under a name; one of them is active.

In ``profiles.json`` beside the last chats, readable by its owner alone. A key is not in it: it
lies in a file of its own, which the profile names. What a profile says is used when neither
--address nor LLAVACHAT_ADDRESS names a server; another server's key and pin would be of no use.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from llavachat.cli.failure import Failure, wrong_use
from llavachat.cli.files import replace_file
from llavachat.cli.state import find_state_folder
from llavachat.connection import read_environment

_FILE = "profiles.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    """One saved server.

    Args:
        address: "host:port".
        api_key_file: the file that holds the key; "" for none.
        tls_ca_file, tls_pin, tls_server_name: as `Connection` has them; "" for none.
        deployment: the stack's name in AWS, its region behind it, where it was made by
            `llavachat up`: ``{"stack": "llavachat", "region": "us-east-1"}``.
    """

    address: str
    api_key_file: str = ""
    tls_ca_file: str = ""
    tls_pin: str = ""
    tls_server_name: str = ""
    deployment: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, *, with_key: bool = True) -> dict[str, Any]:
        """As arguments of `Client`; the key is read now.

        Args:
            with_key: False where another is used, so that its file need not be there.

        Raises:
            Failure: the key's file can not be read.
        """
        given: dict[str, Any] = {"address": self.address}
        for name in ("tls_ca_file", "tls_pin", "tls_server_name"):
            if value := getattr(self, name):
                given[name] = value
        if self.api_key_file and with_key:
            given["api_key"] = _read_key(Path(self.api_key_file))
        return given


@dataclass(slots=True)
class Profiles:
    """All saved servers, and which one is active ("" for none)."""

    active: str = ""
    servers: dict[str, Profile] = field(default_factory=dict)


def read_profiles() -> Profiles:
    """What is saved; nothing where there is no file.

    Raises:
        Failure: the file can not be read, or is no such file.
    """
    path = find_profiles_file()
    try:
        kept = json.loads(path.read_text("utf-8"))
        known = {each.name for each in fields(Profile)}
        servers = {
            str(name): Profile(**{key: one[key] for key in one if key in known})
            for name, one in kept["servers"].items()
        }
        active = str(kept.get("active", ""))
    except FileNotFoundError:
        return Profiles()
    except OSError as error:
        raise Failure(f"{path} can not be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise wrong_use(f"{path} holds no saved servers; remove it and save them again.") from None
    return Profiles(active if active in servers else "", servers)


def write_profiles(profiles: Profiles) -> None:
    """Save all of them; the file is replaced whole and is its owner's alone.

    Raises:
        Failure: it can not be written.
    """
    plain = {
        "active": profiles.active,
        "servers": {name: asdict(one) for name, one in profiles.servers.items()},
    }
    _write_privately(find_profiles_file(), json.dumps(plain, indent=2) + "\n")


def find_profiles_file() -> Path:
    """Where they are; it may not exist yet."""
    return find_state_folder() / _FILE


def write_key(name: str, key: str) -> Path:
    """Keep the key of a profile in a file that is its owner's alone.

    Raises:
        Failure: it can not be written.
    """
    path = find_key_file(name)
    _write_privately(path, key + "\n")
    return path


def find_key_file(name: str) -> Path:
    """Where `write_key` keeps a profile's key."""
    return find_state_folder() / f"{name}.key"


def check_name(name: str) -> str:
    """Let a profile's name through.

    Raises:
        Failure: it is none; names become parts of file names.
    """
    if not _NAME.fullmatch(name):
        raise wrong_use(
            f"{name!r} is no name of a profile; use up to 64 letters, digits, dots, hyphens and "
            "underscores, the first a letter or digit."
        )
    return name


def choose_profile() -> Profile | None:
    """The one that LLAVACHAT_SERVER names, or else the active one. None: there is none.

    Raises:
        Failure: there is no such profile, or they can not be read.
    """
    profiles = read_profiles()
    name = os.environ.get("LLAVACHAT_SERVER")
    if name and name not in profiles.servers:
        raise wrong_use(
            f"LLAVACHAT_SERVER is {name!r}, and no such server is saved; "
            "`llavachat profiles` lists them."
        )
    if not name:
        # What named it before. It is the server's too, for which model it runs.
        older = os.environ.get("LLAVACHAT_PROFILE", "")
        name = older if older in profiles.servers else profiles.active
    return profiles.servers[name] if name else None


def complete_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags, completed from a saved server where no server is named.

    Args:
        given: arguments of `Client` from flags. They go before the environment's, and those
            before the profile's.

    Raises:
        Failure: the profile can not be used.
        ConfigurationError: a variable is not of its kind.
    """
    environment = read_environment(os.environ)
    named = {**environment, **given}
    profile = None if "address" in named else choose_profile()
    if profile is None:
        return dict(given)
    saved = profile.arguments(with_key="api_key" not in named)
    if "tls_ca_file" in named or "tls_pin" in named:
        # Another way to trust the server was asked for.
        saved = {key: saved[key] for key in saved if key not in ("tls_ca_file", "tls_pin")}
    return {**saved, **environment, **given}


def _read_key(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:
        reason = "it is no text"
    except ValueError:  # a NUL
        reason = "its name is not a path"
    raise wrong_use(f"The key's file {path} can not be read: {reason}.")


def _write_privately(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, text.encode(), is_private=True)
    except OSError as error:
        raise Failure(f"{path} can not be written: {error.strerror}.") from None
