"""The commands and their options, as typer wants them; what they do is elsewhere.

Modules are imported when their command runs, so that ``--help`` and completion are quick.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from llavachat.cli import options
from llavachat.cli.deploy import commands as deployment
from llavachat.cli.failure import ExitCode, Failure, judge
from llavachat.errors import LlavaChatError

app = typer.Typer(
    name="llavachat",
    help="Ask about pictures: the command line of llavachat.",
    epilog="Exit codes: 0 it worked; 1 the server refused or failed; 2 wrong use; 3 no server "
    "answers or it is not ready; 130 stopped by Ctrl-C.",
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
    _quieten()
    try:
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


@app.command()
def ask(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURE",
            help="A path, an http(s) address, or - for stdin; several are one question's.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION", help="The question. Without it, stdin is it.", show_default=False
        ),
    ] = None,
    continue_last: options.Continue = False,
    chat_id: options.ChatId = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the text.")
    ] = False,
    show_usage: Annotated[
        bool, typer.Option("--usage", "-u", help="Tell tokens and times on stderr.")
    ] = False,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    overflow: options.OnOverflow = None,
    label: options.Labels = None,
    address: options.Address = None,
    tls: options.Tls = None,
    ca_file: options.CaFile = None,
    pin: options.Pin = None,
    timeout: options.Timeout = None,
) -> int:
    """Ask one question about a picture.

    stdout carries the answer alone, as it comes. The API key is read from LLAVACHAT_API_KEY.
    """
    from llavachat.cli.ask import ask as run_ask

    question = options.collect_question(
        chat_id=chat_id,
        continue_last=continue_last,
        system=system,
        labels=label,
        overflow=overflow,
        stop=stop,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    server = options.ServerOptions(address, tls, ca_file, pin, timeout)
    arguments = [*(pictures or ()), *([prompt] if prompt is not None else ())]
    return run_ask(arguments, question, server, as_json=as_json, show_usage=show_usage)


@app.command()
def chat(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PICTURE]...",
            help="Pictures for the first question: paths or http(s) addresses.",
            show_default=False,
        ),
    ] = None,
    continue_last: options.Continue = False,
    chat_id: options.ChatId = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    overflow: options.OnOverflow = None,
    label: options.Labels = None,
    address: options.Address = None,
    tls: options.Tls = None,
    ca_file: options.CaFile = None,
    pin: options.Pin = None,
    timeout: options.Timeout = None,
) -> int:
    """Talk about pictures.

    Ctrl-C stops an answer and keeps what came; /help lists the commands. The API key is read
    from LLAVACHAT_API_KEY.
    """
    from llavachat.cli.chat import chat as run_chat

    question = options.collect_question(
        chat_id=chat_id,
        continue_last=continue_last,
        system=system,
        labels=label,
        overflow=overflow,
        stop=stop,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    server = options.ServerOptions(address, tls, ca_file, pin, timeout)
    return run_chat(pictures or (), question, server)


@app.command()
def chats(
    chat_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Show this chat as Markdown.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the latest prompt as the model saw it.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Erase the chat.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="List so many.")] = 20,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="List chats with this label."),
    ] = None,
    address: options.Address = None,
    tls: options.Tls = None,
    ca_file: options.CaFile = None,
    pin: options.Pin = None,
    timeout: options.Timeout = None,
) -> int:
    """List chats, show one, or erase one."""
    from llavachat.cli.chats import chats as run_chats

    server = options.ServerOptions(address, tls, ca_file, pin, timeout)
    return run_chats(
        chat_id, server, as_json=as_json, raw=raw, delete=delete, limit=limit, labels=label
    )


@app.command()
def replay(
    chat_id: Annotated[str, typer.Argument(metavar="CHAT", help="The chat.", show_default=False)],
    turn_id: Annotated[
        str | None,
        typer.Argument(
            metavar="TURN", help="The turn; without it, the latest.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    address: options.Address = None,
    tls: options.Tls = None,
    ca_file: options.CaFile = None,
    pin: options.Pin = None,
    timeout: options.Timeout = None,
) -> int:
    """Have an answer generated again from its record, and compare token by token."""
    from llavachat.cli.replay import replay as run_replay

    server = options.ServerOptions(address, tls, ca_file, pin, timeout)
    return run_replay(chat_id, turn_id, server, as_json=as_json)


@app.command("export")
def export_(
    chat_id: Annotated[
        str | None, typer.Argument(metavar="CHAT", help="The chat.", show_default=False)
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", "-c", help="The last chat on this server.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to; its ending says the format. Without it, stdout.",
        ),
    ] = None,
    format: Annotated[
        options.Format | None,
        typer.Option(
            "--format",
            help="Markdown, JSON that `llavachat import` reads, or one HTML page. [default: by "
            "the file's ending; md on stdout]",
            show_default=False,
        ),
    ] = None,
    originals: Annotated[
        bool,
        typer.Option(
            "--originals",
            help="In JSON: also the files in which pictures came, with all their metadata, where "
            "the server kept them.",
        ),
    ] = False,
    address: options.Address = None,
    tls: options.Tls = None,
    ca_file: options.CaFile = None,
    pin: options.Pin = None,
    timeout: options.Timeout = None,
) -> int:
    """Write a chat to a file, with its pictures in JSON and HTML."""
    from llavachat.cli.exchange import export_chat

    server = options.ServerOptions(address, tls, ca_file, pin, timeout)
    return export_chat(
        chat_id,
        server,
        continue_last=last,
        output=output,
        format=format,
        originals=originals,
    )


@app.command("import")
def import_(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="What `llavachat export` wrote as JSON; - for stdin.",
            show_default=False,
        ),
    ],
    address: options.Address = None,
    tls: options.Tls = None,
    ca_file: options.CaFile = None,
    pin: options.Pin = None,
    timeout: options.Timeout = None,
) -> int:
    """Bring an exported chat to the server.

    stdout carries its new id; `llavachat ask -c` goes on with it.
    """
    from llavachat.cli.exchange import import_chat

    return import_chat(file, options.ServerOptions(address, tls, ca_file, pin, timeout))


@app.command()
def profiles(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Use this server from now on.", show_default=False),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", "-a", metavar="HOST[:PORT]", help="Save it first, under NAME."),
    ] = None,
    key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Holds its key; the key itself is not copied."),
    ] = None,
    ca_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="PEM of the authority behind its certificate."),
    ] = None,
    pin: Annotated[
        str | None,
        typer.Option(metavar="sha256:HEX", help="Trust this certificate and no other."),
    ] = None,
    server_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name to expect in its certificate.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Forget it.")] = False,
    none: Annotated[bool, typer.Option("--none", help="Use none of them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """List saved servers, or use one from now on."""
    from llavachat.cli.servers import profiles as run_profiles

    return run_profiles(
        name,
        address=address,
        key_file=key_file,
        ca_file=ca_file,
        pin=pin,
        server_name=server_name,
        delete=delete,
        none=none,
        as_json=as_json,
    )


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def serve(context: typer.Context) -> None:
    """Run the server, with its own options."""
    from llavachat.cli.serve import serve as run_serve

    run_serve(context.args)


@app.command()
def demo() -> int:
    """Start a server, ask about a picture, stop.

    Needs no network and no GPU: the model is the embedded one.
    """
    from llavachat.cli.demo import demo as run_demo

    return run_demo()


deployment.register(app)


def _quieten() -> None:
    """Keep libraries from writing between our lines; what matters reaches us as an error."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    warnings.filterwarnings("ignore", module="PIL")


def _describe_wrong_use(error: typer.TyperException) -> str:
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    program = context.command_path if context is not None else "llavachat"
    message = message if message.endswith((".", "?")) else f"{message}."
    return f"{message} See: {program} --help"


def _tell(message: str, code: int) -> int:
    if message:
        sys.stderr.write(f"llavachat: {message}\n")
    return int(code)
