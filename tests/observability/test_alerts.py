"""When each alert fires, and when it does not: played through by promtool, minute by minute."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

RULES = Path(__file__).parents[2] / "docs" / "observability" / "alerts.yml"
SERVER = {"instance": "gpu:9464", "job": "llavachat"}
CARD = {"hw_id": "GPU-1", "hw_name": "A10G"}

Series = tuple[str, dict[str, str], str]
"""A name, labels beside the server's, and values, one a minute, in promtool's notation."""


def load_rules() -> dict[str, dict[str, Any]]:
    """The alerts, by name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def refusals(reason: str, values: str) -> Series:
    """Refusals for one reason."""
    return "llavachat_refusals_total", {"reason": reason}, values


def histogram(
    name: str, fast: int, slow: int, fast_seconds: str, slow_seconds: str
) -> list[Series]:
    """So many fast and slow ones a minute."""
    return [
        (f"{name}_bucket", {"le": fast_seconds}, f"0+{fast}x60"),
        (f"{name}_bucket", {"le": slow_seconds}, f"0+{fast + slow}x60"),
        (f"{name}_bucket", {"le": "+Inf"}, f"0+{fast + slow}x60"),
    ]


def questions(values: str) -> Series:
    """Calls that ask something."""
    method = "llavachat.v1.ChatService/StartChat"
    return "rpc_server_call_duration_seconds_count", {"rpc_method": method}, values


def cache(held: int, free: int) -> list[Series]:
    """The key-value cache."""
    return [
        ("llavachat_kv_cache_tokens", {"state": "held"}, f"{held}x60"),
        ("llavachat_kv_cache_tokens", {"state": "free"}, f"{free}x60"),
    ]


def line(queued: int) -> list[Series]:
    """Turns that wait, of 64."""
    return [
        ("llavachat_turns_queued", {}, f"{queued}x60"),
        ("llavachat_turns_queued_limit", {}, "64x60"),
    ]


def memory(used: int) -> list[Series]:
    """A GPU's memory, of 100."""
    return [
        ("hw_gpu_memory_usage_bytes", CARD, f"{used}x60"),
        ("hw_gpu_memory_limit_bytes", CARD, "100x60"),
    ]


def files(number: int) -> list[Series]:
    """Open files, of 100."""
    return [
        ("process_open_fds", {}, f"{number}x60"),
        ("process_max_fds", {}, "100x60"),
    ]


SERVING = ("llavachat_server_state", {"state": "serving"})
FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"
TOKEN = "gen_ai_server_time_per_output_token_seconds"
COMMIT = "llavachat_store_commit_duration_seconds"
ALL = {**SERVER}
GROUPED = {"instance": "gpu:9464"}

CASES: dict[str, tuple[list[Series], list[Series], dict[str, str]]] = {
    # alert: series with which it fires, series with which it does not, and its labels
    "LlavachatDown": ([("up", {}, "1x10 0x50")], [("up", {}, "1x10 0 1x49")], ALL),
    "LlavachatNotServing": (
        [(*SERVING, "0x60")],
        # A large model that loads for twelve minutes.
        [(*SERVING, "0x12 1x48")],
        {**ALL, "state": "serving"},
    ),
    "LlavachatRestarts": (
        [("process_start_time_seconds", {}, "1x30 5x10 9x20")],
        [("process_start_time_seconds", {}, "1x30 5x30")],
        ALL,
    ),
    "LlavachatEngineRestarted": (
        [("llavachat_engine_restarts_total", {}, "0x20 1x40")],
        [("llavachat_engine_restarts_total", {}, "0x60")],
        ALL,
    ),
    "LlavachatFails": (
        [refusals("internal", "0+1x60"), refusals("not_found", "0x60")],
        [refusals("internal", "0x60"), refusals("not_found", "0+90x60")],
        GROUPED,
    ),
    "LlavachatStoreFull": (
        [refusals("store_full", "0x40 1+1x20")],
        [refusals("store_full", "7x60")],
        GROUPED,
    ),
    "LlavachatStoreSlow": (
        histogram(COMMIT, 90, 10, "0.1", "2.5"),
        histogram(COMMIT, 999, 1, "0.1", "2.5"),
        GROUPED,
    ),
    "LlavachatSlowFirstToken": (
        histogram(FIRST_TOKEN, 80, 20, "0.5", "7.5"),
        histogram(FIRST_TOKEN, 98, 2, "0.5", "7.5"),
        GROUPED,
    ),
    "LlavachatSlowTokens": (
        histogram(TOKEN, 50, 50, "0.1", "0.5"),
        histogram(TOKEN, 98, 2, "0.1", "0.5"),
        GROUPED,
    ),
    "LlavachatLineFills": (line(60), line(40), ALL),
    "LlavachatTurnsAway": (
        [refusals("queue_full", "0+10x60"), questions("0+100x60")],
        [refusals("queue_full", "0+1x60"), questions("0+100x60")],
        GROUPED,
    ),
    "LlavachatReadersLeave": (
        [("llavachat_streams_dropped_total", {}, "0+40x60"), questions("0+100x60")],
        [("llavachat_streams_dropped_total", {}, "0+4x60"), questions("0+100x60")],
        GROUPED,
    ),
    "LlavachatStrangers": (
        [refusals("unauthenticated", "0+120x60")],
        [refusals("unauthenticated", "0+12x60")],
        GROUPED,
    ),
    "LlavachatCacheCrowded": (cache(98, 2), cache(80, 20), GROUPED),
    "LlavachatGpuMemory": (memory(99), memory(90), {**ALL, **CARD}),
    "LlavachatGpuHot": (
        [("hw_temperature_celsius", CARD, "91x60")],
        [("hw_temperature_celsius", CARD, "70x50 91x5 70x5")],
        {**ALL, **CARD},
    ),
    "LlavachatFiles": (files(95), files(60), ALL),
}


def play(folder: Path, alert: str, series: list[Series], expected: list[dict[str, Any]]) -> None:
    """Let an hour pass over the series, and compare what fires at its end."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": render(name, labels), "values": values}
                    for name, labels, values in series
                ],
                "alert_rule_test": [
                    {"alertname": alert, "eval_time": "55m", "exp_alerts": expected}
                ],
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout + done.stderr


def render(name: str, labels: dict[str, str]) -> str:
    """A series as Prometheus writes it."""
    words = [f'{key}="{value}"' for key, value in (SERVER | labels).items()]
    return f"{name}{{{','.join(words)}}}"


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_in_its_trouble(alert: str, tmp_path: Path) -> None:
    """With its labels; promtool compares the annotations as well, so they are filled in here."""
    rule, (series, _, labels) = load_rules()[alert], CASES[alert]
    value = {"LlavachatRestarts": "2", "LlavachatGpuHot": "91"}.get(alert, "")
    annotations = {
        name: re.sub(
            r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match.group(1)], text
        ).replace("{{ $value }}", value)
        for name, text in rule["annotations"].items()
    }
    exp_labels = {**labels, **rule["labels"]}
    expected = {"exp_labels": exp_labels, "exp_annotations": annotations}
    play(tmp_path, alert, series, [expected])


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_is_silent_without_it(alert: str, tmp_path: Path) -> None:
    """Close to it, and not in it."""
    play(tmp_path, alert, CASES[alert][1], [])


def test_every_alert_is_played() -> None:
    """And none that is not there."""
    assert set(load_rules()) == set(CASES)
