"""Each example, run as its docstring says."""

import http.client
import io
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from llavachat.v1 import chat_pb2, error_details_pb2
from PIL import Image, ImageDraw
from scripted_service import ScriptedServer, abort, deltas, finished, started
from server_process import run_server

ROOT = Path(__file__).parent.parent.parent
CERTIFICATES = ROOT / "tests" / "certificates"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def run(example, *arguments, **environment):
    """Run an example to its end."""
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of circles."""
    paths = []
    for colour in ("red", "green", "blue"):
        picture = Image.new("RGB", (200, 150), "white")
        ImageDraw.Draw(picture).ellipse((50, 30, 140, 120), fill=colour)
        paths.append(str(tmp_path / f"{colour}.png"))
        picture.save(paths[-1])
    return paths


def test_ask_in_five_lines(server_address, pictures):
    """The real server answers, and the answer is printed."""
    done = run("ask.py", pictures[0], "What is this?", LLAVACHAT_ADDRESS=server_address)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.strip()


def test_the_five_lines_are_five():
    """Imports and blank lines apart, the first example stays as short as its name."""
    lines = (ROOT / "examples" / "ask.py").read_text().split('"""')[2].splitlines()
    code = [line for line in lines if line.strip() and not line.startswith("import sys")]
    assert len(code) <= 6


def test_many_pictures(server_address, pictures, tmp_path):
    """An answer for each, a line for the one that is none, and the bar on stderr."""
    broken = tmp_path / "notes.txt"
    broken.write_text("no picture")
    names = [*pictures, str(broken)]
    done = run(
        "many_pictures.py",
        "What is this?",
        *names,
        "--at-once",
        "2",
        LLAVACHAT_ADDRESS=server_address,
    )
    lines = {line["picture"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert 1 == done.returncode
    assert set(names) == set(lines)
    assert all(lines[name]["answer"] and lines[name]["chat_id"] for name in pictures)
    assert f"{broken} is text; send JPEG, PNG, WebP or GIF." == lines[str(broken)]["error"]
    assert "4/4" in done.stderr


def test_many_pictures_gives_up_on_a_full_server(pictures):
    """Each picture after ten tries, with the server's words, and not for ever."""
    server = ScriptedServer()

    def answer(request, context):
        detail = error_details_pb2.RetryInfo()
        detail.retry_delay.nanos = 1_000_000
        abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "the store is full", detail)
        yield

    server.service.answer = answer
    try:
        done = run("many_pictures.py", "What?", *pictures[:2], LLAVACHAT_ADDRESS=server.address)
    finally:
        server.stop()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (1, 20) == (done.returncode, len(server.service.requests))
    assert {"The store is full. It was asked 10 times."} == {line["error"] for line in lines}


def test_many_pictures_outlast_a_kill_and_a_restart(pictures, tmp_path):
    """All 300 answers, each once, though the server is killed amid them and is away for a while."""
    keep = ("--store", "sqlite", "--state-folder", str(tmp_path / "state"))
    command = [sys.executable, str(ROOT / "examples" / "many_pictures.py"), "What is this?"]
    command += pictures * 100
    with run_server(tmp_path, *keep) as server:
        job = subprocess.Popen(
            command,
            env={**os.environ, "LLAVACHAT_ADDRESS": server.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        told = [job.stdout.readline() for _ in range(40)]
        server.process.kill()
        server.process.wait()
    (tmp_path / "ready").unlink()
    with run_server(tmp_path, "--listen", server.address, *keep), job.stdout:
        lines = [json.loads(line) for line in (*told, *job.stdout)]
        assert 0 == job.wait(60), [line["error"] for line in lines if "error" in line]
    assert dict.fromkeys(pictures, 100) == Counter(line["picture"] for line in lines)
    assert 300 == len({line["chat_id"] for line in lines if line["answer"]})


@pytest.fixture
def secure():
    """A scripted service behind TLS, which asks for a key."""
    pair = (CERTIFICATES / "server.key").read_bytes(), (CERTIFICATES / "server.pem").read_bytes()
    server = ScriptedServer(grpc.ssl_server_credentials([pair]))
    yield server
    server.stop()


@contextmanager
def serve_captions(**environment):
    """The caption service, and a way to ask it."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "caption_service.py"), "0"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    address = urlsplit(process.stdout.readline().split()[-1])

    def post(body, **headers):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        connection.request("POST", "/caption", body, headers)
        response = connection.getresponse()
        answer = response.status, json.loads(response.read()), dict(response.headers)
        connection.close()
        return answer

    yield post
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def captions(secure):
    """The caption service in front of it, and a way to ask it."""
    with serve_captions(
        LLAVACHAT_ADDRESS=secure.address,
        LLAVACHAT_TLS_CA_FILE=str(CERTIFICATES / "ca.pem"),
        LLAVACHAT_API_KEY="secret",
    ) as post:
        yield post


def test_one_service_calls_another(captions, secure, pictures):
    """TLS, key, trace context, request id and deadline arrive; the caption comes back."""
    deadlines = []

    def answer(request, context):
        deadlines.append(context.time_remaining())
        yield from secure.service.tell(request, context)

    secure.service.answer = answer
    body = Path(pictures[0]).read_bytes()
    status, content, _ = captions(
        body,
        **{"traceparent": TRACE, "Idempotency-Key": "job-7", "X-Timeout-Seconds": "60"},
    )
    assert (200, "A red circle.") == (status, content["caption"])
    metadata, request = secure.service.metadata[0], secure.service.requests[0]
    assert "Bearer secret" == metadata["authorization"]
    _, trace_id, span_id, flags = metadata["traceparent"].split("-")
    assert ("0af7651916cd43dd8448eb211c80319c", "01") == (trace_id, flags)
    assert span_id != "b7ad6b7169203331"
    assert ("job-7", body) == (request.request_id, request.images[0].data)
    assert 30 < deadlines[0] <= 61


@pytest.mark.parametrize(
    ("code", "status", "retry_after"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400, None),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503, "2"),
        (grpc.StatusCode.UNAUTHENTICATED, 502, None),
    ],
)
def test_each_failure_has_its_status(captions, secure, pictures, code, status, retry_after):
    """What went wrong behind is told in HTTP's words in front."""

    def answer(request, context):
        detail = error_details_pb2.RetryInfo()
        detail.retry_delay.seconds = 2
        abort(context, code, "no", detail)
        yield

    secure.service.answer = answer
    seen, content, headers = captions(Path(pictures[0]).read_bytes())
    assert (status, retry_after) == (seen, headers.get("Retry-After"))
    assert content["error"]


def test_what_the_caller_did_wrong_is_the_callers(captions, secure):
    """No picture: 400 and no call. Too slow: 504."""
    assert 400 == captions(b"no picture")[0]
    assert [] == secure.service.requests

    def answer(request, context):
        yield started()
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")

    secure.service.answer = answer
    assert 504 == captions(_png())[0]


@pytest.mark.parametrize("limit", ["nan", "-1", "0", "inf", "soon", ""])
def test_a_time_limit_that_is_no_time_is_the_callers_mistake(captions, secure, limit):
    """400, and no call."""
    status, content, _ = captions(_png(), **{"X-Timeout-Seconds": limit})
    assert (400, "X-Timeout-Seconds must be over 0 seconds") == (status, content["error"])
    assert [] == secure.service.requests


def test_a_key_that_is_used_for_another_picture_is_the_callers_mistake(server_address, pictures):
    """By the real server's word: 422 for the other one, and the first caption again for its own."""
    with serve_captions(LLAVACHAT_ADDRESS=server_address) as post:
        first, other = (Path(name).read_bytes() for name in pictures[:2])
        answers = [post(body, **{"Idempotency-Key": "k"}) for body in (first, other, first)]
    assert [200, 422, 200] == [status for status, _, _ in answers]
    assert answers[0][1] == answers[2][1]
    assert "this key was used with another picture" == answers[1][1]["error"]


def test_half_a_caption_is_none(captions, secure):
    """A turn that somebody stopped, told again for a repeated key: 502."""

    def answer(request, context):
        yield started()
        yield from deltas("A red")
        yield finished(chat_pb2.FINISH_REASON_CANCELLED)

    secure.service.answer = answer
    status, content, _ = captions(_png())
    assert (502, "the caption was cut short; use another key") == (status, content["error"])


def _png():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return buffer.getvalue()
