"""``llavachat profiles``: saved servers, listed, chosen, added and forgotten."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from llavachat.cli.failure import ExitCode, wrong_use
from llavachat.cli.output import open_stdout, say, write
from llavachat.cli.profiles import (
    Profile,
    Profiles,
    check_name,
    find_key_file,
    read_profiles,
    write_profiles,
)
from llavachat.connection import Connection


def profiles(
    name: str | None,
    *,
    address: str | None,
    key_file: str | None,
    ca_file: str | None,
    pin: str | None,
    server_name: str | None,
    delete: bool,
    none: bool,
    as_json: bool,
) -> ExitCode:
    """List saved servers; or choose, add or forget one.

    Raises:
        Failure: the options contradict each other, or there is no such server.
        ConfigurationError: what is to be saved can not work.
    """
    described = [key_file, ca_file, pin, server_name]
    if any(described) and address is None:
        raise wrong_use("A server is saved with its --address; give it beside the other flags.")
    if name is None and (address is not None or delete):
        raise wrong_use("--address and --delete are about one saved server; give its NAME.")
    if (delete or none) and (address is not None or (none and name is not None)):
        raise wrong_use("--delete, --none and saving exclude each other.")
    saved = read_profiles()
    if name is None:
        if none:
            saved.active = ""
            write_profiles(saved)
            say("No saved server is used now.")
        else:
            _list(saved, as_json=as_json)
        return ExitCode.OK
    check_name(name)
    if address is not None:
        profile = Profile(
            address, _absolute(key_file), _absolute(ca_file), pin or "", server_name or ""
        )
        Connection(**profile.arguments())
        saved.servers[name] = profile
    elif name not in saved.servers:
        raise wrong_use(f"No server is saved as {name}; `llavachat profiles` lists them.")
    if delete:
        del saved.servers[name]
        saved.active = "" if saved.active == name else saved.active
        write_profiles(saved)
        find_key_file(name).unlink(missing_ok=True)
        say(f"{name} is forgotten; its server is as it was.")
        return ExitCode.OK
    saved.active = name
    write_profiles(saved)
    say(f"{name} is used now: {saved.servers[name].address}.")
    return ExitCode.OK


def _absolute(name: str | None) -> str:
    """A file's whole path; "" for none.

    Raises:
        Failure: it has none.
    """
    try:
        return str(Path(name).expanduser().absolute()) if name else ""
    except RuntimeError:
        raise wrong_use(f"{name} is not a path: there is no such user.") from None


def _list(saved: Profiles, *, as_json: bool) -> None:
    if as_json:
        plain = [
            {"name": name, "active": name == saved.active, **asdict(one)}
            for name, one in saved.servers.items()
        ]
        write(json.dumps(plain, ensure_ascii=False) + "\n")
        return
    if not saved.servers:
        say("No server is saved. Use: llavachat profiles NAME --address HOST[:PORT].")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("", "name", "address", "trust", "key"):
        table.add_column(title)
    for name, one in saved.servers.items():
        trust = "pin" if one.tls_pin else "authority" if one.tls_ca_file else "-"
        cells = ("*" if name == saved.active else "", name, one.address, trust)
        table.add_row(*map(Text, (*cells, "yes" if one.api_key_file else "-")))
    open_stdout().print(table)
