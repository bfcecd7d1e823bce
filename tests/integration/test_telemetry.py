"""What a server tells of itself while it is talked to: figures, spans and lines, end to end."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from app_in_process import run_app, until
from figures_text import Figures, find_address, scrape
from grpc_health.v1 import health_pb2, health_pb2_grpc
from llavachat import Client
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.measuring import make_telemetry
from llavachat_server.ops.telemetry import Telemetry
from llavachat_server.settings import load
from llavachat_server.values import QueueFull, hash_request_id
from nvml_library import COMPILER, WITHOUT_COMPILER, build_library
from otlp_receiver import (
    PATIENCE_SECONDS,
    Received,
    read_attributes,
    receive_by_grpc,
    receive_by_http,
)
from pictures import draw_shape, encode, red_circle
from reports import SPAN_ID, TRACE_ID
from scripted_engine import Hold, ScriptedEngine
from server_process import ServerProcess, run_server

LOCAL = ("--metrics-listen", "127.0.0.1:0")
TRACED = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"),)
ROOT = Path(__file__).parent.parent.parent


def read_lines(log: Path, event: str) -> list[dict[str, Any]]:
    """The log's lines of one event."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if event == line["event"]]


def find_line(server: ServerProcess, request_id: str) -> dict[str, Any]:
    """The line of the turn that a request became."""
    wanted = hash_request_id(request_id)
    lines = read_lines(server.log, "turn")
    (line,) = [line for line in lines if wanted == line.get("request_id_sha256")]
    return line


# The real server on the embedded model.


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    """Who receives what the real server sends."""
    with receive_by_grpc() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def watched(
    received: Received, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """The real server, watched in every way at once, on a machine with a GPU of the tests'."""
    folder = tmp_path_factory.mktemp("watched")
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": received.address,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        **build_library(folder),
    }
    with run_server(folder, *LOCAL, environment=environment) as server:
        yield server
        assert 0 == server.stop()


def look(server: ServerProcess) -> Figures:
    """Scrape it."""
    return scrape(find_address(server.log.read_text()))


def look_until(server: ServerProcess, is_so: Callable[[Figures], bool]) -> Figures:
    """Scrape it until it is so: a call is counted once it is over, and its caller knows sooner."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so(figures := look(server)):
        assert time.monotonic() < end, figures.text
        time.sleep(0.05)
    return figures


def test_a_chat_about_a_picture_in_figures(watched: ServerProcess) -> None:
    """Two turns: tokens, caches and times are what the client was told."""
    before = look(watched)
    # Which no other test has asked this server about.
    picture = encode(draw_shape("star", "purple"))
    with Client(watched.address) as client:
        first = client.start(picture, "What is in the picture?")
        first.read()
        second = first.chat.ask("What colour is it?")
        second.read()
    call = {
        "name": "rpc_server_call_duration_seconds_count",
        "rpc_method": "llavachat.v1.ChatService/ContinueChat",
        "rpc_response_status_code": "OK",
    }
    after = look_until(watched, lambda now: now.get(**call) == before.get(**call) + 1)

    def grew(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    usages = [first.usage, second.usage]
    told = {
        "text": sum(usage.text_tokens for usage in usages),
        "image": sum(usage.image_tokens for usage in usages),
        "completion": sum(usage.completion_tokens for usage in usages),
    }
    assert told == {kind: grew("llavachat_tokens_total", kind=kind) for kind in told}
    cached = sum(usage.cached_tokens for usage in usages)
    assert cached == grew("llavachat_prefix_cache_tokens_total", result="hit")
    images = {
        result: grew("llavachat_image_cache_images_total", result=result)
        for result in ("hit", "miss")
    }
    assert {"hit": 1, "miss": 1} == images
    assert 2 == grew("llavachat_turns_total", finish_reason="eos")
    model = {"gen_ai_request_model": "shapes", "gen_ai_operation_name": "chat"}
    seconds = "gen_ai_server_time_to_first_token_seconds"
    assert 2 == grew(f"{seconds}_count", **model)
    expected = sum(reply.timings.first_token_seconds for reply in (first, second))
    assert expected == pytest.approx(grew(f"{seconds}_sum", **model), abs=0.01)
    capacity = {
        state: after.get("llavachat_kv_cache_tokens", state=state)
        for state in ("held", "kept", "free")
    }
    assert (0, True) == (capacity["held"], capacity["kept"] >= cached)
    assert sum(capacity.values()) > 4096


@pytest.mark.skipif(COMPILER is None, reason=WITHOUT_COMPILER)
def test_the_gpu_is_in_the_figures(watched: ServerProcess) -> None:
    """By NVIDIA's own binding; what the card does not tell has no series."""
    figures = look(watched)
    card = {"hw_id": "GPU-4d6f-test", "hw_name": "Test Card 24G"}
    assert 0.37 == figures.get("hw_gpu_utilization", **card)
    assert 9 * 2**30 == figures.get("hw_gpu_memory_usage_bytes", **card)
    assert 24 * 2**30 == figures.get("hw_gpu_memory_limit_bytes", **card)
    assert "hw_power_watts" not in figures.names


def test_a_turn_is_traced_and_logged_under_the_caller_s_trace(
    watched: ServerProcess, received: Received
) -> None:
    """The spans hang below the caller's own, and the line in the log names them."""
    picture = red_circle()
    with Client(watched.address) as client:
        reply = client.start(
            picture,
            "What is there?",
            metadata=dict(TRACED),
            request_id="traced-turn",
            seed=7,
        )
        reply.read()
    line = find_line(watched, "traced-turn")
    assert (TRACE_ID, reply.chat_id, reply.turn_id) == (
        line["trace_id"],
        line["chat_id"],
        line["turn_id"],
    )
    own = bytes.fromhex(line["span_id"])
    with received.news:
        assert received.news.wait_for(
            lambda: any(span.span_id == own for span in received.spans), PATIENCE_SECONDS
        )
    spans = [span for span in received.spans if span.trace_id == bytes.fromhex(TRACE_ID)]
    (whole,) = (span for span in spans if span.span_id == own)
    assert (bytes.fromhex(SPAN_ID), "chat shapes") == (whole.parent_span_id, whole.name)
    inner = [span for span in spans if span.parent_span_id == own]
    assert {"intake", "queue", "prefill", "decode", "store commit"} <= {s.name for s in inner}
    for span in inner:
        assert whole.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano
    attributes = read_attributes(whole)
    assert (reply.usage.completion_tokens, hash_request_id("traced-turn"), 7, ["eos"]) == (
        attributes["gen_ai.usage.output_tokens"],
        attributes["llavachat.request.id_sha256"],
        attributes["gen_ai.request.seed"],
        attributes["gen_ai.response.finish_reasons"],
    )


def test_a_line_has_what_the_client_was_told(watched: ServerProcess) -> None:
    """Usage and timings, one line for each turn."""
    with Client(watched.address) as client:
        reply = client.start(None, "What do you know?", request_id="one-line")
        reply.read()
    line = find_line(watched, "one-line")
    usage, timings = reply.usage, reply.timings
    assert {
        "text_tokens": usage.text_tokens,
        "image_tokens": 0,
        "prompt_tokens": usage.text_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "context_left_tokens": usage.context_left_tokens,
        "num_images": 0,
        "finish_reason": "eos",
        "model": "shapes",
        "level": "info",
        "logger": "llavachat.turns",
    }.items() <= line.items()
    # The line has four digits of the exact figure, the client's has six already.
    assert pytest.approx(timings.first_token_seconds, abs=6e-5) == line["first_token_seconds"]
    assert pytest.approx(timings.decode_seconds, abs=6e-5) == line["decode_seconds"]
    assert line["total_seconds"] >= line["first_token_seconds"]


def test_metrics_are_sent_as_well(watched: ServerProcess, received: Received) -> None:
    """By OTLP, under the names that the conventions give them."""
    needed = {
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
        "llavachat.kv_cache.tokens",
    }
    with Client(watched.address) as client:
        client.start(None, "What do you know?").read()
    with received.news:
        assert received.news.wait_for(lambda: needed <= received.names, PATIENCE_SECONDS), (
            received.names
        )


def test_the_caption_service_s_trace_reaches_the_log(watched: ServerProcess) -> None:
    """The example, as its docstring says, in front of a real server."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "caption_service.py"), "0"],
        env={**os.environ, "LLAVACHAT_ADDRESS": watched.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    trace_id = "1234567890abcdef1234567890abcdef"
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        request = urllib.request.Request(
            address, red_circle(), {"traceparent": f"00-{trace_id}-{SPAN_ID}-01"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
            caption = json.loads(response.read())
    finally:
        process.terminate()
        process.communicate()
    assert caption["caption"]
    assert trace_id in {line.get("trace_id") for line in read_lines(watched.log, "turn")}


# Without a model.


async def test_refusals_and_dropped_streams_are_counted() -> None:
    """By reason; and a reader who goes away before the end."""
    hold = Hold()
    async with run_app(ScriptedEngine("warm", QueueFull(1.0), hold), *LOCAL) as app:
        with pytest.raises(grpc.aio.AioRpcError):
            await app.start()
        with pytest.raises(grpc.aio.AioRpcError):
            await app.start("")
        with pytest.raises(grpc.aio.AioRpcError):
            await app.channel.unary_unary("/no.such/Method")(b"")
        stream = app.chat.StartChat(pb.StartChatRequest(prompt="What?"))
        await stream.read()
        await hold.said.wait()
        stream.cancel()

        async def read() -> Figures:
            return await asyncio.to_thread(scrape, app.app.metrics_address)

        figures = await until(read, lambda f: f.get("llavachat_streams_dropped_total") == 1)
    expected = {"queue_full": 1, "invalid_field": 1, "unknown_method": 1, "not_found": 0}
    assert expected == {
        reason: figures.get("llavachat_refusals_total", reason=reason) for reason in expected
    }
    assert 1 == figures.get("gen_ai_server_request_duration_seconds_count", error_type="queue_full")


async def test_a_status_of_grpc_s_own_servicer_is_measured() -> None:
    """That of health ends a call by itself for a service that there is not."""
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        health = health_pb2_grpc.HealthStub(app.channel)
        await health.Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await health.Check(health_pb2.HealthCheckRequest(service="no.such"))

        async def read() -> Figures:
            return await asyncio.to_thread(scrape, app.app.metrics_address)

        def count(figures: Figures, **labels: str) -> float:
            name, method = "rpc_server_call_duration_seconds_count", "grpc.health.v1.Health/Check"
            return figures.get(name, rpc_method=method, **labels)

        # A call is measured when it has ended, which may be after its caller has the status.
        figures = await until(read, lambda found: count(found) == 2)
    expected = {"OK": 1, "NOT_FOUND": 1}
    assert expected == {code: count(figures, rpc_response_status_code=code) for code in expected}


async def test_a_trace_needs_no_extra_to_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is measured here, and the caller's trace is named all the same."""
    caplog.set_level(logging.INFO, "llavachat.turns")
    async with run_app(ScriptedEngine("warm", "Red.")) as app:
        request = pb.StartChatRequest(prompt="What?")
        async for _ in app.chat.StartChat(request, metadata=TRACED):
            pass
    (record,) = (record for record in caplog.records if record.message == "turn")
    assert TRACE_ID == record.fields["trace_id"]


async def test_a_broken_trace_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is as if there was none."""
    caplog.set_level(logging.INFO, "llavachat.turns")
    metadata = (("traceparent", "00-quixotic"), ("traceparent", "twice"), ("tracestate", "?"))
    async with run_app(ScriptedEngine("warm", "Red.")) as app:
        request = pb.StartChatRequest(prompt="What?")
        async for _ in app.chat.StartChat(request, metadata=metadata):
            pass
    (record,) = (record for record in caplog.records if record.message == "turn")
    assert "trace_id" not in record.fields


async def test_spans_and_metrics_by_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard's default protocol; what was not sent yet is sent at the end."""
    with receive_by_http() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.address)
        async with run_app(ScriptedEngine("warm", "Red.")) as app:
            await app.start()
        assert "chat shapes" in {span.name for span in received.spans}
        assert {"llavachat.turns", "llavachat.drain.duration"} <= received.names


def test_a_receiver_that_does_not_answer_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    """The last measurements are given up after a moment, and the whole process ends."""
    may_answer = threading.Event()
    with receive_by_http(may_answer) as received:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.address,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
        }
        try:
            with run_server(tmp_path, environment=environment) as server:
                with Client(server.address) as client:
                    client.start(None, "What do you know?").read()
                server.process.terminate()
                # The SDK by itself waits for half a minute, for spans and metrics one by one.
                assert 0 == server.process.wait(20)
        finally:
            may_answer.set()
        assert received.traces
        assert received.metrics
    assert 1 == len(read_lines(server.log, "stopped"))


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: 'zipkin' given"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "schedule_delay_millis"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "max_export_batch_size"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "interval value"),
    ],
)
async def test_a_variable_that_can_not_be_followed_is_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    why: str,
) -> None:
    """And keeps nobody from serving, nor from scraping."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    async with run_app(ScriptedEngine("warm", "Red."), *LOCAL) as app:
        await app.start()
        figures = await asyncio.to_thread(scrape, app.app.metrics_address)
    assert 1 == figures.get("llavachat_server_state", state="serving")
    (record,) = (r for r in caplog.records if r.message == "nothing is sent by OTLP")
    assert why in record.fields["why"]


def test_a_fault_of_the_figures_is_not_told_as_one_of_what_is_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the figures for scrapers can not be made, the variables for OTLP are not to blame."""

    def refuse(_: Telemetry) -> None:
        raise TypeError("unexpected keyword")

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(Telemetry, "_make_registry", refuse)
    with pytest.raises(TypeError):
        make_telemetry(load(["--metrics-listen", "127.0.0.1:0"]))
    assert [] == [record for record in caplog.records if "OTLP" in record.message]


async def test_nothing_is_left_of_an_export_that_can_not_be_followed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spans could be sent and metrics can not: the thread that sends spans ends."""

    async def read() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if "OtelBatch" in thread.name}

    before = await read()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "0")
    async with run_app(ScriptedEngine("warm")):
        await until(read, lambda now: now <= before)


async def test_figures_that_are_switched_off_by_the_standard_s_variable_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where somebody means to scrape; who does not has what was asked for."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with run_app(ScriptedEngine("warm")):
        pass
    assert "nothing is measured" not in caplog.messages
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        figures = await asyncio.to_thread(scrape, app.app.metrics_address)
    assert "llavachat_server_state" not in figures.names
    assert "nothing is measured" in caplog.messages
