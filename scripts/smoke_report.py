"""The report of `smoke-aws`: times, versions, cost, and where something failed, why."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

Step = tuple[str, float, str]
"""A step's name, seconds and outcome."""


def write_report(
    steps: Sequence[Step], facts: dict[str, Any], log: Sequence[str], left: str
) -> str:
    """The whole run in Markdown.

    Args:
        steps: in their order.
        facts: what was seen on the way; may lack whatever comes after a failure.
        log: the last lines of the machine's logs; empty where nothing failed.
        left: what stands now.
    """
    now = datetime.now(UTC)
    before, last = facts.get("before", {}), facts.get("last", facts.get("after", {}))
    lines = [f"# smoke-aws, {now:%Y-%m-%d %H:%M} UTC", ""]
    if before:
        # None where the service did not answer in time.
        service = before["service"] or {}
        updated = facts.get("after", {}).get("service") or {}
        lines += [
            f"{before['name']}: {before['machine_type']} in {before['zone']}; "
            f"{service.get('model', {}).get('id', '?')} on {service.get('device', '?')}",
            f"versions: {service.get('version', '-')}, after the update "
            f"{updated.get('version', '-')}",
        ]
    lines += [f"doctor: {line}" for line in facts.get("doctor", "").splitlines()]
    lines += ["", "| step | seconds | outcome |", "| --- | ---: | --- |"]
    lines += [f"| {name} | {seconds:.0f} | {end} |" for name, seconds, end in steps]
    if last and "down_time" in facts:
        hours = (facts["down_time"] - facts["up_time"]) / 3600
        lines += [
            "",
            f"cost: at most USD {hours * last['usd_per_hour']:.2f} for {hours:.2f} hours at "
            f"USD {last['usd_per_hour']:.2f}, list price; the bill says what it was",
        ]
    if log:
        lines += ["", "```text", *log, "```"]
    return "\n".join([*lines, "", left, ""])
