"""``llavachat-server audit verify [FOLDER]``: is the audit record whole?

Exit codes: 0 nothing is wrong, 1 something was altered, or can not be read or told, 2 wrong use.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from llavachat_server.chats.audit import Finding, list_files, verify
from llavachat_server.flags import SettingsError
from llavachat_server.output import NotSaid, say
from llavachat_server.settings import read
from llavachat_server.stores import audit_folder

_USE = "usage: llavachat-server audit verify [FOLDER]"
_HELP = f"""{_USE}

Say whether the audit record is whole, and where it was altered if it was.

  FOLDER      the record's folder (default: audit in the server's state_folder, as settings in the
              environment say)
  -h, --help  show this and leave"""


def run(words: Sequence[str]) -> int:
    """Verify a record and say what was found.

    Args:
        words: the command line after ``audit``.

    Returns:
        The exit code.
    """
    if not {"-h", "--help"}.isdisjoint(words):
        print(_HELP)  # noqa: T201
        return 0
    if not 1 <= len(words) <= 2 or words[0] != "verify" or words[-1].startswith("-"):
        print(_USE, file=sys.stderr)  # noqa: T201
        return 2
    try:
        folder = Path(words[1]) if len(words) == 2 else audit_folder(read(()))
        if not folder.is_dir() or not list_files(folder):
            print(f"llavachat-server: there is no audit record in {folder}", file=sys.stderr)  # noqa: T201
            return 1
        finding = verify(folder)
    except (OSError, SettingsError) as error:
        print(f"llavachat-server: {error}", file=sys.stderr)  # noqa: T201
        return 1
    try:
        say(_describe(finding))
    except NotSaid as error:
        print(f"llavachat-server: the finding could not be written: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0 if finding.fault is None else 1


def _describe(finding: Finding) -> str:
    if finding.fault is None:
        return f"{finding.num_lines} lines, nothing altered; last hash {finding.last_sha256}"
    return (
        f"{finding.file}: line {finding.line}, from byte {finding.byte}: {finding.fault}\n"
        f"{finding.num_lines} lines before it are as they were written"
    )
