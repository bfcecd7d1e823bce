"""Certificates: made for a private network, known by their pin, changed under open streams."""

import asyncio
import json
import os
import socket
import ssl
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import grpc.aio
import pytest
from app_in_process import run_app, until
from llavachat import AsyncClient, CannotConnect, Client, ConfigurationError
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server.certs_command import run as run_certs
from llavachat_server.endings import StartError
from PIL import Image
from scripted_engine import Hold, ScriptedEngine
from server_process import run_server

CERTIFICATES = Path(__file__).parent.parent / "certificates"
SERVER_PEM = CERTIFICATES / "server.pem"


def make(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """A certificate as an operator would make it; its pin."""
    assert 0 == run_certs(["self-signed", "--folder", str(folder), *flags])
    return capsys.readouterr().out.strip()


def flags_of(folder: Path) -> tuple[str, ...]:
    """How to serve with it."""
    return (
        "--tls-cert-file",
        str(folder / "tls.crt"),
        "--tls-key-file",
        str(folder / "tls.key"),
    )


def port_of(address: str) -> int:
    """The port of HOST:PORT."""
    return int(address.rpartition(":")[2])


def show(address: str, name: str | None = None) -> bytes:
    """The certificate that a new connection is shown, if it asks for that name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port_of(address)), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


async def test_a_pin_is_all_that_a_client_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No authority, no file, and a name that is not the address's."""
    pin = make(tmp_path, capsys, "--name", "llavachat.internal")
    assert 0o600 == (tmp_path / "tls.key").stat().st_mode & 0o777
    async with run_app(ScriptedEngine("warm", "Red."), *flags_of(tmp_path)) as app:
        async with AsyncClient(app.address, tls_pin=pin, api_key="any") as client:
            assert "Red." == await client.start(None, "What?").read()
            assert "cpu" == (await client.server_info()).device
        async with AsyncClient(app.address, tls_ca_file=tmp_path / "tls.crt") as client:
            with pytest.raises(CannotConnect, match="for another name"):
                await client.server_info(timeout_seconds=10)


async def test_the_command_line_takes_a_pin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--pin`` lets in; with another one nothing is asked, and the sentence says what was seen."""
    pin = make(tmp_path, capsys, "--name", "llavachat.internal")
    picture = tmp_path / "red.png"
    Image.new("RGB", (4, 4), "red").save(picture)
    engine = ScriptedEngine("warm", "Red.")
    async with run_app(engine, *flags_of(tmp_path)) as app:
        for given, code in ((pin, 0), ("0" * 64, 3)):
            command = ["ask", str(picture), "What?", "--address", app.address, "--pin", given]
            asked = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "llavachat", *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "LLAVACHAT_STATE_DIR": str(tmp_path / "state")},
            )
            answer, error = await asked.communicate()
            assert code == asked.returncode, error.decode()
            assert ("Red.\n" if code == 0 else "") == answer.decode()
            assert code == 0 or pin in error.decode()


async def test_another_certificate_is_told_and_nothing_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who stands between has no copy of the key; the client says what it saw."""
    pin = make(tmp_path, capsys, "--name", "llavachat.internal")
    other = make(tmp_path / "other", capsys, "--name", "llavachat.internal")
    engine = ScriptedEngine()
    async with run_app(engine, *flags_of(tmp_path)) as app:
        async with AsyncClient(app.address, tls_pin=other, api_key="secret") as client:
            with pytest.raises(ConfigurationError, match=pin):
                await client.start(None, "What?").read()
            with pytest.raises(ConfigurationError, match=pin):
                await client.server_info()
        both = f"{other}, {pin.removeprefix('sha256:').upper()}"
        async with AsyncClient(app.address, tls_pin=both) as client:
            assert "cpu" == (await client.server_info()).device
    assert 1 == len(engine.requests)


async def test_a_certificate_that_an_authority_signed_can_be_pinned() -> None:
    """The anchor is the certificate itself; nobody need know the authority."""
    pin = f"sha256:{sha256(ssl.PEM_cert_to_DER_cert(SERVER_PEM.read_text())).hexdigest()}"
    files = ("--tls-cert-file", str(SERVER_PEM))
    files += ("--tls-key-file", str(CERTIFICATES / "server.key"))
    async with (
        run_app(ScriptedEngine(), *files) as app,
        AsyncClient(app.address, tls_pin=pin) as client,
    ):
        assert "cpu" == (await client.server_info()).device


def test_a_pinned_server_that_is_not_there_is_told() -> None:
    """In a sentence, at the first call, for both clients' sake."""
    with (
        Client("127.0.0.1:9", tls_pin="0" * 64) as client,
        pytest.raises(CannotConnect, match=r"No llavachat server answers at 127\.0\.0\.1:9"),
    ):
        client.server_info()


async def test_a_new_certificate_is_taken_up_under_open_streams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next connection sees it; the answer that runs goes on to its end."""
    make(tmp_path, capsys, "--name", "localhost", "--ip", "127.0.0.1")
    old = (tmp_path / "tls.crt").read_bytes()
    hold = Hold("So far")
    async with run_app(ScriptedEngine("warm", hold), *flags_of(tmp_path)) as app:
        credentials = grpc.ssl_channel_credentials(old)
        async with grpc.aio.secure_channel(app.address, credentials) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            replies = aiter(stub.StartChat(pb.StartChatRequest(prompt="What?")))
            await anext(replies)
            await hold.said.wait()
            make(tmp_path, capsys, "--name", "localhost", "--ip", "127.0.0.1", "--replace")
            new = ssl.PEM_cert_to_DER_cert((tmp_path / "tls.crt").read_text())

            async def look() -> bytes:
                return await asyncio.to_thread(show, app.address)

            await until(look, lambda shown: shown == new)
            hold.release.set()
            events = [reply.event async for reply in replies]
            assert pb.FINISH_REASON_EOS == events[-1].finished.finish_reason


async def test_half_a_change_is_not_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A certificate whose key has not come yet: connections get the one of before."""
    make(tmp_path, capsys, "--name", "localhost")
    before = ssl.PEM_cert_to_DER_cert((tmp_path / "tls.crt").read_text())
    make(tmp_path / "next", capsys, "--name", "localhost")
    async with run_app(ScriptedEngine(), *flags_of(tmp_path)) as app:
        (tmp_path / "tls.crt").write_bytes((tmp_path / "next" / "tls.crt").read_bytes())
        assert before == await asyncio.to_thread(show, app.address)
        (tmp_path / "tls.key").write_bytes((tmp_path / "next" / "tls.key").read_bytes())
        assert before != await asyncio.to_thread(show, app.address)


async def test_a_certificate_that_can_be_read_only_later_is_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Copied in first and handed over then, which no stamp shows; why it waits is told once."""
    caplog.set_level("INFO", "llavachat")
    make(tmp_path, capsys, "--name", "localhost")
    make(tmp_path / "next", capsys, "--name", "localhost")
    before, after = (
        ssl.PEM_cert_to_DER_cert((folder / "tls.crt").read_text())
        for folder in (tmp_path, tmp_path / "next")
    )
    key_file, key = tmp_path / "tls.key", (tmp_path / "next" / "tls.key").read_bytes()
    flags = ("--metrics-listen", "0.0.0.0:0", "--allow-open-network", *flags_of(tmp_path))
    async with run_app(ScriptedEngine(), *flags) as app:
        metrics = app.app.metrics_address.removesuffix("/metrics")
        (tmp_path / "tls.crt").write_bytes((tmp_path / "next" / "tls.crt").read_bytes())
        # Nobody is kept from reading who tests as root.
        key_file.write_bytes(bytes(len(key)))
        stamp = key_file.stat()
        for address in (app.address, metrics) * 2:
            assert before == await asyncio.to_thread(show, address)
        key_file.write_bytes(key)
        os.utime(key_file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        for address in (app.address, metrics):
            assert after == await asyncio.to_thread(show, address)
    # By each port.
    told = [each for each in caplog.messages if "certificate" in each]
    waits, goes_on = "the certificate of before stays in use", "certificate changed"
    assert [waits, waits, goes_on, goes_on] == told


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_versions_of_tls_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: ssl.TLSVersion
) -> None:
    """TLS 1.2 is the least; the same connection with it comes about."""
    make(tmp_path, capsys, "--name", "localhost")

    def connect(port: int, only: ssl.TLSVersion) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = only
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return secure.version() or ""

    async with run_app(ScriptedEngine(), *flags_of(tmp_path)) as app:
        port = port_of(app.address)
        assert "TLSv1.2" == await asyncio.to_thread(connect, port, ssl.TLSVersion.TLSv1_2)
        assert "TLSv1.3" == await asyncio.to_thread(connect, port, ssl.TLSVersion.TLSv1_3)
        # The alert that the server sends; Python 3.11.2 has seen only the end of the connection.
        with pytest.raises(ssl.SSLError, match=r"(?i)alert|EOF"):
            await asyncio.to_thread(connect, port, version)


async def test_files_that_do_not_belong_together_stop_the_start(tmp_path: Path) -> None:
    """gRPC alone would listen and fail at each connection."""
    flags = ("--tls-cert-file", str(SERVER_PEM))
    flags += ("--tls-key-file", str(CERTIFICATES / "client.key"))
    with pytest.raises(StartError, match="are not a PEM certificate and its unencrypted key"):
        async with run_app(ScriptedEngine(), *flags):
            pass


def test_a_certificate_is_not_replaced_by_accident(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients that trust it would be cut off."""
    make(tmp_path, capsys, "--name", "localhost")
    before = (tmp_path / "tls.crt").read_bytes()
    assert 1 == run_certs(["self-signed", "--name", "localhost", "--folder", str(tmp_path)])
    assert "is there already; give --replace" in capsys.readouterr().err
    assert before == (tmp_path / "tls.crt").read_bytes()
    with pytest.raises(SystemExit):
        run_certs(["self-signed", "--name", "not a name"])
    assert "is no DNS name, such as llavachat.internal" in capsys.readouterr().err


def test_failed_handshakes_write_nothing_into_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's words least of all: each line of a real server is one of its own events."""
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    make(tmp_path, capsys, "--name", "localhost")
    with run_server(tmp_path, *flags_of(tmp_path)) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port_of(server.address)), 10) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                # It is closed once the handshake has failed.
                with suppress(ConnectionResetError):
                    while plain.recv(4096):
                        pass
            assert show(server.address, "stranger.example")
        assert 0 == server.stop()
        lines = server.log.read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert "listening" == events[0]
    assert "stopped" == events[-1]
