"""Takes up changes of the keys while the server runs.

Contract: a key that was added opens the server, the first one closes it to everybody else, and one
that was revoked ends its calls, within `PERIOD_SECONDS` and the time of a step; a file that turns
wrong changes nothing and is told, once for each reason. Whatever happens, the watch goes on.
"""

import asyncio
import logging

from llavachat_server.rpc.gate import Gate
from llavachat_server.rpc.key_file import BadKeyFile, KeyFiles

log = logging.getLogger("llavachat")

PERIOD_SECONDS = 1.0
"""How often the files are looked at: a glance at the file system each."""


async def watch_keys(keys: KeyFiles, gate: Gate) -> None:
    """Watch for ever; to be cancelled."""
    told = ""
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        try:
            is_changed = keys.refresh()
        except Exception as error:
            # A defect of ours as well: were the watch to end, no key could be revoked any more.
            is_known = isinstance(error, BadKeyFile)
            why = str(error) if is_known else repr(error)
            if why != told:
                fields = {"fields": {"why": why}}
                log.error("the keys of before stay in force", extra=fields, exc_info=not is_known)
            told = why
            continue
        told = ""
        if not is_changed:
            continue
        gate.end_revoked()
        num_keys = 0 if keys.ring is None else len(keys.ring)
        log.info("keys changed", extra={"fields": {"num_keys": num_keys}})
