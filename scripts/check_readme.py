"""Checks that what the documents tell people to type exists.

In fenced ``sh`` blocks, every ``make TARGET`` must be a target of the Makefile, every
``llavachat VERB`` and ``llavachat-server`` flag must be accepted by the program's own help, and
every relative link must lead to a file.
"""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@cache
def read_help(*command: str) -> str:
    """What a program says about itself; empty where it refuses the verb."""
    done = subprocess.run(  # noqa: S603 - our own programs, with words from our own documents
        [str(BIN / command[0]), *command[1:], "--help"],
        capture_output=True,
        text=True,
        env={"NO_COLOR": "1", "COLUMNS": "200", "PATH": "/usr/bin:/bin", "TERM": "dumb"},
        check=False,
    )
    return done.stdout if done.returncode == 0 else ""


def check_command(words: list[str]) -> str | None:
    """Why a command line cannot be right, or None."""
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        unknown = [word for word in rest if "=" not in word and word not in targets]
        return f"no make target {unknown[0]!r}" if unknown else None
    if program not in ("llavachat", "llavachat-server"):
        return None
    verb = rest[:1] if program == "llavachat" and rest and not rest[0].startswith("-") else []
    text = read_help(program, *verb)
    if not text:
        return f"`{program} {' '.join(verb)}` is not a command"
    if verb == ["serve"]:
        text += read_help("llavachat-server")
    flags = [word.split("=")[0] for word in rest if word.startswith("--")]
    missing = [flag for flag in flags if flag not in text]
    return f"no flag {missing[0]}" if missing else None


def list_commands(text: str) -> list[str]:
    """Command lines in the ``sh`` blocks of a document, continuation lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.strip() and line[0] != "#"]


def check_document(path: Path) -> list[str]:
    """Everything wrong in one document."""
    text = path.read_text()
    wrong = []
    for line in list_commands(text):
        for part in re.split(r"\||&&|;", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue  # a quote that spans a pipe: not ours to judge
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words and (why := check_command(words)):
                wrong.append(f"{path.name}: `{line.strip()}`: {why}")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
        if "://" not in target and not (path.parent / target).exists():
            wrong.append(f"{path.name}: link to {target}: no such file")
    return wrong


def main() -> int:
    """Check the documents named on the command line."""
    paths = [Path(name) for name in sys.argv[1:]]
    wrong = [line for path in paths for line in check_document(path)]
    print("\n".join(wrong) or f"{len(paths)} documents: every command and link exists")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
