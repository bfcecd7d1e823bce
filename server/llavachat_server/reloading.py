"""Taking settings up again while the server runs: the least that is logged, and nothing else.

Contract: settings that can not be read change nothing and are told; so are those that would need
a restart.
"""

import logging
from collections.abc import Callable

from llavachat_server.flags import SettingsError
from llavachat_server.ops import logs
from llavachat_server.settings import Settings

log = logging.getLogger("llavachat")

TAKEN_UP = frozenset({"log_level"})


def reload_settings(started_with: Settings, read: Callable[[], Settings]) -> None:
    """Read the settings again, and take up what can be.

    Args:
        started_with: those that the server runs with.
        read: reads flags, environment and file anew.
    """
    try:
        fresh = read()
    except SettingsError as error:
        log.error("the settings of before stay in force", extra={"fields": {"why": str(error)}})
        return
    changed = [
        name
        for name in Settings.model_fields
        if name not in TAKEN_UP and getattr(fresh, name) != getattr(started_with, name)
    ]
    # Told whatever the level, or who set it could not tell whether it was taken up.
    logs.set_level("info")
    fields = {"log_level": fresh.log_level, "needs_restart": ", ".join(changed)}
    log.info("settings read again", extra={"fields": fields})
    logs.set_level(fresh.log_level)
