"""How `llavachat up` deploys: a look beforehand, then where there is room, or over what stands."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import dropwhile, takewhile

from llavachat.cli.deploy import doctor
from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.assembly import CdkRun
from llavachat.cli.deploy.down import delete_stack, find_newest_event, find_reason
from llavachat.cli.deploy.logs import Tail
from llavachat.cli.deploy.power import list_refusals, stop, wake
from llavachat.cli.deploy.stack import Deployment, find_deployment, need_deployment
from llavachat.cli.deploy.toolkit import App
from llavachat.cli.failure import Failure
from llavachat.cli.output import say

DEFAULT_TYPE = "g5.xlarge"

POLL_SECONDS = 1.0
_NO_CAPACITY = ("InsufficientInstanceCapacity", "do not have sufficient", "no Spot capacity")
"""EC2's code and its sentence, and that for spare capacity; CloudFormation passes them on."""
_NO_BUDGETS = "To enable budgets for your account"
"""AWS's words to an account whose organization has not let it have any."""
_REFUSED = "llavachat cannot be deployed like this:"
"""What the app says before it names each wrong option."""
_APP_ENDED = ": Subprocess exited"
"""What CDK says on the line after them, behind the app's command line."""


def prepare(account: Account, kind: str | None, options: Mapping[str, str]) -> None:
    """Look at all that is needed before anything is spent; bootstrap where that is not done.

    Args:
        kind: the machine's type. None: the default one.

    Raises:
        Failure: something must be mended first, each with what to do.
    """
    wrong = []
    for finding in doctor.examine(
        account, kind or DEFAULT_TYPE, spot=options.get("spot", "") == "true"
    ):
        if finding.remedy:
            say(doctor.describe(finding))
            wrong += [finding] if finding.needed else []
    if wrong:
        raise Failure(f"Nothing was spent; first mend: {', '.join(one.name for one in wrong)}.")
    if doctor.find_bootstrap(account) is None:
        say("bootstrapping CDK (once for an account and region)")
        identity = account.client("sts").get_caller_identity()["Account"]
        run = CdkRun(account, None, ["bootstrap", f"aws://{identity}/{account.region}"], {}, ignore)
        if run.finish():
            raise Failure(f"CDK could not be bootstrapped: {' '.join(list(run.lines)[-3:])}")


def update_standing(
    account: Account, app: App, standing: Deployment, options: Mapping[str, str]
) -> None:
    """Deploy this release over what stands; its machine is replaced, and its chats stay.

    The new machine boots beside the old one, and stops it when it takes the chats over. Where the
    quota has no room for two, the old one is stopped first. What concerns no machine, such as a
    budget, replaces none; see `wake_updated`.

    Raises:
        Failure: the deployment fails; the old machine, if there was one, runs again.
    """
    spot = options.get("spot") == "true"
    running = standing.machine is not None and standing.machine.state == "running"
    both = doctor.look_at_quota(account, options["instance_type"], spot=spot, machines=2)
    if running and both.remedy and not standing.group:
        say(f"The quota has no room for two machines ({both.seen}); the old one is stopped first.")
        stop(account, standing.name)
    say(f"updating {standing.name}: {options['instance_type']} in {options['zone']}")
    reason = deploy(account, app, standing.name, options, update=True)
    if reason:
        before = need_deployment(account, standing.name)
        if before.machine is not None or before.group:
            wake(account, before)
        raise Failure(f"The update failed and was rolled back: {reason}")


def wake_updated(account: Account, deployment: Deployment) -> None:
    """After a deployment that went well: bring its machine up, where that left it down.

    CloudFormation leaves a machine that was stopped as it was, if nothing of it changes, and a
    group that went idle without one. A new release then has not run anywhere yet.

    Raises:
        Failure: the machine does not come.
    """
    if deployment.machine is not None and deployment.machine.state == "running":
        return
    if deployment.group:
        say(
            f"{deployment.name} is updated; it was idle, so no machine has tried this release yet. "
            "One is started now; if it fails, nothing is rolled back."
        )
    elif deployment.machine is not None:
        say(f"{deployment.name} is updated; its machine was stopped, and is started.")
    wake(account, deployment)


def deploy_new(
    account: Account,
    app: App,
    name: str,
    types: Sequence[str],
    zones: Sequence[str],
    options: Mapping[str, str],
) -> dict[str, str]:
    """Deploy where there is room: each type in each zone, in this order.

    Raises:
        Failure: there is none, or the deployment fails otherwise.
    """
    tried = []
    for kind, zone in list_places(account, types, zones, options):
        chosen = {**options, "stack_name": name, "instance_type": kind, "zone": zone}
        say(f"deploying {name}: {kind} in {zone}")
        reason = deploy(account, app, name, chosen)
        if not reason:
            return chosen
        if not any(sign in reason for sign in _NO_CAPACITY):
            raise Failure(f"The deployment failed and was rolled back: {reason}")
        say(f"no {kind} is free in {zone}")
        tried.append(f"{kind} in {zone}")
    raise Failure(
        f"AWS has no machine free: {', '.join(tried) or 'no zone offers these types'}. "
        "Try later, or other types with --type, or another --region."
    )


def list_places(
    account: Account, types: Sequence[str], zones: Sequence[str], options: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Types and zones to try, those that AWS offers at all."""
    wanted = list(types) or [options.get("instance_type", DEFAULT_TYPE)]
    allowed = list(zones) or ([options["zone"]] if options.get("zone") else [])
    for kind in wanted:
        answer = account.client("ec2").describe_instance_type_offerings(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [kind]}],
        )
        offered = sorted(each["Location"] for each in answer["InstanceTypeOfferings"])
        for zone in allowed or offered:
            if zone in offered:
                yield kind, zone
            else:
                say(f"{zone} has no {kind} at all")


def deploy(
    account: Account, app: App, name: str, options: Mapping[str, str], *, update: bool = False
) -> str:
    """One ``cdk deploy``, the machine's first boot on the screen as it goes.

    Args:
        update: there is something to go back to; a new deployment of spare capacity is ended as
            soon as there is none, which CloudFormation would wait for.

    Returns:
        Why it failed; "" if it did not.
    """
    began = time.monotonic()
    install = Tail(account, f"/llavachat/{name}/install", int(time.time() * 1000))
    before = find_newest_event(account, name)
    words = ["deploy", name, "--require-approval", "never", "--progress", "events"]
    run = CdkRun(account, app, words, {**options, "stack_name": name}, ignore)
    last = refusal = ""
    try:
        while run.poll() is None:
            time.sleep(POLL_SECONDS)
            last = show(install, began) or last
            if options.get("spot") == "true" and not update and not refusal:
                refusal = next(iter(list_refusals(account, name).values()), "")
                if refusal:
                    account.client("cloudformation").delete_stack(StackName=name)
    except KeyboardInterrupt:
        run.interrupt()
        say(f"CloudFormation goes on with {name} by itself; `llavachat status --name {name}`")
        raise
    finally:
        code = run.finish()
    if refusal:
        delete_stack(account, name)
        return refusal
    last = show(install, began) or last
    if code == 0:
        return ""
    # What CloudFormation says is of the stack; what the app refuses comes before there is one.
    if refused := find_refusal(run.lines):
        return refused
    said = "\n".join(run.lines)
    for sign in _NO_CAPACITY:
        if sign in said:
            return next(line for line in run.lines if sign in line)
    if find_deployment(account, name) is not None:
        reason = find_reason(account, name, after=before)
        if _NO_BUDGETS in reason:
            reason += " With `-o budget_usd=0` it is deployed without a budget."
        if reason:
            return f"{reason} The machine's last word: {last}" if last else reason
    # It ended before CloudFormation began: the change itself was refused, or a right is missing.
    return " ".join(list(run.lines)[-5:])


def find_refusal(lines: Iterable[str]) -> str:
    """Why the app refused the options, from what CDK said; "" where it did not.

    CloudFormation heard nothing of it then, and what it said last is of another deployment.
    """
    after = dropwhile(lambda line: _REFUSED not in line, lines)
    next(after, None)
    return " ".join(takewhile(lambda line: _APP_ENDED not in line, after))


def show(install: Tail, began: float) -> str:
    """Put new lines of the first boot on the screen; the last of them."""
    last = ""
    for line in install.read():
        last = line.strip()
        say(f"{time.monotonic() - began:5.0f} s  {last}")
    return last


def ignore(line: str) -> None:
    """CDK's own lines are kept for when it fails."""
