"""Where everything lies on a host.

Plain values. `releases/NAME` holds one release: its own virtual environment with the wheel alone,
its units, and this installer. The libraries, which are large and change seldom, lie in
`environments/KEY`, shared by the releases that pin the same ones; so an update that changes only
the wheel takes seconds, and going back takes none.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/opt/llavachat")
RELEASES = ROOT / "releases"
ENVIRONMENTS = ROOT / "environments"
CURRENT = ROOT / "current"
PREVIOUS = ROOT / "previous"

CONFIGURATION = Path("/etc/llavachat")
OPTIONS = CONFIGURATION / "host.json"
SERVER_SETTINGS = CONFIGURATION / "server.toml"
CREDENTIALS = CONFIGURATION / "credentials"
CREDENTIALS_SEEN = CONFIGURATION / "credentials.sha256"
ALERT_HOOK = CONFIGURATION / "alert"

STATE = Path("/var/lib/private/llavachat")
"""The service's StateDirectory= as root sees it, with DynamicUser=."""

CACHE = Path("/var/cache/llavachat")
HUB = CACHE / "hub"
"""A Hugging Face hub cache; a link to a faster disk where there is one."""
FAST_DISK = CACHE / "disk"
"""Where an instance's own disk is mounted when nobody has mounted it."""

LOG = Path("/var/log/llavachat/install.log")
LOCK = Path("/run/llavachat-install.lock")
ALERTS = Path("/run/llavachat-alerts")
ACTIVITY = Path("/run/llavachat/activity.json")

UNIT_FOLDER = Path("/etc/systemd/system")
SERVICE = "llavachat.service"
MODEL_SERVICE = "llavachat-model.service"
IDLE_TIMER = "llavachat-idle.timer"
UNITS = (
    SERVICE,
    MODEL_SERVICE,
    "llavachat-alert@.service",
    IDLE_TIMER,
    "llavachat-idle.service",
)
DROP_IN = UNIT_FOLDER / f"{SERVICE}.d" / "10-host.conf"
