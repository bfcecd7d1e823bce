"""The server's command: ``llavachat-server [serve] [--SETTING VALUE ...]``, and beside it
``audit verify [FOLDER]``, which checks the audit record, ``keys``, which says who may call,
``certs``, which makes a certificate for a private network, and ``store``, which copies the chats.

Each is imported when it is called: what holds from a process's first moment on is said before, and
so is what is not installed.
"""

import os
import sys
from collections.abc import Sequence

_OURS = ("llavachat", "llavachat_server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; see the commands.

    Args:
        arguments: the command line without the program's name; `sys.argv` when not given.

    Returns:
        The exit code. A server that came to serve ends the process instead.
    """
    # Before gRPC is there to read it. Its C core writes a line of its own form for every handshake
    # that fails, with words that a stranger chose: whoever can connect would fill the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _OURS:
            raise  # nobody can install that
        print(  # noqa: T201
            f"llavachat-server: the server needs {package}, which the extra llavachat[server] "
            "brings; in a checkout of llavachat: pip install -c constraints.txt '.[server]'",
            file=sys.stderr,
        )
        return 1


def _run(words: list[str]) -> int:
    from llavachat_server.interrupt import ends_process

    if words[:1] == ["keys"]:
        with ends_process():
            from llavachat_server.keys_command import run as run_keys

        return run_keys(words[1:])
    if words[:1] == ["certs"]:
        with ends_process():
            from llavachat_server.certs_command import run as run_certs

        return run_certs(words[1:])
    if words[:1] == ["audit"]:
        with ends_process():
            from llavachat_server.audit_command import run as run_audit

        return run_audit(words[1:])
    if words[:1] == ["store"]:
        with ends_process():
            from llavachat_server.store_command import run as run_store

        return run_store(words[1:])
    from llavachat_server.hangup import ignored

    with ends_process(), ignored():
        from llavachat_server.serve_command import run

        return run(words)


if __name__ == "__main__":
    sys.exit(main())
