"""Tells that a unit has failed for good: in the journal, in a file, and to the operator's hook."""

from __future__ import annotations

import os

from llavachat_host import layout
from llavachat_host.options import write_whole
from llavachat_host.steps import probe, run, warn
from llavachat_host.units import read_property

JOURNAL_LINES = 20


def describe(unit: str) -> str:
    """What has become of a failed unit, in one line."""
    # systemd also tells of a unit that it has not even tried; its result is that of an earlier run.
    needed = read_property(unit, "Requires").split()
    failed = [name for name in needed if read_property(name, "ActiveState") == "failed"]
    if failed or read_property(unit, "ActiveState") != "failed":
        reason = f"{', '.join(failed)} has failed" if failed else "something has not come up"
        return f"{unit} has not been started: of what it requires, {reason}"
    result = read_property(unit, "Result")
    status = read_property(unit, "ExecMainStatus")
    restarts = read_property(unit, "NRestarts") or "0"
    return f"{unit} has failed ({result}, exit status {status}, after {restarts} restarts)"


def tell(unit: str) -> None:
    """Tell of one failed unit.

    The hook, ``/etc/llavachat/alert``, is run if it is there and may be run; it gets the unit's
    name and the path of the account as arguments.
    """
    line = describe(unit)
    # systemd reads the number as the line's priority: 1 is "alert".
    warn(f"<1>{line}; see `journalctl -u {unit}`")
    journal = probe(
        [
            "journalctl",
            "--quiet",
            "--no-pager",
            "--output=short-iso",
            f"--unit={unit}",
            f"--lines={JOURNAL_LINES}",
        ]
    )
    layout.ALERTS.mkdir(parents=True, exist_ok=True)
    account = layout.ALERTS / unit
    write_whole(account, f"{line}\n\n{journal or ''}")
    if os.access(layout.ALERT_HOOK, os.X_OK):
        run([layout.ALERT_HOOK, unit, account], failure="the alert hook failed", timeout_seconds=50)
