"""The port for scrapers: who may read, over TLS and without, and what odd clients get."""

import asyncio
import socket
import ssl
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from app_in_process import PATIENCE_SECONDS, RunningApp, run_app, until
from figures_text import Figures, scrape
from llavachat_server.endings import StartError
from llavachat_server.keys_command import run as run_keys
from llavachat_server.ops import exposition
from llavachat_server.ops.exposition import MAX_CONNECTIONS
from scripted_engine import Hold, ScriptedEngine
from test_rpc_certificates import flags_of, make, port_of

LOCAL = ("--metrics-listen", "127.0.0.1:0")


async def read(app: RunningApp, key: str = "", **options: Any) -> Figures:
    """Scrape as Prometheus does."""
    return await asyncio.to_thread(scrape, app.app.metrics_address, key, **options)


async def status_of(app: RunningApp, key: str = "") -> int:
    """The status that a scrape is refused with."""
    with pytest.raises(HTTPError) as caught:
        await read(app, key)
    return caught.value.code


async def talk(app: RunningApp, said: bytes, *, until_closed: bool = True) -> bytes:
    """Send bytes as they are; what comes back until the server hangs up."""
    port = int(app.app.metrics_address.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader.read() if until_closed else await reader.read(2**16)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def add_key(folder: Path, capsys: pytest.CaptureFixture[str], name: str, *flags: str) -> str:
    """A key of the server whose state is in `folder`."""
    assert 0 == run_keys(["add", name, "--file", str(folder / "keys"), *flags])
    return capsys.readouterr().out.strip()


async def test_without_keys_this_machine_may_read() -> None:
    """The first try works: one flag, and curl."""
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        assert app.app.metrics_address.startswith("http://127.0.0.1:")
        figures = await read(app)
    assert 1 == figures.get("llavachat_server_state", state="serving")
    assert 1 == figures.get("target_info", service_name="llavachat")
    assert figures.get("process_resident_memory_bytes") > 0


async def test_without_the_setting_nobody_listens() -> None:
    """Off by default."""
    async with run_app(ScriptedEngine("warm")) as app:
        assert "" == app.app.metrics_address


async def test_where_there_are_keys_a_scraper_needs_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One with the scope metrics, as for every method; and the figures open nothing else."""
    monitor = add_key(tmp_path, capsys, "monitor", "--scopes", "metrics")
    anna = add_key(tmp_path, capsys, "anna")
    flags = (*LOCAL, "--state-folder", str(tmp_path))
    async with run_app(ScriptedEngine("warm"), *flags) as app:
        assert 1 == (await read(app, monitor)).get("llavachat_server_state", state="serving")
        assert HTTPStatus.UNAUTHORIZED == await status_of(app)
        assert HTTPStatus.UNAUTHORIZED == await status_of(app, "sk-none")
        assert HTTPStatus.FORBIDDEN == await status_of(app, anna)
        answer = await talk(app, b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert b"www-authenticate: Bearer" in answer
    assert b"llavachat_" not in answer


async def test_a_key_s_own_limits_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And say when to come back."""
    limits = ("--scopes", "metrics", "--requests-per-minute", "1")
    monitor = add_key(tmp_path, capsys, "monitor", *limits)
    flags = (*LOCAL, "--state-folder", str(tmp_path))
    async with run_app(ScriptedEngine("warm"), *flags) as app:
        await read(app, monitor)
        with pytest.raises(HTTPError) as caught:
            await read(app, monitor)
    assert HTTPStatus.TOO_MANY_REQUESTS == caught.value.code
    assert 0 < int(caught.value.headers["retry-after"]) <= 60


async def test_beyond_this_machine_it_speaks_tls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With gRPC's certificate; a new one is shown to the next connection."""
    make(tmp_path, capsys, "--name", "localhost")
    key = add_key(tmp_path, capsys, "monitor", "--scopes", "metrics")
    flags = ("--metrics-listen", "0.0.0.0:0", "--state-folder", str(tmp_path))
    async with run_app(ScriptedEngine("warm"), *flags, *flags_of(tmp_path)) as app:
        port = port_of(app.app.metrics_address.removesuffix("/metrics"))
        app.app.metrics_address = f"https://localhost:{port}/metrics"
        first = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
        await read(app, key, context=first)
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await read(app, key)
        make(tmp_path / "new", capsys, "--name", "localhost")
        for name in ("tls.key", "tls.crt"):
            (tmp_path / "new" / name).replace(tmp_path / name)
        second = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
        await read(app, key, context=second)
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await read(app, key, context=first)


async def test_a_port_that_is_taken_is_told() -> None:
    """With the setting's name, before anything is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        flags = ("--metrics-listen", f"127.0.0.1:{port}")
        with pytest.raises(StartError, match=f"metrics_listen: '127.0.0.1:{port}' can not be"):
            async with run_app(ScriptedEngine("warm"), *flags):
                raise AssertionError("it serves")


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n", b"HTTP/1.1 404 "),
        (b"POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n", b"HTTP/1.1 405 "),
        (b"GET /metrics HTTP/1.1\r\n", b"HTTP/1.1 400 "),
        (b"GET /metrics HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 40_000 + b"\r\n", b"HTTP/1.1 431 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n", b"HTTP/1.1 4"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HTTP/1.1 400 "),
        (b"\0" * 40_000, b"HTTP/1.1 4"),
    ],
)
async def test_what_is_no_scrape_is_told_so(said: bytes, begins: bytes) -> None:
    """In HTTP's words, and without the figures."""
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        answer = await talk(app, said + b"connection: close\r\n\r\n")
        assert answer.startswith(begins), answer
        assert b"llavachat_" not in answer
        await read(app)


async def test_a_head_has_no_body() -> None:
    """But its length."""
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        answer = await talk(app, b"HEAD /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: " in head
    assert b"" == body


@pytest.mark.parametrize("version", [b"abc", b"1..0"])
async def test_a_form_that_nobody_knows_is_the_plain_one(version: bytes) -> None:
    """Whatever a scraper takes for a version, it gets the figures."""
    accept = b"accept: application/openmetrics-text; version=%s\r\n" % version
    ask = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n%s\r\n"
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        answer = await talk(app, ask % accept)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: text/plain; version=0.0.4" in answer
    assert b"llavachat_server_state" in answer


async def test_one_connection_serves_many_scrapes() -> None:
    """As Prometheus keeps it."""
    ask = b"GET /metrics HTTP/1.1\r\nhost: a\r\n%s\r\n"
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        answer = await talk(app, (ask % b"") * 2 + ask % b"connection: close\r\n")
    assert 3 == answer.count(b"HTTP/1.1 200 ")


async def test_who_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is who begins a request and does not end it."""
    monkeypatch.setattr(exposition, "REQUEST_SECONDS", 0.2)
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        assert b"" == await talk(app, b"")
        assert b"" == await talk(app, b"GET /metr")


async def test_no_more_connections_than_there_are_places() -> None:
    """The one too many is dropped; once there is room, scrapers come through again."""
    async with run_app(ScriptedEngine("warm"), *LOCAL) as app:
        port = int(app.app.metrics_address.rpartition(":")[2].partition("/")[0])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        # Each has been answered, and so has its place.
        for reader, writer in held:
            writer.write(b"HEAD /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
        assert b"" == await talk(app, b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        for _, writer in held:
            writer.close()
            await writer.wait_closed()

        async def is_answered() -> bool:
            with suppress(OSError):
                await read(app)
                return True
            return False

        assert await until(is_answered, bool)


async def test_who_is_refused_holds_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server hangs up behind its answer, whatever it refuses for."""
    limits = ("--scopes", "metrics", "--requests-per-minute", "1")
    monitor = add_key(tmp_path, capsys, "monitor", *limits)
    anna = add_key(tmp_path, capsys, "anna")
    flags = (*LOCAL, "--state-folder", str(tmp_path))

    async def ask(first: str, key: str = "") -> str:
        return (await talk(app, f"{first} HTTP/1.1\r\nhost: a\r\n{key}\r\n".encode())).decode()

    async with run_app(ScriptedEngine("warm"), *flags) as app:
        await read(app, monitor)
        answers = [
            await ask("GET /metrics"),
            await ask("GET /metrics", f"authorization: Bearer {anna}\r\n"),
            await ask("GET /"),
            await ask("DELETE /metrics"),
            await ask("GET /metrics", f"authorization: Bearer {monitor}\r\n"),
        ]
    assert [401, 403, 404, 405, 429] == [int(answer.split()[1]) for answer in answers]
    assert all("\r\nconnection: close\r\n" in answer for answer in answers), answers


async def test_a_draining_server_is_still_watched() -> None:
    """Its state says so, and the turn that holds it up."""
    hold = Hold()
    async with run_app(ScriptedEngine("warm", hold), *LOCAL) as app:
        answer = asyncio.create_task(app.start())
        await hold.said.wait()
        app.app.stop()
        figures = await until(
            lambda: read(app), lambda f: f.get("llavachat_server_state", state="stopping") == 1
        )
        assert 1 == figures.get("llavachat_turns_running")
        hold.release.set()
        await answer
