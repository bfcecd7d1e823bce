"""docs/cli.md holds what ``--help`` prints. To write it anew, run this file as a program."""

import os
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cli.md"
BEGIN, END = "<!-- help: begin -->\n", "<!-- help: end -->\n"
COMMANDS = (
    *("", "ask", "chat", "chats", "replay", "export", "import", "profiles", "demo"),
    *("up", "status", "logs", "tunnel", "stop", "start", "down", "doctor"),
)


def read_help(command):
    """What a command says about itself, 80 columns wide."""
    environment = {name: value for name, value in os.environ.items() if "LLAVACHAT" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "llavachat", *command.split(), "--help"],
        env={**environment, "COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def write_reference():
    """The document's generated part."""
    parts = []
    for command in COMMANDS:
        title = f"llavachat {command}".strip()
        parts.append(f"### {title}\n\n```text\n{read_help(command)}\n```\n")
    return "\n" + "\n".join(parts) + "\n"


def test_the_reference_is_what_help_prints():
    """A flag that is added or reworded is in the document too."""
    text = DOCUMENT.read_text("utf-8")
    assert write_reference() == text.partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(before + BEGIN + write_reference() + END + after, "utf-8")
