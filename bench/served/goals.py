"""What the project set itself, and whether a run shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.served.figures import Spread, compare, summarise
from bench.served.rows import Row, make_rows
from bench.served.titles import TITLES

OURS, ENGINE = "ours", "engine"
TUTORIAL, SERVE = "tutorial", "transformers-serve"
STRONG_PEERS = ("vllm", "openvino", "openvino-batching", "llama-cpp")
AHEAD_ROWS = ("follow_up", "start")
MAX_LAYER_PERCENT = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal beside its figures. `is_met`: None where the run has none for it."""

    goal: str
    figures: str
    is_met: bool | None


def judge(report: Mapping[str, Any]) -> list[Verdict]:
    """All goals, in the order in which they were set.

    Args:
        report: a run.
    """
    rows = make_rows(report["scale"]["chats"])
    verdicts = [judge_ratio(report, "total_16", 8.0), judge_ratio(report, "follow_up", 12.0)]
    verdicts.append(judge_rows(report, SERVE, rows, ahead=tuple(rows)))
    verdicts += [judge_rows(report, name, rows, ahead=AHEAD_ROWS) for name in STRONG_PEERS]
    verdicts += [
        judge_layer(report, rows, key) for key in ("single", *rows) if key.startswith("total_")
    ]
    return verdicts


def judge_ratio(report: Mapping[str, Any], key: str, at_least: float) -> Verdict:
    """Times better than the tutorial's way in one row."""
    row = make_rows((16,))[key]
    goal = f"{row.title}: at least {at_least:g} times {TITLES[TUTORIAL]}"
    spread = find_ratio(report, TUTORIAL, key, row)
    if spread is None:
        return Verdict(goal, "none in this run", None)
    return Verdict(goal, write_spread(spread, "x"), spread.median >= at_least)


def judge_rows(
    report: Mapping[str, Any], name: str, rows: Mapping[str, Row], ahead: Sequence[str]
) -> Verdict:
    """Level with a contender in every row, and ahead of it in some."""
    where = "every row" if len(ahead) == len(rows) else " and ".join(rows[k].title for k in ahead)
    goal = f"{TITLES[name]}: ahead in {where}"
    if len(ahead) < len(rows):
        goal += ", at least level in all others"
    found, missed = 0, []
    for key, row in rows.items():
        spread = find_ratio(report, name, key, row)
        if spread is None:
            continue
        found += 1
        if spread.median < 1 or (key in ahead and spread.median == 1):
            missed.append(f"{row.title} {write_spread(spread, 'x')}")
    if not found:
        return Verdict(goal, "none in this run", None)
    if not missed:
        return Verdict(goal, f"all {found} rows", True)
    return Verdict(goal, f"{found - len(missed)} of {found} rows; not {'; '.join(missed)}", False)


def judge_layer(report: Mapping[str, Any], rows: Mapping[str, Row], key: str) -> Verdict:
    """What a served rate is below the engine's own, as a share of it."""
    goal = f"gRPC layer, {rows[key].title}: at most {MAX_LAYER_PERCENT:g} %"
    served, own = collect(report, OURS, key), collect(report, ENGINE, key)
    shares = [100 * (1 - a / b) for a, b in zip(served, own, strict=True) if a and b]
    if not shares:
        return Verdict(goal, "none in this run", None)
    spread = summarise(shares)
    return Verdict(goal, write_spread(spread, " %"), spread.median <= MAX_LAYER_PERCENT)


def find_ratio(report: Mapping[str, Any], name: str, key: str, row: Row) -> Spread | None:
    """How many times better ours is than a contender; None where the run can not say."""
    ours, theirs = collect(report, OURS, key), collect(report, name, key)
    return compare(ours, theirs, is_rate=row.is_rate)


def collect(report: Mapping[str, Any], name: str, key: str) -> list[float | None]:
    """A figure of every round; None where a contender has none."""
    return [
        entry["contenders"].get(name, {}).get("figures", {}).get(key) for entry in report["rounds"]
    ]


def write_spread(spread: Spread, unit: str) -> str:
    """A median, and from where to where where the rounds differ."""
    digits = 2 if unit == "x" else 1
    text = f"{spread.median:.{digits}f}{unit}"
    if spread.low == spread.high:
        return text
    return f"{text} ({spread.low:.{digits}f} to {spread.high:.{digits}f})"
