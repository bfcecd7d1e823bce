"""Checks that what the documents tell people to type exists, and that their links lead somewhere.

Read are fenced blocks (``sh``, ``console``, unnamed) and code within the prose. Of each command:
make's targets, the verbs and flags of our two programs by their own help, modules after
``python -m`` and the flags that their text has, files of pip's ``-c`` and ``-r``, and whatever
begins with a folder of this repository. Of each relative link: its file, and the heading that it
names. Other people's programs are theirs to check.
"""

import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
MODULE_FOLDERS = ("", "client", "server", "cdk", "cdk/assets", "tests")
SERVER_VERBS = {"serve": 1, "audit": 2, "certs": 2, "keys": 2, "store": 2}
"""By how many words each is a command. Its help answers to any verb, so they stand here."""

FENCED = re.compile(r"^[ \t]*```(\w*)[^\n]*\n(.*?)^[ \t]*```", re.M | re.S)
INLINE = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)", re.S)
LINK = re.compile(r"""\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)="([^"]+)\"""", re.M)
FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


@cache
def read_help(*command: str) -> str:
    """What a program says about itself; empty where it refuses the verb."""
    done = subprocess.run(  # noqa: S603 - our own programs, with words from our own documents
        [str(BIN / command[0]), *command[1:], "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"},
        check=False,
    )
    return done.stdout if done.returncode == 0 else ""


def find_module(name: str) -> list[Path] | None:
    """The files of a module of ours; none of somebody else's; None where there is no such one."""
    for folder in MODULE_FOLDERS:
        place = (ROOT / folder).joinpath(*name.split("."))
        if place.with_suffix(".py").is_file():
            return [place.with_suffix(".py")]
        if (place / "__main__.py").is_file():
            return sorted(place.rglob("*.py"))
    try:
        return [] if importlib.util.find_spec(name) else None
    except ModuleNotFoundError:
        return None


def name_unknown_flag(words: list[str], text: str) -> str | None:
    """The first flag, as a whole word, that a program's text does not have."""
    known = set(FLAG.findall(text))
    flags = [word.split("=")[0] for word in words if FLAG.match(word)]
    return next((f"no flag {flag}" for flag in flags if flag not in known), None)


def check_program(program: str, rest: list[str]) -> str | None:
    """Why a verb or a flag of one of our two programs cannot be right, or None."""
    is_server = program == "llavachat-server"
    num_words = SERVER_VERBS.get(rest[0], 1) if is_server and rest else 1
    verbs = [word for word in rest[:num_words] if not word.startswith("-")]
    is_known = not is_server or not verbs or verbs[0] in SERVER_VERBS
    if not is_known or not (text := read_help(program, *verbs)):
        return f"`{' '.join([program, *verbs])}` is not a command"
    if verbs == ["serve"]:
        text += read_help("llavachat-server")
    return name_unknown_flag(rest, text)


def check_make(words: list[str]) -> str | None:
    """Why the Makefile cannot do this, or None."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    unknown = [word for word in words if "=" not in word and word not in targets]
    return f"no make target {unknown[0]!r}" if unknown else None


def check_module(words: list[str]) -> str | None:
    """Why ``python -m`` cannot run this, or None."""
    if (files := find_module(words[0])) is None:
        return f"no module {words[0]}"
    # The text rather than the help: most of them import torch before they would tell.
    text = "\n".join(file.read_text() for file in files)
    return name_unknown_flag(words[1:], text) if files else None


def check_files(words: list[str]) -> str | None:
    """Which file of this repository is not there, or None."""
    folders = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    is_pip = "pip" in [Path(word).name for word in words[:3]]
    for before, word in itertools.pairwise(["", *words]):
        named = word.split("::")[0]
        is_ours = named.split("/")[0] in folders and "/" in named
        if (is_ours or (is_pip and before in ("-c", "-r"))) and not any(ROOT.glob(named)):
            return f"no file {named}"
    return None


def check_command(words: list[str]) -> str | None:
    """Why a command line cannot be right, or None."""
    program, rest = Path(words[0]).name, words[1:]
    if program in ("llavachat", "llavachat-server"):
        return check_program(program, rest)
    if program == "make":
        return check_make(rest)
    runs_module = re.fullmatch(r"python[\d.]*", program) and rest[:1] == ["-m"] and rest[1:]
    return (check_module(rest[1:]) if runs_module else None) or check_files(words)


def split_line(line: str) -> Iterator[list[str]]:
    """The commands of a line, without what is set before them.

    Raises:
        ValueError: a quote is not closed.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(lexer.punctuation_chars):
            if words:
                yield words
            words = []
        elif words or not re.fullmatch(r"\w+=.*", word):
            words.append(word)


def list_lines(text: str) -> Iterator[str]:
    """Command lines of a document's blocks, continuation lines joined."""
    for name, block in FENCED.findall(text):
        if name not in ("", "bash", "console", "sh", "shell"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            # In a session what is typed follows a prompt, and the rest is what was answered.
            if name != "console" or line.lstrip().startswith("$ "):
                yield line.strip().removeprefix("$ ")


def check_line(line: str) -> str | None:
    """Why a line cannot be right, or None."""
    try:
        return next((why for words in split_line(line) if (why := check_command(words))), None)
    except ValueError as error:
        return str(error)


@cache
def list_anchors(path: Path) -> set[str]:
    """What a document's headings are called in links, by GitHub's rule."""
    text = FENCED.sub("", path.read_text())
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        names = [anchor, *(f"{anchor}-{number}" for number in range(1, 100))]
        anchors.add(next(name for name in names if name not in anchors))
    return anchors | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def check_link(path: Path, link: str) -> str | None:
    """Why a link leads nowhere, or None; other people's pages are not asked."""
    target, _, anchor = link.partition("#")
    if re.match(r"[a-z]+:", target):
        return None
    file = path.parent / target if target else path
    if not file.exists():
        return "no such file"
    if anchor and file.suffix == ".md" and anchor not in list_anchors(file):
        return "no such heading"
    return None


def check_document(path: Path) -> list[str]:
    """Everything wrong in one document."""
    text = path.read_text()
    prose = FENCED.sub("", text)
    # The prose quotes much that is no command, so a lone apostrophe there says nothing.
    inline = [" ".join(code.split()) for _, code in INLINE.findall(prose)]
    lines = [*list_lines(text), *(code for code in inline if code.count("'") != 1)]
    wrong = [f"{path.name}: `{line}`: {why}" for line in lines if (why := check_line(line))]
    for found in LINK.findall(INLINE.sub("", prose)):
        link = "".join(found)
        if why := check_link(path, link):
            wrong.append(f"{path.name}: link to {link}: {why}")
    return wrong


def main() -> int:
    """Check the documents named on the command line."""
    paths = [Path(name) for name in sys.argv[1:]]
    wrong = [line for path in paths for line in check_document(path)]
    print("\n".join(wrong) or f"{len(paths)} documents: every command and link exists")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
