"""A run's tables, from its JSON alone."""

from collections.abc import Sequence
from typing import Any

from bench.gpu.sizes import SIZES
from bench.served.figures import compare, median, summarise
from bench.served.rows import Row, make_rows

ENGINE, GENERATE = "engine", "generate"


def list_rows(chats: Sequence[int]) -> dict[str, Row]:
    """What is measured here, in the order of the tables."""
    rows = {name: row for name, row in make_rows(chats).items() if name not in _LEFT_OUT}
    return {
        **rows,
        "memory": Row("GPU memory, the cache in it", "MB"),
        "loading": Row("loading", "s"),
    }


_LEFT_OUT = ("long", "memory", "start")


def write_report(run: dict[str, Any]) -> str:
    """The tables as Markdown, one for each size and form.

    Args:
        run: what `bench.gpu` writes.
    """
    device = run["device"]
    name = device.get("gpu", device.get("processor"))
    parts = [
        f"{run['date']}, {name}, torch {device['torch']}; rounds: {run['num_rounds']}. Greedy, "
        f"{run['answer_tokens']} new tokens, random weights. Memory was read at "
        f"{run['bandwidth']:,.0f} GB/s."
    ]
    parts += [_write_table(run, key) for key in run["models"]]
    parts += [
        f"{name} was left out: {_quote(why)}" for name, why in run.get("left_out", {}).items()
    ]
    return "\n\n".join(parts)


def _write_table(run: dict[str, Any], key: str) -> str:
    size, form = key.split("/")
    model = run["models"][key]
    told = [found["told"] for found in model.get(ENGINE, []) if "told" in found]
    troubles = list(dict.fromkeys(each for one in told for each in one.get("troubles", [])))
    ours = "llavachat, impaired" if troubles else "llavachat"
    lines = [
        f"| {size}, {form} | {ours} | generate() | better by | of the limit |",
        "|---|---|---|---|---|",
    ]
    for name, row in list_rows(run["chats"]).items():
        own, theirs = _collect(model, ENGINE, name), _collect(model, GENERATE, name)
        if name.startswith("total_") and not any(theirs):
            # One chat at a time: its rate does not depend on how many wait.
            theirs = _collect(model, GENERATE, "total_1")
        ratio = compare(own, theirs, is_rate=row.is_rate)
        better = f"{ratio.median:.2f}x" if ratio and name != "memory" else "-"
        cells = [_write(own), _write(theirs), better, _share(run, size, form, name, own)]
        if any(own) or any(theirs):
            lines.append(f"| {row.title}, {row.unit} | {' | '.join(cells)} |")
    failures = [f"\nllavachat was not at its best: {trouble}" for trouble in troubles]
    failures += [
        f"\n{contender} failed: {_quote(found['failed'])}"
        for contender, rounds in model.items()
        for found in rounds
        if "failed" in found
    ]
    equal = _count_equal(model)
    if equal[1]:
        failures.append(f"\n{equal[0]} of {equal[1]} answers word for word generate()'s.")
    facts = [f"\nThe engine says: {_describe(one)}." for one in told[:1]]
    return "\n".join([*lines, *failures, *facts, *_list_versions(model)])


def _describe(told: dict[str, Any]) -> str:
    words = told.get("steps", {}).get("words")
    return f"{told['device']}; {words}" if words else str(told["device"])


def _list_versions(model: dict[str, Any]) -> list[str]:
    found = [one["versions"] for rounds in model.values() for one in rounds if "versions" in one]
    return [f"\n{', '.join(f'{n} {v}' for n, v in found[0].items())}."] if found else []


def _quote(why: str) -> str:
    """A reason's first line, and what was said last, set off, where there is more."""
    first, *rest = why.splitlines()
    return "\n".join([first, *(["", *(f"    {line}" for line in rest)] if rest else [])])


def _collect(model: dict[str, Any], contender: str, name: str) -> list[float | None]:
    return [found.get("figures", {}).get(name) for found in model.get(contender, [])]


def _write(figures: Sequence[float | None]) -> str:
    found = [figure for figure in figures if figure is not None]
    if not found:
        return "-"
    spread = summarise(found)
    digits = 0 if spread.median >= 100 else 1
    texts = [f"{figure:,.{digits}f}" for figure in (spread.median, spread.low, spread.high)]
    return texts[0] if len(found) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"


def _share(
    run: dict[str, Any], size: str, form: str, name: str, ours: Sequence[float | None]
) -> str:
    num_chats = 1 if name == "single" else int(name[6:]) if name.startswith("total_") else 0
    found = [figure for figure in ours if figure]
    if not num_chats or not found:
        return "-"
    limit = SIZES[size].find_limit(form, run["bandwidth"], num_chats)
    return f"{100 * median(found) / limit:.0f} % of {limit:,.0f}"


def _count_equal(model: dict[str, Any]) -> tuple[int, int]:
    pairs = [
        (one, other)
        for ours, theirs in zip(model.get(ENGINE, []), model.get(GENERATE, []), strict=False)
        for one, other in zip(ours.get("answers", []), theirs.get("answers", []), strict=False)
    ]
    return sum(one == other for one, other in pairs), len(pairs)
