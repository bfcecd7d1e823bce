"""The units: from a release's folder into systemd, with what this host's options add to them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from llavachat_host import layout
from llavachat_host.options import OFF, Options, write_whole
from llavachat_host.steps import HostError, Steps, probe, run

JOURNAL_LINES = 20
ALLOWED_NETWORKS = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"
"""Whom a server that listens to a network may talk with. Source: RFC 1918. No IPv6: an allowance
wins over any denial, and fc00::/7 would let the metadata service in at fd00:ec2::254."""


def hash_key(key: str) -> str:
    """A key as the server's keys file wants it."""
    return hashlib.sha256(key.encode()).hexdigest()


def hash_file(name: str) -> str:
    """A credential's fingerprint."""
    return hashlib.sha256((layout.CREDENTIALS / name).read_bytes()).hexdigest()


def derive_keys() -> None:
    """From ``api-key``, which a deployment brings, the file of hashes that the server reads.

    Raises:
        HostError: there is no key in it.
    """
    plain = layout.CREDENTIALS / "api-key"
    if plain.is_file():
        key = plain.read_text().strip()
        if not key:
            raise HostError(f"{plain} is empty")
        write_whole(layout.CREDENTIALS / "keys", f"default {hash_key(key)}\n", mode=0o600)


def render_drop_in(options: Options, credentials: set[str]) -> str:
    """What the options and the credentials that exist add to the service's unit.

    Args:
        options: this host's.
        credentials: names of files in the credentials folder.

    Raises:
        HostError: the server would be open to a network without TLS or keys.
    """
    missing = {"keys", "tls.crt", "tls.key"} - credentials
    if not options.is_loopback and missing:
        name, address = next(iter(options.open_addresses.items()))
        raise HostError(
            f"{name}: {address} can be reached from other machines, and "
            f"{layout.CREDENTIALS} lacks {', '.join(sorted(missing))}"
        )
    lines = ["# Written by the installer from host.json; server.toml is yours.", "[Service]"]
    lines += [f"Environment=LLAVACHAT_PROFILE={options.profile} LLAVACHAT_LISTEN={options.listen}"]
    if options.quantization:
        lines += [f"Environment=LLAVACHAT_QUANTIZATION={options.quantization}"]
    if options.metrics_listen != OFF:
        lines += [f"Environment=LLAVACHAT_METRICS_LISTEN={options.metrics_listen}"]
    flags = [f"--config {layout.SERVER_SETTINGS}"]
    for name, flag in (
        ("keys", "keys-file"),
        ("tls.crt", "tls-cert-file"),
        ("tls.key", "tls-key-file"),
    ):
        if name in credentials:
            lines += [f"LoadCredential={name}:{layout.CREDENTIALS / name}"]
            flags += [f"--{flag} ${{CREDENTIALS_DIRECTORY}}/{name}"]
    server = layout.CURRENT / "venv" / "bin" / "llavachat-server"
    lines += ["ExecStart=", f"ExecStart={server} {' '.join(flags)}"]
    if not options.is_loopback:
        lines += [f"IPAddressAllow={ALLOWED_NETWORKS}"]
    return "\n".join(lines) + "\n"


def install_units(release: Path, options: Options) -> bool:
    """Make systemd know a release's units.

    Returns:
        Whether anything changed that a running service does not know.
    """
    derive_keys()
    present = {path.name for path in layout.CREDENTIALS.glob("*") if path.is_file()}
    wanted = {layout.DROP_IN: render_drop_in(options, present)}
    for unit in layout.UNITS:
        wanted[layout.UNIT_FOLDER / unit] = (release / "assets" / "units" / unit).read_text()
    # A credential that changed is one that the service must load anew.
    fingerprints = "".join(f"{name} {hash_file(name)}\n" for name in sorted(present))
    has_changed = write_whole(layout.CREDENTIALS_SEEN, fingerprints, mode=0o600)
    changed = [path for path, text in wanted.items() if write_whole(path, text)]
    if not layout.SERVER_SETTINGS.exists():
        write_whole(
            layout.SERVER_SETTINGS,
            "# Settings of the server, see `llavachat-server --help`; one `name = value` a line.\n",
        )
    systemctl("daemon-reload")
    return has_changed or bool(changed)


def enable_units(options: Options) -> None:
    """Start the service at every boot; and the idle timer, if the machine may be stopped."""
    systemctl("enable", "--quiet", layout.SERVICE)
    verb = "enable" if options.idle_minutes else "disable"
    systemctl(verb, "--quiet", "--now", layout.IDLE_TIMER)


def restart_service(steps: Steps) -> None:
    """Start the service anew and wait for its first answer.

    Raises:
        HostError: it did not come to answer; with the last lines of its journal.
    """
    for unit in (layout.MODEL_SERVICE, layout.SERVICE):
        probe(["systemctl", "reset-failed", unit])
    # By itself, since it would come back up with the model's unit, and then be restarted.
    stop_service(steps)
    with steps.step("first answer"):
        for unit in (layout.MODEL_SERVICE, layout.SERVICE):
            start(unit)
    steps.say(f"service: {read_property(layout.SERVICE, 'StatusText')}")


def stop_service(steps: Steps) -> None:
    """Let running turns come to their end; one that does not run stays so."""
    with steps.step("stop"):
        systemctl("stop", layout.SERVICE)


def start(unit: str) -> None:
    """Restart a unit and wait until it is up."""
    try:
        systemctl("restart", unit)
    except HostError as error:
        # A failed start would be tried again and again, and this run decides what comes next.
        probe(["systemctl", "stop", unit])
        journal = probe(
            [
                "journalctl",
                "--quiet",
                "--no-pager",
                "--output=cat",
                f"--unit={unit}",
                f"--lines={JOURNAL_LINES}",
            ]
        )
        said = "".join(f"\n    {line}" for line in (journal or "").splitlines())
        raise HostError(f"{unit} did not start; its journal ends with{said}") from error


def systemctl(*words: str) -> None:
    """Ask systemd for something and wait until it is done."""
    run(["systemctl", *words], failure=f"systemctl {words[0]} failed")


def read_property(unit: str, name: str) -> str:
    """A unit's property; empty where there is none."""
    return (probe(["systemctl", "show", "--value", f"--property={name}", unit]) or "").strip()
