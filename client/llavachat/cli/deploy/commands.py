"""The commands about a deployment, as typer wants them; what they do is elsewhere.

Modules are imported when their command runs: they need boto3.
"""

from typing import Annotated

import typer

from llavachat.cli.failure import wrong_use

Name = Annotated[
    str, typer.Option("--name", "-n", metavar="NAME", help="The deployment.", show_default=True)
]
Region = Annotated[
    str | None,
    typer.Option(
        metavar="REGION",
        help="The AWS region. [default: as AWS_REGION or `aws configure` have it]",
        show_default=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=65535,
        help="The tunnel's port on this machine. [default: 50051, or a free one]",
        show_default=False,
    ),
]

DEFAULT_NAME = "llavachat"


def up(
    name: Name = DEFAULT_NAME,
    region: Region = None,
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
    options = _parse_options(option)
    from llavachat.cli.deploy.account import Account, telling
    from llavachat.cli.deploy.up import up as run_up

    with telling():
        return run_up(
            Account(region),
            name,
            types=types or (),
            zones=zones or (),
            options=options,
            update=update,
            port=port,
        )


def status(
    name: Name = DEFAULT_NAME,
    region: Region = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Tell health, model, uptime, idle time and cost of a deployment."""
    from llavachat.cli.deploy.account import Account, telling
    from llavachat.cli.deploy.status import status as run_status

    with telling():
        return run_status(Account(region), name, as_json=as_json)


def logs(
    name: Name = DEFAULT_NAME,
    region: Region = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    install: Annotated[
        bool, typer.Option("--install", help="The first boot's log, not the service's.")
    ] = False,
) -> int:
    """Show the last hour of a deployment's log."""
    from llavachat.cli.deploy.account import Account, telling
    from llavachat.cli.deploy.logs import logs as run_logs

    with telling():
        return run_logs(Account(region), name, follow=follow, install=install)


def tunnel(name: Name = DEFAULT_NAME, region: Region = None, port: Port = None) -> int:
    """Bring a deployment to this machine until Ctrl-C, and use it from now on.

    Needs Amazon's Session Manager plugin.
    """
    from llavachat.cli.deploy.account import Account, telling
    from llavachat.cli.deploy.tunnel import tunnel as run_tunnel

    with telling():
        return run_tunnel(Account(region), name, port=port)


def stop(name: Name = DEFAULT_NAME, region: Region = None) -> int:
    """Stop a deployment's machine; the chats stay."""
    from llavachat.cli.deploy.account import Account, telling
    from llavachat.cli.deploy.power import stop as run_stop

    with telling():
        return run_stop(Account(region), name)


def start(name: Name = DEFAULT_NAME, region: Region = None) -> int:
    """Start a deployment's machine again."""
    from llavachat.cli.deploy.account import Account, telling
    from llavachat.cli.deploy.power import start as run_start

    with telling():
        return run_start(Account(region), name)


def down(
    name: Name = DEFAULT_NAME,
    region: Region = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove a deployment, after saying what will be lost."""
    from llavachat.cli.deploy.account import Account, telling
    from llavachat.cli.deploy.down import down as run_down

    with telling():
        return run_down(Account(region), name, yes=yes)


def doctor(
    region: Region = None,
    instance_type: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="The machine that is meant.")
    ] = "g5.xlarge",
    spot: Annotated[bool, typer.Option("--spot", help="As spare capacity.")] = False,
) -> int:
    """Look at all that a deployment needs, before anything is spent."""
    from llavachat.cli.deploy.account import Account, telling
    from llavachat.cli.deploy.doctor import doctor as run_doctor

    with telling():
        return run_doctor(Account(region), instance_type, spot=spot)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (up, status, logs, tunnel, stop, start, down, doctor):
        app.command()(command)


def _parse_options(given: list[str] | None) -> dict[str, str]:
    options = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise wrong_use(f"--option {text!r} is not NAME=VALUE.")
        if name == "stack_name":
            raise wrong_use("The deployment's name is given with --name.")
        options[name] = value
    return options
