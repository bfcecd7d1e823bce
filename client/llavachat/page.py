"""A chat as one HTML page for people: nothing in it runs, and nothing is fetched for it.

Pure; knows no gRPC. Whatever was said is text: it is escaped where it is put in, and the page's
own policy forbids all but its one style and the pictures that it holds.

A chat is a tree. The page tells it along its branches: a stretch of turns without a fork is one
section, and where several go on from one turn, each begins a section that says from where.
"""

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from llavachat.transcript import describe_ending
from llavachat.types import ChatArchive, ChatRecord, ImageInfo, Turn

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --soft: #5c6470;
  --line: #d9dde3; --question: #eef3fb; --shift: 1.25rem; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --paper: #16181c; --soft: #9aa3af; --line: #363b44;
    --question: #202a3a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 2rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 .25rem; }
h2 { font-size: .95rem; margin: 2rem 0 0; color: var(--soft); font-weight: 600; }
header, footer, .facts, figcaption { color: var(--soft); font-size: .85rem; }
h1, .words { color: var(--ink); }
header { border-bottom: 1px solid var(--line); padding-bottom: 1rem; }
p { margin: .25rem 0; }
a { color: inherit; }
.words { white-space: pre-wrap; unicode-bidi: plaintext; font-size: 1rem; }
.who { font-weight: 600; font-size: .85rem; color: var(--soft); margin: 0; }
article { margin: 1.5rem 0; }
.question { background: var(--question); border-radius: .6rem; padding: .6rem .9rem; }
.answer { padding: .6rem .9rem 0; }
figure { margin: .5rem 0; }
img { display: block; max-width: 100%; height: auto; max-height: 26rem; border-radius: .3rem;
  border: 1px solid var(--line); background: #fff; }
.branch { border-left: 2px solid var(--line); padding-left: var(--shift); }
.level-2 { margin-left: var(--shift); }
.level-3 { margin-left: calc(2 * var(--shift)); }
.level-4 { margin-left: calc(3 * var(--shift)); }
@media print {
  :root { --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --question: #f2f2f2; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  .question, figure, h2 { break-inside: avoid; break-after: avoid; }
  img { max-height: 12cm; }
}
"""

_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Source: Content Security Policy, level 3; the style is let in by its hash."""

_MAX_LEVEL = 4
"""Deeper branches are not shifted further: a page has an end on the right."""

_UNSEEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What HTML does not allow in a text, not even as a reference."""


def write_page(archive: ChatArchive) -> str:
    """The chat as a whole HTML document, ending in a newline."""
    chat = archive.chat
    title = _escape(" ".join(chat.title.split())) or "Chat"
    numbers = {turn.id: number for number, turn in enumerate(chat.turns, start=1)}
    shown: set[str] = set()
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="generator" content="llavachat">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        *_write_head(chat, title),
    ]
    for stretch in _list_stretches(chat):
        level = f" branch level-{min(stretch.level, _MAX_LEVEL)}" if stretch.level else ""
        lines.append(f'<section class="stretch{level}">')
        if stretch.heading:
            lines.append(f"<h2>{stretch.heading}</h2>")
        for turn in stretch.turns:
            lines += _write_turn(turn, numbers[turn.id], archive, shown)
        lines.append("</section>")
    lines += ["</body>", "</html>"]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Turns that follow each other without a fork; `heading` is HTML."""

    turns: tuple[Turn, ...]
    level: int
    heading: str


def _list_stretches(chat: ChatRecord) -> Iterator[_Stretch]:
    """The tree along its branches. A long talk is a long branch: nothing here recurses."""
    numbers = {turn.id: number for number, turn in enumerate(chat.turns, start=1)}
    children: dict[str | None, list[Turn]] = defaultdict(list)
    for turn in chat.turns:
        # A parent that is not there, or comes later, is none.
        parent = turn.parent_turn_id
        known = parent is not None and numbers.get(parent, len(numbers) + 1) < numbers[turn.id]
        children[parent if known else None].append(turn)
    waiting = _fork(None, children[None], 0, numbers)
    while waiting:
        first, level, heading = waiting.pop()
        turns = [first]
        while len(children[turns[-1].id]) == 1:
            turns.append(children[turns[-1].id][0])
        yield _Stretch(tuple(turns), level, heading)
        parent = turns[-1].id
        waiting += _fork(parent, children[parent], level + 1, numbers)


def _fork(
    parent: str | None, turns: list[Turn], level: int, numbers: dict[str, int]
) -> list[tuple[Turn, int, str]]:
    """The beginnings of branches, the first one last."""
    total = len(turns)
    begun = []
    for index, turn in enumerate(turns, start=1):
        if parent is None:
            heading = f"Beginning {index} of {total}" if total > 1 else ""
        else:
            number = numbers[parent]
            link = f'<a href="#turn-{number}">turn {number}</a>'
            heading = f"From {link}: branch {index} of {total}"
        begun.append((turn, level, heading))
    return begun[::-1]


def _write_head(chat: ChatRecord, title: str) -> list[str]:
    facts = [f"Chat {_escape(chat.id)}"] if chat.id else []
    if chat.create_time:
        facts.append(f"{chat.create_time:%Y-%m-%d %H:%M} UTC")
    facts.append(f"{len(chat.turns)} turn{'' if len(chat.turns) == 1 else 's'}")
    facts += [f"{_escape(name)}={_escape(value)}" for name, value in sorted(chat.labels.items())]
    lines = ["<header>", f'<h1 dir="auto">{title}</h1>', f"<p>{' · '.join(facts)}</p>"]
    if chat.system_prompt is not None:
        told = _words(chat.system_prompt) if chat.system_prompt else "<p>(none)</p>"
        lines += ['<p class="who">System prompt</p>', told]
    return [*lines, "</header>"]


def _write_turn(turn: Turn, number: int, archive: ChatArchive, shown: set[str]) -> list[str]:
    name = " ".join((turn.model.name or turn.model.profile or "llavachat").split())
    lines = [f'<article id="turn-{number}">', '<div class="question">', '<p class="who">You</p>']
    for image in turn.images:
        lines.append(_write_picture(image, archive.pictures.get(image.id), shown))
    lines += [
        _words(turn.prompt),
        "</div>",
        '<div class="answer">',
        f'<p class="who">{_escape(name)}</p>',
        _words(turn.answer) if turn.answer else '<p class="facts">(nothing)</p>',
    ]
    if ending := describe_ending(turn):
        lines.append(f'<p class="facts">({ending})</p>')
    lines.append(f'<p class="facts">{" · ".join(_list_facts(turn, number))}</p>')
    return [*lines, "</div>", "</article>"]


def _list_facts(turn: Turn, number: int) -> Iterator[str]:
    yield f"Turn {number}"
    if turn.imported:
        yield "imported"
    if turn.create_time:
        yield f"{turn.create_time:%Y-%m-%d %H:%M} UTC"
    if turn.usage:
        yield f"{turn.usage.prompt_tokens} tokens asked, {turn.usage.completion_tokens} answered"
    if turn.timings:
        yield f"{turn.timings.first_token_seconds + turn.timings.decode_seconds:.2f} s"
    if turn.params.temperature is not None:
        yield f"temperature {turn.params.temperature:g}"
        if turn.params.temperature > 0 and turn.params.seed is not None:
            yield f"seed {turn.params.seed}"


def _write_picture(image: ImageInfo, data: bytes | None, shown: set[str]) -> str:
    """The picture, or where it was shown before."""
    size = f"{image.width_pixels} x {image.height_pixels} pixels"
    if image.num_frames > 1:
        size += f", the first of {image.num_frames:,} frames"
    mark = hashlib.sha256(image.id.encode("utf-8", "replace")).hexdigest()[:16]
    if data is None:
        return f"<figure><figcaption>Picture, {size}</figcaption></figure>"
    if mark in shown:
        link = f'<a href="#picture-{mark}">the same picture</a>'
        return f"<figure><figcaption>{link}, {size}</figcaption></figure>"
    shown.add(mark)
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure id="picture-{mark}"><img alt="Picture, {size}" src="{source}">'
        f"<figcaption>{size}</figcaption></figure>"
    )


def _words(text: str) -> str:
    return f'<p class="words" dir="auto">{_escape(text)}</p>'


def _escape(text: str) -> str:
    return escape(_UNSEEN.sub("\ufffd", text))
