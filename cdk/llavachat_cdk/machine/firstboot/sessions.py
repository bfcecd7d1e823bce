"""Session Manager's agent, by which the tunnel comes: told to try again once it may.

It starts beside the first boot. Where IAM has not spread the role's policy by then, it is refused,
and by itself tries again half an hour later: the service would stand, and no tunnel reach it.
Source: https://github.com/aws/amazon-ssm-agent/issues/544
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

UNITS = (
    "amazon-ssm-agent.service",
    # Ubuntu's images have it as a snap.
    "snap.amazon-ssm-agent.amazon-ssm-agent.service",
)
RESTART_SECONDS = 20


def try_again() -> None:
    """Restart the agent if it runs. It fails no boot; a session that is open ends."""
    for unit in UNITS:
        # Not waited for: the agent may be ordered after this very boot.
        command = ["systemctl", "try-restart", "--no-block", unit]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, check=False, capture_output=True, timeout=RESTART_SECONDS)
