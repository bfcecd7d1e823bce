"""The command line: ``llavachat ask | chat | chats | serve | demo``, and ``up`` and the like.

`commands` and `deploy.commands` declare them, `app` runs one; each is done in the module of its
name. Needs the extra `cli`.

Exit codes: 0 it worked; 1 the server refused or failed; 2 wrong use (a flag, a missing file, no
picture); 3 no server that is trusted answers, or it is not ready; 130 stopped by Ctrl-C.
"""

import sys

_EXTRAS = {
    **dict.fromkeys(("platformdirs", "prompt_toolkit", "rich", "typer"), "cli"),
    **dict.fromkeys(("boto3", "botocore"), "deploy"),
}
"""Which extra brings a package."""

_INTERRUPTED = 130
"""`ExitCode.INTERRUPTED`, whose module imports one of them."""


def main() -> None:
    """The entry point of the command ``llavachat``."""
    try:
        # Some of the packages are imported when a command that needs them runs.
        from llavachat.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        # While the packages are imported; `run` sees to its own.
        code = _INTERRUPTED
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        subject = "The command line" if extra == "cli" else "This command"
        print(  # noqa: T201 - rich may not be there
            f"llavachat: {subject} needs some more packages; "
            # By its name, an index would give what somebody else has put there.
            f"in a checkout of llavachat: pip install -c constraints.txt '.[{extra}]'",
            file=sys.stderr,
        )
        code = 1
    sys.exit(code)
