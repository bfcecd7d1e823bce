"""The install script, and whether the service that it starts is well."""

from __future__ import annotations

from pathlib import Path

CHATS = Path("/var/lib/llavachat")
CREDENTIALS = Path("/etc/llavachat/credentials")
UNITS = ("llavachat.service", "llavachat-model.service")
HEALTH_SECONDS = 900
