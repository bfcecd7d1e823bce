"""Every boot after the first: has this machine its chats, and in a form that it can read?

``python3 -m firstboot.wake attach`` comes before the mount, ``... settle`` after it.

An update that CloudFormation breaks off takes the new machine away, and with it whoever could give
the volume back. Then it is free, and the machine that is started next takes it; and if the new
machine has already changed the database, that one puts it back.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from firstboot import safekeeping, volume
from firstboot.account import CallFailed, read_instance_id
from firstboot.handover import Handover
from firstboot.service import CHATS

DEPLOYMENT = Path("/etc/llavachat/deployment.json")


def say(line: str) -> None:
    """A line for the system's journal."""
    print(line, flush=True)


def attach() -> int:
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


def settle() -> int:
    """Put the chats back if another machine began to change them, and did not end."""
    if safekeeping.is_kept(CHATS):
        safekeeping.settle(CHATS, read_instance_id(), say)
    return 0


if __name__ == "__main__":
    sys.exit({"attach": attach, "settle": settle}[sys.argv[1]]())
