"""Stops the machine when nobody needs it: no call for long, no turn running, nothing loading.

Whatever is unclear counts as "in use": a service that is starting, stopping or failed, an
activity file that is old, an installation under way.
"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

from llavachat_host import layout
from llavachat_host.options import Options
from llavachat_host.steps import InstallationRuns, Steps, hold_lock, run
from llavachat_host.units import read_property

MAX_AGE_SECONDS = 30.0
"""The server writes its activity every two seconds."""


def explain_use(options: Options, state: str, activity: Path = layout.ACTIVITY) -> str | None:
    """Why the machine must stay; None if it may stop.

    Args:
        options: this host's.
        state: the service's ActiveState.
        activity: the file that the server keeps writing.
    """
    if not options.idle_minutes:
        return "it is never stopped: idle-minutes is 0"
    if state != "active":
        return f"the service is {state}"
    try:
        age_seconds = time.time() - activity.stat().st_mtime
        seen = json.loads(activity.read_text())
        running, idle_seconds = int(seen["running_turns"]), float(seen["idle_seconds"])
        serving = seen["state"] == "serving"
    except (OSError, ValueError, KeyError, TypeError):
        return "the server does not say whether it is in use"
    if age_seconds > MAX_AGE_SECONDS:
        return f"the server has not said for {age_seconds:.0f} s whether it is in use"
    if not serving:
        return "the server is stopping"
    if running:
        return f"{running} running"
    limit_seconds = options.idle_minutes * 60
    if idle_seconds < limit_seconds:
        return f"idle for {idle_seconds:.0f} s of {limit_seconds:.0f} s"
    return None


def stop_if_idle(options: Options, steps: Steps) -> bool:
    """Stop the machine if it may; whether it was told to."""
    reason = explain_use(options, read_property(layout.SERVICE, "ActiveState"))
    if reason is not None:
        steps.say(f"the machine stays: {reason}")
        return False
    try:
        with hold_lock(layout.LOCK):
            steps.say(f"no call for {options.idle_minutes:g} minutes: {options.stop_command}")
            run(shlex.split(options.stop_command), failure="the machine can not be stopped")
    except InstallationRuns:
        steps.say("the machine stays: an installation is at work")
        return False
    return True
