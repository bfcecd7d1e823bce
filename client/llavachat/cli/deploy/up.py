"""``llavachat up``: from nothing, or from what stands, to a service that has answered."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

from llavachat.cli.deploy import doctor
from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.assembly import CdkRun
from llavachat.cli.deploy.credentials import read_options, save_profile
from llavachat.cli.deploy.down import find_reason
from llavachat.cli.deploy.logs import Tail
from llavachat.cli.deploy.power import refuse_changing, wake
from llavachat.cli.deploy.stack import Deployment, find_deployment, need_deployment
from llavachat.cli.deploy.toolkit import App, find_app
from llavachat.cli.deploy.tunnel import close, forget, open_tunnel
from llavachat.cli.failure import ExitCode, Failure, wrong_use
from llavachat.cli.output import say, write
from llavachat.cli.profiles import read_profiles
from llavachat.client import Client

DEFAULT_TYPE = "g5.xlarge"
QUESTION = "What is in the picture?"
READY_SECONDS = 300.0
"""A machine that was stopped boots and loads its model within this, or something is wrong."""

POLL_SECONDS = 1.0
_NO_CAPACITY = ("InsufficientInstanceCapacity", "do not have sufficient")
"""EC2's code and its sentence; CloudFormation passes on either."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to stand.

    Args:
        types, zones: to try, in this order. Empty: the default type, every zone that offers it.
        options: of the CDK app, by name.
        update: deploy over what stands.
    """

    types: tuple[str, ...]
    zones: tuple[str, ...]
    options: Mapping[str, str]
    update: bool


def up(account: Account, name: str, wish: Wish, *, port: int | None) -> ExitCode:
    """Deploy unless it stands, wake it, tunnel to it, ask it.

    Raises:
        Failure: something is missing, AWS refuses, or the service does not come up.
    """
    types, zones, options, update = wish.types, wish.zones, wish.options, wish.update
    began = time.monotonic()
    standing = find_deployment(account, name)
    if standing is not None:
        refuse_changing(standing)
    if standing is not None and standing.stands and not (update or options):
        say(f"{name} stands; nothing is deployed (--update deploys this release).")
        wake(account, standing)
        chosen = None
    else:
        app = find_app()
        prepare(account, app, [*types, options.get("instance_type", DEFAULT_TYPE)][0], options)
        if standing is not None and standing.stands:
            chosen = update_standing(account, app, standing, options)
        else:
            chosen = deploy_new(account, app, name, types, zones, options)
    greet(account, need_deployment(account, name), chosen, port)
    say(f"Up after {time.monotonic() - began:.0f} s. Next: llavachat ask PICTURE QUESTION")
    return ExitCode.OK


def prepare(account: Account, app: App, kind: str, options: Mapping[str, str]) -> None:
    """Look at all that is needed before anything is spent; bootstrap where that is not done.

    Raises:
        Failure: something must be mended first, each with what to do.
    """
    wrong = []
    for finding in doctor.examine(account, kind, spot=options.get("spot", "") == "true"):
        if finding.remedy:
            say(doctor.describe(finding))
            wrong += [finding] if finding.needed else []
    if wrong:
        raise Failure(f"Nothing was spent; first mend: {', '.join(one.name for one in wrong)}.")
    if doctor.find_bootstrap(account) is None:
        say("bootstrapping CDK (once for an account and region)")
        identity = account.client("sts").get_caller_identity()["Account"]
        run = CdkRun(account, app, ["bootstrap", f"aws://{identity}/{account.region}"], {}, ignore)
        if run.finish():
            raise Failure(f"CDK could not be bootstrapped: {' '.join(list(run.lines)[-3:])}")


def update_standing(
    account: Account, app: App, standing: Deployment, options: Mapping[str, str]
) -> dict[str, str]:
    """Deploy this release over what stands, with the options that it was made with.

    Raises:
        Failure: those are not known here, or the deployment fails.
    """
    known = read_options(standing.name, account.region)
    if known is None:
        raise wrong_use(
            f"{standing.name} was not deployed from here, so its options are not known and an "
            "update could replace more than is meant; use `cdk deploy` with them."
        )
    chosen = {**known, **options}
    reason = deploy(account, app, standing.name, chosen)
    if reason:
        raise Failure(f"The update failed and was rolled back: {reason}")
    return chosen


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


def deploy(account: Account, app: App, name: str, options: Mapping[str, str]) -> str:
    """One ``cdk deploy``, the machine's first boot on the screen as it goes.

    Returns:
        Why it failed; "" if it did not.
    """
    began = time.monotonic()
    install = Tail(account, f"/llavachat/{name}/install", int(time.time() * 1000))
    words = ["deploy", name, "--require-approval", "never", "--progress", "events"]
    run = CdkRun(account, app, words, {**options, "stack_name": name}, ignore)
    last = ""
    try:
        while run.poll() is None:
            time.sleep(POLL_SECONDS)
            last = show(install, began) or last
    finally:
        code = run.finish()
    last = show(install, began) or last
    if code == 0:
        return ""
    # What CloudFormation says is of the stack; what the app refuses comes before there is one.
    said = "\n".join(run.lines)
    for sign in _NO_CAPACITY:
        if sign in said:
            return next(line for line in run.lines if sign in line)
    if find_deployment(account, name) is not None:
        reason = find_reason(account, name)
        return f"{reason} The machine's last word: {last}" if last else reason
    return " ".join(list(run.lines)[-5:])


def show(install: Tail, began: float) -> str:
    """Put new lines of the first boot on the screen; the last of them."""
    last = ""
    for line in install.read():
        last = line.strip()
        say(f"{time.monotonic() - began:5.0f} s  {last}")
    return last


def greet(
    account: Account, deployment: Deployment, options: Mapping[str, str] | None, port: int | None
) -> None:
    """Open the tunnel, save the server, and have it answer about a picture.

    Raises:
        Failure: no tunnel opens.
        LlavaChatError: the service does not answer.
    """
    forget(deployment.name)
    process, port = open_tunnel(account, deployment, port, detached=True)
    try:
        save_profile(account, deployment, f"localhost:{port}", options)
        profile = read_profiles().servers[deployment.name]
        with (
            as_file(files("llavachat.cli") / "demo.png") as picture,
            Client(**profile.arguments()) as client,
        ):
            client.wait_until_ready(timeout_seconds=READY_SECONDS)
            say(f"asking about a picture: {QUESTION}")
            with client.start(picture, QUESTION) as reply:
                for text in reply:
                    write(text)
            write("\n")
    except BaseException:
        close(process)
        forget(deployment.name)
        raise
    say(
        f"The tunnel stays open on localhost:{port} while it is used; `llavachat tunnel` opens it "
        "again."
    )


def ignore(line: str) -> None:
    """CDK's own lines are kept for when it fails."""
