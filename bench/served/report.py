"""The tables of a run, as Markdown, from its JSON alone."""

from collections.abc import Iterable, Sequence
from typing import Any

from bench.served.figures import summarise
from bench.served.goals import OURS, Verdict, collect, find_ratio, judge, write_spread
from bench.served.limits import describe_limits
from bench.served.rows import Row, make_rows
from bench.served.titles import TITLES


def write_report(report: dict[str, Any]) -> str:
    """Everything of a run: what it ran on, figures, ratios, goals, limits, and who is missing."""
    parts = [
        describe_run(report),
        write_figures(report),
        write_ratios(report),
        write_goals(judge(report)),
        describe_limits(report),
        describe_answers(report),
        describe_absent(report),
        describe_versions(report),
    ]
    return "\n\n".join(part for part in parts if part)


def describe_run(report: dict[str, Any]) -> str:
    """Date, machine, size, and how busy it was."""
    machine, rounds = report["machine"], report["rounds"]
    loads = [entry["load"] for entry in rounds]
    sets = ", ".join(machine["instruction_sets"])
    return (
        f"{report['date']}, {machine['cores']} cores of {machine['processor']} ({sets}), "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}; "
        f"rounds: {len(rounds)}, in {report.get('seconds', 0) / 60:.0f} minutes; the load "
        f"when they began: {', '.join(f'{load:.1f}' for load in loads)}. float32, greedy, "
        f"{report['scale']['answer_tokens']} new tokens."
    )


def write_figures(report: dict[str, Any]) -> str:
    """Medians, and from where to where the rounds went."""
    rows = make_rows(report["scale"]["chats"])
    return write_table(
        ["median (least to greatest)", *(titles(present(report)))],
        (
            [
                f"{row.title}, {row.unit}",
                *(write_figure(values(report, name, key)) for name in present(report)),
            ]
            for key, row in rows.items()
        ),
    )


def write_ratios(report: dict[str, Any]) -> str:
    """How many times better ours is than each, row by row."""
    others = [name for name in present(report) if name != OURS]
    if OURS not in present(report) or not others:
        return ""
    rows = make_rows(report["scale"]["chats"])
    return write_table(
        ["llavachat is better by", *titles(others)],
        (
            [row.title, *(write_ratio(report, name, key, row) for name in others)]
            for key, row in rows.items()
        ),
    )


def write_goals(verdicts: Sequence[Verdict]) -> str:
    """Each goal beside its figure."""
    marks = {True: "yes", False: "**no**", None: "-"}
    return write_table(
        ["goal", "figure", "met"],
        ([verdict.goal, verdict.figures, marks[verdict.is_met]] for verdict in verdicts),
    )


def describe_answers(report: dict[str, Any]) -> str:
    """Whether all did the same work: lengths of prompts, and the words that came."""
    lines = []
    for name in present(report):
        same = total = 0
        counts: dict[str, set[int]] = {}
        for entry in report["rounds"]:
            theirs = entry["contenders"].get(name, {})
            ours = entry["contenders"].get(OURS, {}).get("answers", [])
            pairs = list(zip(ours, theirs.get("answers", []), strict=False))
            total += len(pairs)
            same += sum(one == other for one, other in pairs)
            for key, count in theirs.get("prompt_tokens", {}).items():
                counts.setdefault(key, set()).add(count)
        prompts = "; ".join(
            f"{key.replace('_', '-')} prompts of {write_range(found)} tokens"
            for key, found in counts.items()
        )
        words = f"{same} of {total} answers word for word as llavachat's" if total else ""
        lines.append(f"- {TITLES[name]}: {'; '.join(part for part in (prompts, words) if part)}")
    return "Equal work:\n\n" + "\n".join(lines) if lines else ""


def describe_absent(report: dict[str, Any]) -> str:
    """Who could not take part or failed in a round, and why."""
    lines = [f"- {TITLES[name]}: {reason}" for name, reason in report["absent"].items()]
    for number, entry in enumerate(report["rounds"], 1):
        lines += [
            f"- {TITLES[name]}, round {number}: {result['failed']}"
            for name, result in entry["contenders"].items()
            if "failed" in result
        ]
    return "Without figures:\n\n" + "\n".join(lines) if lines else ""


def describe_versions(report: dict[str, Any]) -> str:
    """What was measured."""
    lines = [
        f"- {TITLES[name]}: {', '.join(f'{package} {number}' for package, number in found.items())}"
        for name, found in report["versions"].items()
    ]
    return "Versions:\n\n" + "\n".join(lines) if lines else ""


def present(report: dict[str, Any]) -> list[str]:
    """Served contenders with at least one figure, in the order of the tables."""
    found = {
        name
        for entry in report["rounds"]
        for name, result in entry["contenders"].items()
        if "start" in result.get("figures", {})
    }
    return [name for name in TITLES if name in found]


def titles(names: Iterable[str]) -> list[str]:
    """What they are called in tables."""
    return [TITLES[name] for name in names]


def values(report: dict[str, Any], name: str, key: str) -> list[float]:
    """A figure of all rounds that have it."""
    return [value for value in collect(report, name, key) if value is not None]


def write_figure(found: Sequence[float]) -> str:
    """A cell of the table of figures."""
    if not found:
        return "-"
    spread = summarise(found)
    if spread.low == spread.high:
        return write_number(spread.median)
    low, high = write_number(spread.low), write_number(spread.high)
    return f"{write_number(spread.median)} ({low} to {high})"


def write_ratio(report: dict[str, Any], name: str, key: str, row: Row) -> str:
    """A cell of the table of ratios; under 1 the other one is better."""
    spread = find_ratio(report, name, key, row)
    return "-" if spread is None else write_spread(spread, "x")


def write_number(value: float) -> str:
    """Three digits are what such figures are good for."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def write_range(numbers: set[int]) -> str:
    """One number, or from where to where."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)
