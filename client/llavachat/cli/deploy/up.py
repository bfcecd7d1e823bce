"""``llavachat up``: from nothing, or from what stands, to a service that has answered."""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files

from llavachat.cli.deploy.account import Account
from llavachat.cli.deploy.credentials import read_options, save_options, save_profile
from llavachat.cli.deploy.power import refuse_changing, wake
from llavachat.cli.deploy.rollout import deploy_new, prepare, update_standing, wake_updated
from llavachat.cli.deploy.stack import Deployment, find_deployment, need_deployment
from llavachat.cli.deploy.toolkit import find_app
from llavachat.cli.deploy.tunnel import NotConnected, close, forget, open_tunnel, read_port
from llavachat.cli.failure import ExitCode, wrong_use
from llavachat.cli.output import say, write
from llavachat.cli.profiles import read_profiles
from llavachat.client import Client

QUESTION = "What is in the picture?"
DEFAULT_PROFILE = "llava-1.5-7b"

READY_SECONDS = {"shapes": 300.0, "llava-1.5-7b": 600.0, "llava-1.5-13b": 900.0}
"""A machine that was stopped boots and loads its model within this, by profile, or something is
wrong. Its instance disk is empty after every stop: the weights come from their mirror again, 14 or
27 GB at the 2.5 Gbit/s that a g5.xlarge has for long, and a kept quantised copy, up to 14 GB, off a
volume with 125 MB/s. For 13B in int8 that is three and a half minutes on paper."""

FIRST_BOOT_SECONDS = 1800.0
"""Spare capacity that was idle comes back as a new machine; the default of install_minutes."""

POLL_SECONDS = 2.0


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
    began = time.monotonic()
    standing = find_deployment(account, name)
    if standing is not None:
        refuse_changing(standing)
    stands = standing is not None and standing.stands
    chosen = None
    if standing is not None and stands and not wish.update:
        refuse_another(account, standing, wish)
        say(f"{name} stands; nothing is deployed (--update deploys this release).")
        wake(account, standing)
    elif standing is not None and stands:
        chosen = choose_update(account, standing, wish)
        app = find_app()
        prepare(account, chosen["instance_type"], chosen)
        update_standing(account, app, standing, chosen)
    else:
        app = find_app()
        prepare(account, [*wish.types, wish.options.get("instance_type")][0], wish.options)
        chosen = deploy_new(account, app, name, wish.types, wish.zones, wish.options)
    if chosen is not None:
        # At once: what stands is so now, whether or not it can be reached from here.
        save_options(name, account.region, f"localhost:{read_port(name)}", chosen)
        wake_updated(account, need_deployment(account, name))
    greet(account, need_deployment(account, name), port)
    say(f"Up after {time.monotonic() - began:.0f} s. Next: llavachat ask PICTURE QUESTION")
    return ExitCode.OK


def refuse_another(account: Account, standing: Deployment, wish: Wish) -> None:
    """What stands is reused as it is; who asks for something else is told.

    Raises:
        Failure: another machine, zone or option was asked for.
    """
    name, machine = standing.name, standing.machine
    if machine is not None and wish.types and machine.type not in wish.types:
        raise wrong_use(
            f"{name} stands on a {machine.type}; `llavachat up --update --type {wish.types[0]}` "
            "replaces it, and keeps the chats."
        )
    known = read_options(name, account.region) or {}
    refuse_leaving_chats(standing, wish, known)
    others = {key: wish.options[key] for key in wish.options if wish.options[key] != known.get(key)}
    if others:
        text = ", ".join(f"{key}={value}" for key, value in others.items())
        raise wrong_use(
            f"{name} stands, and not with {text} as far as is known here; --update deploys it so."
        )


def refuse_leaving_chats(standing: Deployment, wish: Wish, known: Mapping[str, str]) -> None:
    """Chats live on one volume, in one zone. CloudFormation would refuse this too, but later.

    Args:
        known: the options that it was made with.

    Raises:
        Failure: another zone was asked for, or a snapshot to begin from.
    """
    name = standing.name
    zone = standing.machine.zone if standing.machine is not None else known.get("zone", "")
    zones = {*wish.zones, *([wish.options["zone"]] if "zone" in wish.options else [])}
    if zone and zones and zone not in zones:
        raise wrong_use(
            f"{name} stands in {zone}, and its chats live there; 'Another zone' in docs/deploy.md "
            "tells how they move. Or give another --name."
        )
    snapshot = wish.options.get("restore_snapshot_id", "")
    if snapshot and snapshot != known.get("restore_snapshot_id"):
        raise wrong_use(
            f"{name} stands and has chats of its own, and {snapshot} is for what begins; give "
            "another --name, or `llavachat down` first."
        )


def choose_update(account: Account, standing: Deployment, wish: Wish) -> dict[str, str]:
    """The options of an update: those that it was made with, and those given now.

    Where the machine was terminated by hand, another generation besides: CloudFormation takes it to
    be there, and would leave alone what does not change.

    Raises:
        Failure: the former are not known here, or the latter would leave the chats behind.
    """
    known = read_options(standing.name, account.region)
    refuse_leaving_chats(standing, wish, known or {})
    if len(wish.types) > 1:
        raise wrong_use("An update takes one --type; the machine is replaced by it.")
    if known is None:
        raise wrong_use(
            f"{standing.name} was not deployed from here, so its options are not known and an "
            "update could replace more than is meant; use `cdk deploy` with them."
        )
    kind = {"instance_type": wish.types[0]} if wish.types else {}
    chosen = {**known, **wish.options, **kind, "zone": known["zone"]}
    if standing.lacks_machine and "generation" not in wish.options:
        chosen["generation"] = str(int(known.get("generation", "0")) + 1)
        say(f"{standing.name} has no machine; a new one is made, and takes over the chats.")
    return chosen


def greet(account: Account, deployment: Deployment, port: int | None) -> None:
    """Open the tunnel, save the server, and have it answer about a picture.

    Raises:
        Failure: no tunnel opens.
        LlavaChatError: the service does not answer.
    """
    forget(deployment.name)
    limit = find_limit(deployment, read_options(deployment.name, account.region) or {})
    process, port = connect(account, deployment, port, limit)
    try:
        save_profile(account, deployment, f"localhost:{port}")
        profile = read_profiles().servers[deployment.name]
        with (
            as_file(files("llavachat.cli") / "demo.png") as picture,
            Client(**profile.arguments()) as client,
        ):
            client.wait_until_ready(timeout_seconds=limit)
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


def find_limit(deployment: Deployment, known: Mapping[str, str]) -> float:
    """Seconds that a service may take to answer once its machine was woken.

    Args:
        known: the options that it was made with; where they are not known here, the model may be
            the largest.
    """
    if deployment.group:
        return FIRST_BOOT_SECONDS
    profile = known.get("profile", DEFAULT_PROFILE) if known else ""
    return READY_SECONDS.get(profile, max(READY_SECONDS.values()))


def connect(
    account: Account, deployment: Deployment, port: int | None, seconds: float
) -> tuple[subprocess.Popen[bytes], int]:
    """Open the tunnel that outlives us; a machine that was just started is waited for.

    Raises:
        Failure: none opens.
    """
    end = time.monotonic() + seconds
    told = False
    while True:
        try:
            return open_tunnel(account, deployment, port, detached=True)
        except NotConnected:
            if time.monotonic() > end:
                raise
        if not told:
            say("waiting for the machine to reach Session Manager")
            told = True
        time.sleep(POLL_SECONDS)
