"""Boxes and arrows on a page of SVG, readable on light and on dark ground."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
svg { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
.page { fill: #ffffff; } text { fill: #1f2328; } .quiet { fill: #59636e; font-size: 12px; }
.title { font-weight: 600; } .box { fill: #f6f8fa; stroke: #818b98; }
.machine { fill: #ddf4ff; stroke: #0969da; } .zone { fill: none; stroke: #818b98; }
.subnet { fill: none; stroke: #818b98; stroke-dasharray: 5 4; }
.arrow { fill: none; stroke: #59636e; stroke-width: 1.3; marker-end: url(#head); }
.head { fill: #59636e; } .label { fill: #59636e; font-size: 11px; }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; } text { fill: #f0f6fc; } .quiet, .label { fill: #9198a1; }
.box { fill: #151b23; stroke: #656c76; } .machine { fill: #0c2d6b; stroke: #4493f8; }
.zone, .subnet { stroke: #656c76; } .arrow { stroke: #9198a1; } .head { fill: #9198a1; } }
"""


LINE = 17
"""Height of a line of text, in pixels."""


@dataclass(frozen=True)
class Box:
    """A box on the page.

    Attributes:
        left: of its upper left corner, in pixels, as are the others.
        lines: of text; the first is its name.
        style: a class of `STYLE`.
        height: as high as its lines ask for, if not given.
    """

    left: int
    top: int
    width: int
    lines: Sequence[str]
    style: str = "box"
    height: int = 0

    def draw(self) -> str:
        """The box as SVG."""
        height = self.height or 26 + LINE * len(self.lines)
        place = f'x="{self.left}" y="{self.top}" width="{self.width}" height="{height}"'
        parts = [f'<rect class="{self.style}" {place} rx="6"/>']
        for number, line in enumerate(self.lines):
            kind = "quiet" if number else "title"
            place = f'x="{self.left + 12}" y="{self.top + 20 + LINE * number}"'
            parts.append(f'<text class="{kind}" {place}>{escape(line)}</text>')
        return "\n".join(parts)


def draw_arrow(*points: tuple[int, int], label: str = "", at: tuple[int, int] = (0, 0)) -> str:
    """A line through points with a head at its end, and its label at a place."""
    path = "M" + " L".join(f"{left},{top}" for left, top in points)
    text = f'<text class="label" x="{at[0]}" y="{at[1]}">{escape(label)}</text>' if label else ""
    return f'<path class="arrow" d="{path}"/>{text}'


def draw_page(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    """The whole picture."""
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path class="head" d="M0,0 L8,4 L0,8 z"/></marker></defs>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{escape(label)}">',
            f"<style>{STYLE}</style>",
            head,
            f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
            *parts,
            "</svg>\n",
        ]
    )


def wrap(words: list[str], width: int) -> list[str]:
    """Words in lines, divided by commas."""
    lines = [""]
    for number, word in enumerate(words):
        piece = word + ("," if number < len(words) - 1 else "")
        if len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {piece}".strip()
    return lines
