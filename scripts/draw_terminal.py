"""Draws what a command prints on a terminal as an SVG: ``draw_terminal.py OUT.svg COMMAND...``.

The command runs on a real pseudo-terminal, 92 columns wide and in colour; what it printed is
drawn with whatever monospaced font the reader has, so that the file refers to nothing outside.
"""

import io
import os
import pty
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS = 92

FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" \
role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
<rect width="{width}" height="{height}" rx="8" fill="#14161a"/>
<g transform="translate({terminal_x}, 12)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def run_on_terminal(command: list[str]) -> str:
    """Everything a command prints on a terminal of its own.

    Raises:
        SystemExit: the command failed.
    """
    os.environ.update(COLORTERM="truecolor", TERM="xterm-256color", COLUMNS=str(COLUMNS))
    printed = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        printed.extend(data)
        return data

    status = os.waitstatus_to_exitcode(pty.spawn(command, read))
    if status:
        raise SystemExit(f"{command[0]} ended with {status}")
    return printed.decode().replace("\r\n", "\n")


def main() -> None:
    """Run the command and write the picture."""
    target, command = Path(sys.argv[1]), sys.argv[2:]
    printed = run_on_terminal(command)
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False
    )
    console.print(Text("$ " + " ".join([Path(command[0]).name, *command[1:]]), style="bold"))
    for line in printed.rstrip("\n").split("\n"):
        console.print(Text.from_ansi(line))
    target.write_text(console.export_svg(theme=MONOKAI, code_format=FORMAT, unique_id="terminal"))


if __name__ == "__main__":
    main()
