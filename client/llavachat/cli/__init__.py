"""The command line: ``llavachat ask | chat | chats | serve | demo``.

``app`` declares the commands; each is done in the module of its name. Needs the extra `cli`.

Exit codes: 0 it worked; 1 the server refused or failed; 2 wrong use (a flag, a missing file, no
picture); 3 no server answers, or it is not ready; 130 stopped by Ctrl-C.
"""

import sys

_EXTRA = {"platformdirs", "prompt_toolkit", "rich", "typer"}


def main() -> None:
    """The entry point of the command ``llavachat``."""
    try:
        # Some of the packages are imported when a command that needs them runs.
        from llavachat.cli.app import run

        code = run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(  # noqa: T201 - rich may not be there
            "llavachat: The command line needs some more packages; "
            "install them with: pip install 'llavachat[cli]'",
            file=sys.stderr,
        )
        code = 1
    sys.exit(code)
