"""Every boot after the first: has this machine its chats? ``python3 -m firstboot.wake``.

An update that CloudFormation breaks off takes the new machine away, and with it whoever could give
the volume back. Then it is free, and the machine that is started next takes it, before the mount.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from firstboot import volume
from firstboot.account import CallFailed, read_instance_id
from firstboot.handover import Handover

DEPLOYMENT = Path("/etc/llavachat/deployment.json")


def say(line: str) -> None:
    """A line for the system's journal."""
    print(line, flush=True)


def main() -> int:
    """Attach the volume if it is nowhere; 1 if it cannot come here."""
    deployment = json.loads(DEPLOYMENT.read_text())
    name = str(deployment["volume"])
    # AWS is not asked where there is nothing to ask for.
    if volume.is_here(name):
        return 0
    os.environ.setdefault("AWS_DEFAULT_REGION", deployment["region"])
    try:
        if not Handover(name, read_instance_id(), say).take_if_free():
            return 1
        volume.find_device(name)
    except (CallFailed, OSError) as error:
        say(f"the chats' volume cannot be attached: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
