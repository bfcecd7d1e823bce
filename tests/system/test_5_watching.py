"""How an operator sees the service on a real systemd: figures, the journal, and a louder log."""

import json
from typing import Any

from figures_text import scrape
from host import SERVICE, Host
from pictures import red_circle

METRICS = "http://127.0.0.1:9464/metrics"


def read_entries(host: Host, *words: str) -> list[dict[str, Any]]:
    """Entries of the journal, with all their fields."""
    host.machine.sync_journal()
    lines = host.machine.run("journalctl", "--quiet", "--no-pager", "--output=json", *words)
    return [json.loads(line) for line in lines.splitlines()]


def test_figures_are_there_without_asking(host: Host) -> None:
    """As it was installed: on loopback, inside the sandbox, from the service that answers."""
    before = scrape(METRICS).get("llavachat_turns_total", finish_reason="eos")
    assert host.ask(red_circle()).strip()
    figures = scrape(METRICS)
    assert before + 1 == figures.get("llavachat_turns_total", finish_reason="eos")
    assert 1 == figures.get("llavachat_server_state", state="serving")
    assert 0 == figures.get("llavachat_turns_running"), "the pulse's own steps are no turns"


def test_a_turn_is_found_by_its_fields(host: Host) -> None:
    """In the journal, with the unit, a priority, and the JSON line as its message."""
    with host.client() as client, client.start(red_circle(), "What is this?") as reply:
        reply.read()
    (entry,) = read_entries(host, f"LLAVACHAT_TURN_ID={reply.turn_id}")
    assert ("turn", "6", SERVICE, "eos") == (
        entry["LLAVACHAT_EVENT"],
        entry["PRIORITY"],
        entry["_SYSTEMD_UNIT"],
        entry["LLAVACHAT_FINISH_REASON"],
    )
    line = json.loads(entry["MESSAGE"])
    assert reply.usage.completion_tokens == line["completion_tokens"]
    assert str(line["completion_tokens"]) == entry["LLAVACHAT_COMPLETION_TOKENS"]


def test_what_went_wrong_is_found_by_its_priority(host: Host) -> None:
    """A file of settings that can not be read, told at a reload, and nothing else is in the way."""
    host.write_settings("log_level = 'loud'\n")
    errors = (f"_PID={host.process_id}", "-p", "err", "-n", "1")
    before = read_entries(host, *errors)
    host.machine.run("systemctl", "reload", SERVICE)
    host.wait_until(lambda: read_entries(host, *errors) != before)
    (entry,) = read_entries(host, *errors)
    assert "the settings of before stay in force" == entry["LLAVACHAT_EVENT"]
    assert "'loud' given; allowed: 'debug', 'info'" in entry["LLAVACHAT_WHY"]
    assert host.ask(red_circle()).strip()


def test_the_log_gets_louder_without_a_restart(host: Host) -> None:
    """By reload, and by a plain signal; the process stays the same."""
    process = host.process_id
    for level, words in (
        ("debug", ("systemctl", "reload", SERVICE)),
        ("info", ("systemctl", "kill", "--kill-who=main", "--signal=HUP", SERVICE)),
    ):
        host.write_settings(f'log_level = "{level}"\n')
        host.machine.run(*words)
        found = ("LLAVACHAT_EVENT=settings read again", f"LLAVACHAT_LOG_LEVEL={level}")
        host.wait_until(lambda found=found: read_entries(host, f"_PID={process}", *found))
    with host.client() as client:
        assert client.is_healthy()
    assert process == host.process_id
