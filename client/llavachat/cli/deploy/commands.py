"""The commands about a deployment, as typer wants them; what they do is elsewhere.

Modules are imported when their command runs: they need boto3.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from llavachat.cli.failure import wrong_use
from llavachat.cli.groups import flatten
from llavachat.cli.options import Json, parse_pairs

if TYPE_CHECKING:
    from llavachat.cli.deploy.account import Account

DEFAULT_NAME = "llavachat"

Port = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=65535,
        help="The tunnel's port on this machine. [default: that of before, 50051, or a free one]",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class RegionOptions:
    """Which region of the account."""

    region: Annotated[
        str | None,
        typer.Option(
            metavar="REGION",
            help="The AWS region. [default: as AWS_REGION or `aws configure` have it]",
            show_default=False,
        ),
    ] = None

    @contextmanager
    def open(self, *, needs_region: bool = True) -> Iterator["Account"]:
        """The account there; what AWS refuses within is told as a sentence.

        Args:
            needs_region: False: the account's region may be "".

        Raises:
            Failure: no region is named, or AWS refused.
        """
        from llavachat.cli.deploy.account import Account, telling

        with telling():
            yield Account(self.region, needs_region=needs_region)


@dataclass(frozen=True, slots=True)
class NameOptions:
    """Which deployment."""

    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="The deployment.")] = (
        DEFAULT_NAME
    )


def up(
    *,
    deployment: NameOptions,
    where: RegionOptions,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="A machine to try; may be repeated. [default: g5.xlarge]",
            show_default=False,
        ),
    ] = None,
    zones: Annotated[
        list[str] | None,
        typer.Option(
            "--zone",
            metavar="ZONE",
            help="A zone to try; may be repeated. [default: all]",
            show_default=False,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME=VALUE", help="As in docs/deploy.md; may be repeated."
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Deploy this release over what stands.")
    ] = False,
    port: Port = None,
) -> int:
    """Deploy unless it stands, and end with a real answer through a tunnel.

    Tries each type in each zone until one has room. What stands is woken, and reused.
    """
    options = parse_pairs("--option", "NAME=VALUE", option, empty=True)
    if "stack_name" in options:
        raise wrong_use("The deployment's name is given with --name.")
    with where.open() as account:
        from llavachat.cli.deploy.up import Wish
        from llavachat.cli.deploy.up import up as run_up

        wish = Wish(tuple(types or ()), tuple(zones or ()), options, update)
        return run_up(account, deployment.name, wish, port=port)


def status(*, deployment: NameOptions, where: RegionOptions, as_json: Json = False) -> int:
    """Tell health, model, uptime, idle time and cost of a deployment."""
    with where.open() as account:
        from llavachat.cli.deploy.status import status as run_status

        return run_status(account, deployment.name, as_json=as_json)


def logs(
    *,
    deployment: NameOptions,
    where: RegionOptions,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    install: Annotated[
        bool, typer.Option("--install", help="The first boot's log, not the service's.")
    ] = False,
) -> int:
    """Show the last hour of a deployment's log."""
    with where.open() as account:
        from llavachat.cli.deploy.logs import logs as run_logs

        return run_logs(account, deployment.name, follow=follow, install=install)


def tunnel(*, deployment: NameOptions, where: RegionOptions, port: Port = None) -> int:
    """Bring a deployment to this machine until Ctrl-C, and use it from now on.

    Needs Amazon's Session Manager plugin.
    """
    with where.open() as account:
        from llavachat.cli.deploy.tunnel import tunnel as run_tunnel

        return run_tunnel(account, deployment.name, port=port)


def stop(*, deployment: NameOptions, where: RegionOptions) -> int:
    """Stop a deployment's machine; the chats stay."""
    with where.open() as account:
        from llavachat.cli.deploy.power import stop as run_stop

        return run_stop(account, deployment.name)


def start(*, deployment: NameOptions, where: RegionOptions) -> int:
    """Start a deployment's machine again."""
    with where.open() as account:
        from llavachat.cli.deploy.power import start as run_start

        return run_start(account, deployment.name)


def down(
    *,
    deployment: NameOptions,
    where: RegionOptions,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove a deployment, after saying what will be lost."""
    with where.open() as account:
        from llavachat.cli.deploy.down import down as run_down

        return run_down(account, deployment.name, yes=yes)


def doctor(
    *,
    where: RegionOptions,
    instance_type: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="The machine that is meant.")
    ] = "g5.xlarge",
    spot: Annotated[bool, typer.Option("--spot", help="As spare capacity.")] = False,
) -> int:
    """Look at all that a deployment needs, before anything is spent."""
    with where.open(needs_region=False) as account:
        from llavachat.cli.deploy.doctor import doctor as run_doctor

        return run_doctor(account, instance_type, spot=spot)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (up, status, logs, tunnel, stop, start, down, doctor):
        app.command()(flatten(command))
