"""Session Manager's StartSession, which moto lacks: gives a session to a machine that runs."""

from __future__ import annotations

import json
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.ec2 import ec2_backends
from moto.ssm.responses import SimpleSystemManagerResponse

AWAY: set[str] = set()
"""Machines that run, and whose agent has not reached Session Manager yet."""


class TargetNotConnected(JsonRESTError):
    """What is said of a machine that does not run."""

    def __init__(self, target: str) -> None:
        super().__init__("TargetNotConnected", f"{target} is not connected.")


def start_session(self: SimpleSystemManagerResponse) -> str:
    """A session's id, token and address; the address leads nowhere."""
    target = self._get_param("Target")
    machines = ec2_backends[self.current_account][self.region].all_instances()
    states: dict[str, Any] = {machine.id: machine._state.name for machine in machines}
    if states.get(target) != "running" or target in AWAY:
        raise TargetNotConnected(target)
    return json.dumps(
        {"SessionId": "session-1", "TokenValue": "token-1", "StreamUrl": "wss://localhost:1/x"}
    )
