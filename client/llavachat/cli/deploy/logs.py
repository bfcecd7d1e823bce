"""``llavachat logs``: the service's log, or the newest first boot's, as CloudWatch has them."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llavachat.cli.deploy.account import Account
from llavachat.cli.failure import ExitCode, Failure
from llavachat.cli.output import write

POLL_SECONDS = 2.0
FIRST_SECONDS = 3600


def logs(account: Account, name: str, *, follow: bool, install: bool) -> ExitCode:
    """Write the last hour's lines to stdout, and with `follow` what comes until Ctrl-C.

    Raises:
        Failure: there is no such log.
    """
    group = f"/llavachat/{name}/{'install' if install else 'service'}"
    tail = Tail(account, group, int((time.time() - FIRST_SECONDS) * 1000))
    if not tail.exists():
        raise Failure(
            f"There is no log {group} in {account.region}; --name and --region name another."
        )
    while True:
        for line in tail.read():
            write(line + "\n")
        if not follow:
            return ExitCode.OK
        time.sleep(POLL_SECONDS)


@dataclass(slots=True)
class Tail:
    """Reads a log group on from where it was; every line once.

    Args:
        since: milliseconds since 1970; older lines are left out.
    """

    account: Account
    group: str
    since: int
    _seen: set[str] = field(default_factory=set)

    def exists(self) -> bool:
        """Whether there is such a group."""
        answer = self.account.client("logs").describe_log_groups(logGroupNamePrefix=self.group)
        return any(each["logGroupName"] == self.group for each in answer["logGroups"])

    def read(self) -> Iterator[str]:
        """Lines that came since the last call, oldest first. A group may come to be later."""
        client = self.account.client("logs")
        arguments: dict[str, Any] = {"logGroupName": self.group, "startTime": self.since}
        while True:
            try:
                answer = client.filter_log_events(**arguments)
            except client.exceptions.ResourceNotFoundException:
                return
            for event in answer["events"]:
                # Events of one millisecond may come in several calls; their ids are told apart.
                if event["eventId"] not in self._seen:
                    self._seen.add(event["eventId"])
                    self.since = max(self.since, event["timestamp"] - 10_000)
                    yield event["message"].rstrip()
            if not (token := answer.get("nextToken")):
                return
            arguments["nextToken"] = token
