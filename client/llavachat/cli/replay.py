"""``llavachat replay``: does an answer come out again as it was recorded?"""

import json
from dataclasses import asdict

from llavachat.cli.failure import ExitCode
from llavachat.cli.options import ServerOptions
from llavachat.cli.output import write
from llavachat.client import Client


def replay(chat_id: str, turn_id: str | None, server: ServerOptions, *, as_json: bool) -> ExitCode:
    """Replay a turn and say how it compares; FAILED when it is another answer.

    Raises:
        LlavaChatError: the server refused or failed.
    """
    with Client.from_environment(**server.overrides()) as client:
        verdict = client.chat(chat_id).replay(turn_id)
    if as_json:
        write(json.dumps(asdict(verdict), ensure_ascii=False, indent=2) + "\n")
    else:
        if verdict.identical:
            write("The same answer, token by token.\n")
        else:
            write(f"Another answer from token {verdict.first_difference_token} on.\n")
        for change in verdict.changes:
            then, now = change.recorded or "nothing", change.current or "nothing"
            write(f"{change.name}: was {then}, is {now}\n")
    return ExitCode.OK if verdict.identical else ExitCode.FAILED
