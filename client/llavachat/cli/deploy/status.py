"""``llavachat status``: health, model, uptime, idle time, cost so far."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.stack import Deployment, need_deployment
from llavachat.cli.failure import ExitCode
from llavachat.cli.output import write
from llavachat.cli.profiles import read_profiles
from llavachat.client import Client
from llavachat.errors import LlavaChatError
from llavachat.transcript import to_plain

ASK_SECONDS = 3.0
IDLE_WINDOW = timedelta(hours=24)
HOURS_PER_MONTH = 730


def status(account: Account, name: str, *, as_json: bool) -> ExitCode:
    """Tell what stands and how it is; 3 where nobody could be answered now.

    Raises:
        Failure: there is no such deployment.
    """
    found = collect(account, need_deployment(account, name))
    if as_json:
        write(json.dumps(found, ensure_ascii=False, default=str) + "\n")
    else:
        write("".join(f"{key.replace('_', ' '):<12}{value}\n" for key, value in tell(found)))
    return ExitCode.OK if found["machine_state"] == "running" else ExitCode.UNAVAILABLE


def collect(account: Account, deployment: Deployment) -> dict[str, Any]:
    """All that is known, under plain names; seconds and US dollars."""
    now = datetime.now(UTC)
    machine = deployment.machine
    running = machine is not None and machine.state == "running"
    uptime = (now - machine.started).total_seconds() if machine and running else 0.0
    hourly, monthly = deployment.costs
    age_hours = (now - deployment.created).total_seconds() / 3600
    alarms = account.client("cloudwatch").describe_alarms(AlarmNamePrefix=deployment.name)
    loud = [each["AlarmName"] for each in alarms["MetricAlarms"] if each["StateValue"] == "ALARM"]
    return {
        "name": deployment.name,
        "region": account.region,
        "stack": deployment.status,
        "machine": machine.id if machine else "",
        "machine_type": machine.type if machine else "",
        "zone": machine.zone if machine else "",
        "machine_state": machine.state if machine else "none",
        "uptime_seconds": round(uptime),
        "idle_seconds": find_idle_seconds(account, deployment.name) if running else None,
        "alarms": loud,
        "service": ask_service(deployment.name, account.region) if running else None,
        "usd_per_hour": hourly,
        "usd_this_run": round(uptime / 3600 * hourly, 2),
        "usd_standing": round(age_hours / HOURS_PER_MONTH * monthly, 2),
    }


def find_idle_seconds(account: Account, name: str) -> int | None:
    """Seconds since the service last logged a turn. None: none in the last day is known."""
    logs = account.client("logs")
    since = datetime.now(UTC) - IDLE_WINDOW
    try:
        answer = logs.filter_log_events(
            logGroupName=f"/llavachat/{name}/service",
            startTime=int(since.timestamp() * 1000),
            filterPattern='"first_token_seconds"',
        )
    except logs.exceptions.ResourceNotFoundException:
        return None
    times = [event["timestamp"] for event in answer["events"]]
    while token := answer.get("nextToken"):
        answer = logs.filter_log_events(
            logGroupName=f"/llavachat/{name}/service",
            startTime=int(since.timestamp() * 1000),
            filterPattern='"first_token_seconds"',
            nextToken=token,
        )
        times += [event["timestamp"] for event in answer["events"]]
    return round(time.time() - max(times) / 1000) if times else None


def ask_service(name: str, region: str) -> dict[str, Any] | None:
    """What the service itself says, through a tunnel that is open. None: none is."""
    wanted = {"stack": name, "region": region}
    for profile in read_profiles().servers.values():
        if {key: profile.deployment.get(key) for key in wanted} != wanted:
            continue
        try:
            with Client(**profile.arguments(), timeout_seconds=ASK_SECONDS) as client:
                info = client.server_info(timeout_seconds=ASK_SECONDS)
                healthy = client.is_healthy(timeout_seconds=ASK_SECONDS)
        except LlavaChatError:
            return None
        return {
            "healthy": healthy,
            "model": to_plain(info.model),
            "version": info.server_version,
            "device": info.device,
        }
    return None


def tell(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people, a line each."""
    running = found["machine_state"] == "running"
    service = found["service"]
    health = "-"
    if running and service is None:
        health = "not asked: no tunnel is open (`llavachat tunnel`)"
    elif service is not None:
        health = "SERVING" if service["healthy"] else "not serving"
    idle = found["idle_seconds"]
    machine = f"{found['machine']} {found['machine_type']} {found['zone']}".strip() or "none"
    return [
        ("deployment", f"{found['name']} in {found['region']}, {found['stack']}"),
        ("machine", f"{machine}, {found['machine_state']}"),
        ("health", health),
        ("alarms", ", ".join(found["alarms"]) or "none"),
        ("model", str(service["model"].get("id") or service["model"]) if service else "-"),
        ("uptime", describe_seconds(found["uptime_seconds"]) if running else "-"),
        ("idle", describe_seconds(idle) if idle is not None else "no turn in the last day"),
        (
            "cost so far",
            f"USD {found['usd_this_run']:.2f} this run (USD {found['usd_per_hour']:.2f} an hour), "
            f"USD {found['usd_standing']:.2f} for what stands; list prices",
        ),
    ]


def describe_seconds(seconds: float) -> str:
    """A length of time in hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
