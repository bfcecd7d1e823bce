"""The comparison's arithmetic: percentiles, ratios, goals, limits and tables."""

from typing import Any

import pytest

from bench.layer import write_table
from bench.served.figures import Spread, compare, percentile
from bench.served.goals import judge
from bench.served.limits import find_limit
from bench.served.publish import replace_between_marks, write_summary
from bench.served.report import write_report
from bench.served.rows import make_rows


def make_report(*rounds: dict[str, dict[str, float]], absent: str = "") -> dict[str, Any]:
    """A run of the chats 1 and 16 with these figures."""
    return {
        "date": "2026-01-02",
        "machine": {
            "processor": "P",
            "cores": 2,
            "instruction_sets": ["avx2"],
            "memory_gb": 1.0,
            "system": "Linux 6",
            "python": "3.11",
        },
        "scale": {"chats": [1, 16], "answer_tokens": 64},
        "versions": {},
        "absent": {"vllm": absent} if absent else {},
        "rounds": [
            {"load": 0.5, "contenders": {name: {"figures": f} for name, f in found.items()}}
            for found in rounds
        ],
    }


@pytest.mark.parametrize(("percent", "expected"), [(1, 1.0), (50, 2.0), (75, 3.0), (99, 4.0)])
def test_percentile_is_a_value_that_was_seen(percent: float, expected: float) -> None:
    """By nearest rank: no value is made up between two."""
    assert expected == percentile([4.0, 1.0, 3.0, 2.0], percent)


def test_ratios_are_taken_round_by_round() -> None:
    """A round without one of the two does not count, and less is better but for rates."""
    assert Spread(2.0, 2.0, 2.0) == compare([10.0, None, 7.0], [5.0, 1.0, None], is_rate=True)
    assert Spread(2.0, 1.0, 3.0) == compare([1.0, 1.0, 1.0], [1.0, 3.0, 2.0], is_rate=False)
    assert compare([None], [1.0], is_rate=True) is None


def test_goals_name_the_rows_that_miss_them() -> None:
    """Met, missed with the row and its ratio, and without figures are three things."""
    report = make_report(
        {
            "ours": {"total_16": 90.0, "follow_up": 20.0, "total_1": 40.0, "start": 2.0},
            "tutorial": {"total_16": 10.0, "follow_up": 100.0},
            "llama-cpp": {"total_16": 100.0, "follow_up": 30.0, "start": 2.0},
            "engine": {"total_1": 50.0, "total_16": 92.0},
        }
    )
    verdicts = {verdict.goal: verdict for verdict in judge(report)}
    by_start = {goal[:20]: verdict for goal, verdict in verdicts.items()}
    assert by_start["16 chats, all: at le"].is_met is True
    assert by_start["follow-up on 800, fi"].is_met is False
    llama = by_start["llama.cpp server: ah"]
    missed = "1 of 3 rows; not 16 chats, all 0.90x; start to first answer 1.00x"
    assert (False, missed) == (llama.is_met, llama.figures)
    assert by_start["vLLM: ahead in follo"].is_met is None
    assert by_start["gRPC layer, 1 chat, "].is_met is False
    assert by_start["gRPC layer, 16 chats"].is_met is True


def test_limit_counts_weights_once_for_all_chats() -> None:
    """Many chats share a reading of the weights; their keys and values they do not share."""
    assert find_limit(10.79, 1) == pytest.approx(100, rel=0.06)
    assert 16 * find_limit(10.0, 1) > find_limit(10.0, 16) > 8 * find_limit(10.0, 1)


def test_report_leaves_nobody_out() -> None:
    """Figures with their spread, a ratio for each other contender, and who is missing and why."""
    keys = make_rows((1, 16))
    first, second = dict.fromkeys(keys, 10.0), dict.fromkeys(keys, 30.0)
    report = make_report(
        {"ours": first, "tutorial": first}, {"ours": second, "tutorial": first}, absent="no wheel"
    )
    report["rounds"][1]["contenders"]["openvino"] = {"failed": "it died"}
    text = write_report(report)
    assert "| one stream, tok/s | 20.0 (10.0 to 30.0) | 10.0 |" in text
    assert "| one stream | 2.00x (1.00 to 3.00) |" in text
    assert "- vLLM: no wheel" in text
    assert "- OpenVINO GenAI, round 2: it died" in text


def test_a_run_is_published_between_the_marks() -> None:
    """Nothing around the marks changes, a second run replaces the first, and no marks are told."""
    report = make_report({"ours": dict.fromkeys(make_rows((1, 16)), 10.0)}, absent="no wheel")
    summary = write_summary(report)
    assert "| llavachat | 10.0 | 10.0 |" in summary
    assert "Without figures: vLLM." in summary
    text = "before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n"
    once = replace_between_marks(text, summary)
    assert once == replace_between_marks(once, summary)
    assert once.startswith("before\n<!-- benchmark -->\n| median |")
    assert once.endswith("<!-- /benchmark -->\nafter\n")
    with pytest.raises(ValueError, match="no <!-- benchmark -->"):
        replace_between_marks("text", summary)


def test_what_a_server_takes_of_its_engine_is_a_median_of_rounds() -> None:
    """Each round's own share, since a machine's speed drifts; a negative one stays."""
    table = write_table({4: [(100.0, 90.0), (200.0, 190.0), (50.0, 51.0)]})

    assert "| 4 | 100 | 90 | 5.0 % (-2.0 to 10.0) |" == table.splitlines()[-1]
