"""The commands about chats and servers, as typer wants them; what they do is elsewhere.

Modules are imported when their command runs, so that ``--help`` and completion are quick.
"""

from typing import Annotated

import typer

from llavachat.cli.groups import flatten
from llavachat.cli.options import (
    AnswerOptions,
    ChatOptions,
    Format,
    Json,
    ServerOptions,
    collect_question,
    parse_labels,
    parse_time,
)


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
    *,
    which: ChatOptions,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the text.")
    ] = False,
    show_usage: Annotated[
        bool, typer.Option("--usage", "-u", help="Tell tokens and times on stderr.")
    ] = False,
    how: AnswerOptions,
    server: ServerOptions,
) -> int:
    """Ask one question about a picture.

    stdout carries the answer alone, as it comes. The API key is read from LLAVACHAT_API_KEY.
    """
    from llavachat.cli.ask import ask as run_ask

    question = collect_question(which, how)
    arguments = [*(pictures or ()), *([prompt] if prompt is not None else ())]
    return run_ask(arguments, question, server, as_json=as_json, show_usage=show_usage)


def chat(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PICTURE]...",
            help="Pictures for the first question: paths or http(s) addresses.",
            show_default=False,
        ),
    ] = None,
    *,
    which: ChatOptions,
    how: AnswerOptions,
    server: ServerOptions,
) -> int:
    """Talk about pictures.

    Ctrl-C stops an answer and keeps what came; /help lists the commands. The API key is read
    from LLAVACHAT_API_KEY.
    """
    from llavachat.cli.chat import chat as run_chat

    question = collect_question(which, how)
    return run_chat(pictures or (), question, server)


def chats(
    chat_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Show this chat as Markdown.", show_default=False),
    ] = None,
    as_json: Json = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the latest prompt as the model saw it.")
    ] = False,
    delete: Annotated[
        bool,
        typer.Option("--delete", help="Erase the chat, or all that are chosen by the following."),
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            "-l",
            metavar="KEY=VALUE",
            help="Chats with this label; repeated, with all of them.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Chats last used at this time or later: 2026-11-30, or 2026-11-30T18:00, local "
            "unless it names a time zone.",
        ),
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Chats last used before this time.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="List so many. [default: 20]")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="List all.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Erase without asking.")] = False,
    *,
    server: ServerOptions,
) -> int:
    """List chats, show one, or erase some."""
    from llavachat.cli.chats import Choice
    from llavachat.cli.chats import chats as run_chats

    choice = Choice(
        labels=parse_labels(label),
        since=parse_time("--since", since),
        before=parse_time("--before", before),
        limit=limit,
        all=all_,
    )
    return run_chats(
        chat_id, server, as_json=as_json, raw=raw, delete=delete, yes=yes, choice=choice
    )


def replay(
    chat_id: Annotated[str, typer.Argument(metavar="CHAT", help="The chat.", show_default=False)],
    turn_id: Annotated[
        str | None,
        typer.Argument(
            metavar="TURN", help="The turn; without it, the latest.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    *,
    server: ServerOptions,
) -> int:
    """Have an answer generated again from its record, and compare token by token."""
    from llavachat.cli.replay import replay as run_replay

    return run_replay(chat_id, turn_id, server, as_json=as_json)


def export(
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
        Format | None,
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
    *,
    server: ServerOptions,
) -> int:
    """Write a chat to a file, with its pictures in JSON and HTML."""
    from llavachat.cli.exchange import export_chat

    return export_chat(
        chat_id,
        server,
        continue_last=last,
        output=output,
        format=format,
        originals=originals,
    )


def import_(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="What `llavachat export` wrote as JSON; - for stdin.",
            show_default=False,
        ),
    ],
    *,
    server: ServerOptions,
) -> int:
    """Bring an exported chat to the server.

    stdout carries its new id; `llavachat ask -c` goes on with it.
    """
    from llavachat.cli.exchange import import_chat

    return import_chat(file, server)


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
    as_json: Json = False,
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


def serve(context: typer.Context) -> None:
    """Run the server, with its own options."""
    from llavachat.cli.serve import serve as run_serve

    run_serve(context.args)


def demo() -> int:
    """Start a server, ask about a picture, stop.

    Needs no network and no GPU: the model is the embedded one.
    """
    from llavachat.cli.demo import demo as run_demo

    return run_demo()


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (ask, chat, chats, replay, export):
        app.command()(flatten(command))
    app.command("import")(flatten(import_))
    app.command()(profiles)
    app.command(
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(serve)
    app.command()(demo)
