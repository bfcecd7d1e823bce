"""The command line as a whole: runs one, and tells what went wrong as one sentence.

What the commands are is declared in `commands` and `deploy.commands`.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import IO, Annotated, cast

import typer

from llavachat.cli import commands
from llavachat.cli.characters import spell_for
from llavachat.cli.deploy import commands as deployment
from llavachat.cli.failure import ExitCode, Failure, judge
from llavachat.cli.streams import Guarded
from llavachat.errors import LlavaChatError

app = typer.Typer(
    name="llavachat",
    help="Ask about pictures: the command line of llavachat.",
    epilog="Exit codes: 0 it worked; 1 the server refused or failed; 2 wrong use; 3 no server "
    "that is trusted answers, or it is not ready; 130 stopped by Ctrl-C.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code; see `ExitCode`. What went wrong was told on stderr.
    """
    _open_streams()
    _quieten()
    try:
        # Help and completion are written by typer, which knows no sentence for a full disk.
        with redirect_stdout(cast(IO[str], Guarded(sys.stdout))):
            code = app(list(arguments), prog_name="llavachat", standalone_mode=False)
    except typer.TyperException as error:
        return _tell(_describe_wrong_use(error), getattr(error, "exit_code", ExitCode.USAGE))
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except LlavaChatError as error:
        failure = judge(error)
        return _tell(str(failure), failure.code)
    except Failure as failure:
        return _tell(str(failure), failure.code)
    return int(code or 0)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Tell the version and leave.")] = False,
) -> None:
    """Ask about pictures: the command line of llavachat."""
    if version:
        import llavachat

        typer.echo(f"llavachat {llavachat.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


commands.register(app)
deployment.register(app)


def _open_streams() -> None:
    """Where a stream was closed there is none, and the next file or socket takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, stream)


def _quieten() -> None:
    """Keep libraries from writing between our lines; what matters reaches us as an error."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    warnings.filterwarnings("ignore", module="PIL")


def _describe_wrong_use(error: typer.TyperException) -> str:
    # What typer checks by pydantic comes with the name of an exception.
    message = " ".join(error.format_message().split()).replace(": Value error, ", ": ", 1)
    context = getattr(error, "ctx", None)
    program = context.command_path if context is not None else "llavachat"
    message = message if message.endswith((".", "?")) else f"{message}."
    return f"{message} See: {program} --help"


def _tell(message: str, code: int) -> int:
    if message:
        sys.stderr.write(spell_for(sys.stderr, f"llavachat: {message}\n"))
    return int(code)
