"""Puts a run into the documents: its JSON and charts, and tables between marks in the text."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from bench.served.figures import summarise
from bench.served.report import (
    describe_run,
    present,
    titles,
    values,
    write_number,
    write_report,
    write_table,
)
from bench.served.rows import make_rows
from bench.served.run import draw_charts

README_ROWS = ("single", "total_16", "picture", "follow_up", "start", "memory")


def publish(run: Path, root: Path) -> None:
    """Write the run's figures into README.md and docs/performance.md.

    Args:
        run: the JSON file of a run.
        root: of the repository.

    Raises:
        ValueError: a document has no marks to write between.
    """
    report = json.loads(run.read_text())
    docs = root / "docs"
    shutil.copyfile(run, docs / "benchmark.json")
    draw_charts(docs / "benchmark.json", docs)
    charts = (
        "![Tokens a second and pauses over the number of chats](benchmark-chats.png)\n\n"
        "![First tokens, start and memory of each contender](benchmark-waiting.png)"
    )
    put(docs / "performance.md", f"{charts}\n\n{write_report(report)}")
    put(root / "README.md", write_summary(report))


def put(path: Path, content: str) -> None:
    """Replace what a document has between the marks."""
    path.write_text(replace_between_marks(path.read_text(), content))


def replace_between_marks(text: str, content: str) -> str:
    """A document with `content` between ``<!-- benchmark -->`` and ``<!-- /benchmark -->``.

    Raises:
        ValueError: it has no marks.
    """
    start, end = "<!-- benchmark -->", "<!-- /benchmark -->"
    pattern = re.compile(f"{re.escape(start)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the document has no {start} with a {end} after it")
    return pattern.sub(lambda _: f"{start}\n{content}\n{end}", text)


def write_summary(report: dict[str, Any]) -> str:
    """The short table: a line for each contender, medians alone."""
    rows = make_rows(report["scale"]["chats"])
    keys = [key for key in README_ROWS if key in rows]
    lines = []
    for name in present(report):
        cells = []
        for key in keys:
            found = values(report, name, key)
            cells.append(write_number(summarise(found).median) if found else "-")
        lines.append([*titles([name]), *cells])
    header = ["median", *(f"{rows[key].title}, {rows[key].unit}" for key in keys)]
    missing = [title for title in titles(report["absent"]) if title]
    note = f"\n\nWithout figures: {', '.join(missing)}." if missing else ""
    return f"{write_table(header, lines)}\n\n{describe_run(report)}{note}"
