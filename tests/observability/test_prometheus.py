"""A real Prometheus scrapes a real server, as the documentation says: every metric that the
dashboard, the alerts and the guide name is there, and every panel has something to show."""

import io
import json
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from figures_text import find_address, scrape
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from llavachat import Client, LlavaChatError
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server.certs_command import run as run_certs
from llavachat_server.keys_command import run as run_keys
from make_dashboard import FILE as DASHBOARD
from make_dashboard import render
from nvml_library import build_library
from pictures import red_circle
from prometheus_process import DOCS, Prometheus, read_configuration, run_prometheus
from server_process import ServerProcess, run_server

OURS = re.compile(r"\b(?:llavachat|gen_ai|hw|rpc_server|process|target)_\w+\b")
STRINGS_AND_LABELS = re.compile(r'"[^"]*"|\{[^}]*\}|\b(?:by|ignoring|on|without) *\([^)]*\)')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For everything."""
    return tmp_path_factory.mktemp("observability")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    """A person's key, and a scraper's."""
    made = {}
    for name, scopes in (("anna", "chat"), ("monitor", "metrics")):
        command = ["add", name, "--scopes", scopes, "--file", str(folder / "state" / "keys")]
        made[name] = _read_output(run_keys, command)
    return made


def _read_output(run: Any, words: list[str]) -> str:
    with redirect_stdout(io.StringIO()) as stdout:
        assert 0 == run(words)
    return stdout.getvalue().strip()


@pytest.fixture(scope="module")
def server(folder: Path, keys: dict[str, str]) -> Iterator[ServerProcess]:
    """The real server, open to the network for scrapers, with TLS and keys, and with a GPU."""
    _read_output(
        run_certs,
        ["self-signed", "--folder", str(folder), "--name", "localhost", "--ip", "127.0.0.1"],
    )
    flags = ["--metrics-listen", "0.0.0.0:0", "--state-folder", str(folder / "state")]
    flags += ["--tls-cert-file", str(folder / "tls.crt"), "--tls-key-file", str(folder / "tls.key")]
    flags += ["--store", "sqlite"]
    with run_server(folder, *flags, environment=build_library(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(folder: Path, server: ServerProcess, keys: dict[str, str]) -> Iterator[Prometheus]:
    """A Prometheus that has seen a server at work, two scrapes and more."""
    port = re.search(r":(\d+)/", find_address(server.log.read_text()))
    assert port is not None
    address = f"127.0.0.1:{port.group(1)}"
    configuration = read_configuration("prometheus-remote.yml", llavachat_remote=address)
    (job,) = configuration["scrape_configs"]
    (folder / "monitor.key").write_text(keys["monitor"])
    job["tls_config"]["ca_file"] = str(folder / "tls.crt")
    job["authorization"]["credentials_file"] = str(folder / "monitor.key")
    with run_prometheus(folder, configuration) as running:
        running.until(lambda: running.query("llavachat_server_state"), bool)
        work(server, folder, keys["anna"])
        turns = 'sum(llavachat_turns_total{finish_reason="eos"})'
        running.until(lambda: running.query(turns), lambda found: count(found) >= 4)
        # A rate needs two scrapes with something between them.
        work(server, folder, keys["anna"])
        running.until(lambda: running.query(turns), lambda found: count(found) >= 8)
        running.until(lambda: running.query("rate(llavachat_refusals_total[30s]) > 0"), bool)
        yield running


def count(series: list[Any]) -> float:
    """The value of the only series; 0 as long as a late scrape leaves none."""
    return float(series[0]["value"][1]) if series else 0.0


def work(server: ServerProcess, folder: Path, key: str) -> None:
    """A bit of everything: pictures, follow-ups, refusals, and a reader who leaves."""
    with Client(server.address, tls_ca_file=folder / "tls.crt", api_key=key) as client:
        for _ in range(2):
            reply = client.start(red_circle(), "What is in the picture?")
            reply.read()
            reply.chat.ask("What colour is it?").read()
        with suppress(LlavaChatError):
            client.chat("0" * 32).ask("What?").read()
        with client.start(red_circle(), "Describe it.", max_tokens=500) as reply:
            next(iter(reply))
    authority = (folder / "tls.crt").read_bytes()
    with grpc.secure_channel(
        server.address,
        grpc.ssl_channel_credentials(authority),
    ) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        with suppress(grpc.RpcError):
            stub.GetServerInfo(pb.GetServerInfoRequest())
        call = stub.StartChat(
            pb.StartChatRequest(prompt="1 2 3?", params=pb.GenerationParams(max_tokens=900)),
            metadata=(("authorization", f"Bearer {key}"),),
        )
        next(iter(call))
        call.cancel()


def find_names(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(OURS.findall(STRINGS_AND_LABELS.sub(" ", expression)))


def read_panels() -> dict[str, list[str]]:
    """The queries of each panel of the committed dashboard, for all servers and the last while."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] != "row":
            found[panel["title"]] = [
                target["expr"].replace("$instance", ".*").replace("$__rate_interval", "30s")
                for target in panel["targets"]
            ]
    return found


PANELS = read_panels()


def test_the_server_is_scraped_over_tls_with_a_key(prometheus: Prometheus) -> None:
    """As the documented configuration has it."""
    # A scrape that was late is no fault: the next one comes in a second.
    (target,) = prometheus.until(
        lambda: prometheus.ask("targets")["activeTargets"],
        lambda targets: [target["health"] for target in targets] == ["up"],
    )
    assert ("up", "", "https") == (
        target["health"],
        target["lastError"],
        target["scrapeUrl"].partition(":")[0],
    )


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_has_something_to_show(prometheus: Prometheus, panel: str) -> None:
    """Each of its queries is understood, names what is there, and comes to a number."""
    for query in PANELS[panel]:
        assert find_names(query) <= prometheus.names(), query
        series = prometheus.until(lambda query=query: prometheus.query(query), bool)
        values = {one["value"][1] for one in series}
        assert values - {"NaN"}, (query, series)


def test_the_rules_are_loaded_and_name_what_is_there(prometheus: Prometheus) -> None:
    """Prometheus itself has evaluated each, and none fires but what this machine is."""
    (group,) = prometheus.until(
        lambda: prometheus.ask("rules")["groups"],
        lambda groups: all(rule["health"] == "ok" for rule in groups[0]["rules"]),
    )
    for rule in group["rules"]:
        assert find_names(rule["query"]) <= prometheus.names(), rule["name"]
    quiet = {"LlavachatDown", "LlavachatNotServing", "LlavachatStoreFull", "LlavachatFails"}

    def read() -> dict[str, str]:
        rules = prometheus.ask("rules")["groups"][0]["rules"]
        return {rule["name"]: rule["state"] for rule in rules if rule["name"] in quiet}

    # One scrape that was late has an alert pending, and firing only after its time.
    expected = dict.fromkeys(quiet, "inactive")
    assert expected == prometheus.until(read, lambda states: states == expected)


def test_the_guide_lists_what_is_there(prometheus: Prometheus) -> None:
    """A row for each metric, under the name that Prometheus has for it."""
    guide = (DOCS / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)
    listed = {name for name in rows if OURS.fullmatch(name)}
    there = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for name in prometheus.names()
        if OURS.fullmatch(name)
    }
    # Seen only at the very end of a server.
    only_at_the_end = {"llavachat_drain_duration_seconds"}
    # The card of the tests does not tell it.
    not_here = {"hw_power_watts"}
    assert there | only_at_the_end | not_here == listed


def test_the_figures_have_the_form_that_prometheus_wants(
    server: ServerProcess, folder: Path, keys: dict[str, str]
) -> None:
    """promtool has nothing to say about names, units and help texts, but for names that are
    OpenTelemetry's."""
    address = find_address(server.log.read_text()).replace("0.0.0.0", "localhost")
    context = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    text = scrape(address, keys["monitor"], context=context).text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    said = (done.stdout + done.stderr).strip().splitlines()
    assert [] == [line for line in said if not line.startswith(("hw_", "target_info"))], said


def test_a_server_that_is_gone_is_down(prometheus: Prometheus, server: ServerProcess) -> None:
    """The last test: the alert begins to wait for its two minutes."""
    assert 0 == server.stop()

    def read() -> list[str]:
        groups = prometheus.ask("rules")["groups"]
        return [rule["state"] for rule in groups[0]["rules"] if rule["name"] == "LlavachatDown"]

    assert ["pending"] == prometheus.until(read, lambda states: states == ["pending"])


# Without a server.


def test_the_dashboard_is_what_the_script_writes() -> None:
    """Nobody edits the file by hand: `python scripts/make_dashboard.py`."""
    assert render() == DASHBOARD.read_text()


def test_the_dashboard_is_one_of_grafana_s() -> None:
    """Read by Grafana's own library and written again, nothing is lost or unknown."""
    register_default_plugins()
    given = json.loads(DASHBOARD.read_text())
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
    assert given == again
    numbers = [panel["id"] for panel in given["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_every_alert_is_explained() -> None:
    """The guide has a row for each, with what to do."""
    guide = (DOCS / "README.md").read_text()
    alerts = re.findall(r"alert: (\w+)", (DOCS / "alerts.yml").read_text())
    assert sorted(alerts) == sorted(re.findall(r"^\| `(Llavachat\w+)` \|", guide, re.MULTILINE))
