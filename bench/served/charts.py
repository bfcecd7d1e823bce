"""Draws a run: what many chats get, and what one waits for.

    python -m bench.served.charts RUN.json FOLDER

Needs matplotlib, and runs in an environment of its own; `python -m bench.served charts` makes it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.served.figures import Spread, summarise
from bench.served.goals import OURS, collect
from bench.served.report import present
from bench.served.rows import make_rows
from bench.served.titles import TITLES

COLOURS = {
    "ours": "#0b6e4f",
    "tutorial": "#9e9e9e",
    "transformers-serve": "#5c5c5c",
    "vllm": "#d17a00",
    "openvino": "#6ea8dc",
    "openvino-batching": "#1f5fa8",
    "llama-cpp": "#a23b72",
}
BARS = ("picture", "follow_up", "start", "memory")
INK, GRID = "#222222", "#dddddd"


def main(run: Path, folder: Path) -> None:
    """Write both charts."""
    report = json.loads(run.read_text())
    plt.rcParams.update({"font.size": 9, "text.color": INK, "axes.edgecolor": GRID})
    save(draw_chats(report), folder / "benchmark-chats.png", report)
    save(draw_bars(report), folder / "benchmark-waiting.png", report)


def draw_chats(report: dict[str, Any]) -> Any:
    """Tokens a second of all, and the pauses, over the number of chats."""
    chats = report["scale"]["chats"]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4))
    panels[0].set_title("All chats together, tokens a second (more is better)", loc="left")
    panels[1].set_title("99th percentile of pauses, ms (less is better)", loc="left")
    panels[1].set_yscale("log")
    for panel, group in zip(panels, ("total", "gap"), strict=True):
        for name in present(report):
            points = [(n, find(report, name, f"{group}_{n}")) for n in chats]
            points = [(n, spread) for n, spread in points if spread is not None]
            numbers = [n for n, _ in points]
            panel.plot(
                numbers,
                [spread.median for _, spread in points],
                color=COLOURS[name],
                linewidth=2.6 if name == OURS else 1.4,
                marker="o",
                markersize=4,
                label=TITLES[name],
                zorder=3 if name == OURS else 2,
            )
            panel.fill_between(
                numbers,
                [spread.low for _, spread in points],
                [spread.high for _, spread in points],
                color=COLOURS[name],
                alpha=0.12,
                linewidth=0,
            )
        panel.set_xlabel("chats side by side")
        panel.set_xscale("log", base=2)
        panel.set_xticks(chats, [str(n) for n in chats])
        panel.grid(color=GRID, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.04), ncols=4, frameon=False
    )
    figure.tight_layout(rect=(0, 0.15, 1, 1))
    return figure


def draw_bars(report: dict[str, Any]) -> Any:
    """What one chat waits for, and what a server takes; a panel each."""
    rows, names = make_rows(report["scale"]["chats"]), present(report)[::-1]
    figure, panels = plt.subplots(1, len(BARS), figsize=(10, 3.4), sharey=True)
    for panel, key in zip(panels, BARS, strict=True):
        for height, name in enumerate(names):
            spread = find(report, name, key)
            if spread is None:
                continue
            panel.barh(height, spread.median, color=COLOURS[name], height=0.62)
            panel.plot([spread.low, spread.high], [height, height], color=INK, linewidth=1)
            text = f"{spread.median:,.1f}" if spread.median < 10 else f"{spread.median:,.0f}"
            panel.annotate(
                text,
                (max(spread.high, spread.median), height),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        panel.set_title(f"{rows[key].title}, {rows[key].unit}", loc="left", fontsize=8)
        panel.margins(x=0.28)
        panel.set_xlim(left=0)
        panel.set_xticks([])
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), [TITLES[name] for name in names])
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


def find(report: dict[str, Any], name: str, key: str) -> Spread | None:
    """A figure over the rounds that have it."""
    found = [value for value in collect(report, name, key) if value is not None]
    return summarise(found) if found else None


def save(figure: Any, path: Path, report: dict[str, Any]) -> None:
    """Write a chart with what it ran on below it."""
    machine = report["machine"]
    figure.text(
        0.01,
        0.01,
        f"{report['date']}, {machine['cores']} cores of {machine['processor']}, float32; medians "
        f"of {len(report['rounds'])} rounds, with the least and the greatest",
        fontsize=7,
        color="#666666",
    )
    figure.savefig(path, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
