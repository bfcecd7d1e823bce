"""A pinned server is asked for its certificate within the time of the call that needs it."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
import threading
import time
from pathlib import Path

import grpc
import pytest
from llavachat import AsyncClient, CannotConnect, CertificateRefused, Client, DeadlineExceeded
from llavachat.cli.app import run
from scripted_service import ScriptedServer

CERTIFICATES = Path(__file__).parent.parent / "certificates"
PEM = (CERTIFICATES / "server.pem").read_text()
PIN = (
    "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(PEM[PEM.index("-----BEGIN") :])).hexdigest()
)


class Relay:
    """Hands connections on to a port, each after some seconds; those past the last never."""

    def __init__(self, port, *delays_seconds):
        self._port = port
        self._delays = list(delays_seconds)
        self._sockets = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """Cut all connections; a silent server is then one that hangs up."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                self.accepted.set()
                if self._delays:
                    threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near):
        time.sleep(self._delays.pop(0))  # as a server that is slow
        far = socket.create_connection(("127.0.0.1", self._port))
        self._sockets.append(far)
        threading.Thread(target=self._pump, args=(far, near), daemon=True).start()
        self._pump(near, far)

    def _pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def secure():
    """A scripted service behind TLS."""
    pair = (CERTIFICATES / "server.key").read_bytes(), PEM.encode()
    server = ScriptedServer(grpc.ssl_server_credentials([pair]))
    yield server
    server.stop()


@pytest.fixture
def relay(secure):
    """Begins a relay to that service."""
    relays = []

    def begin(*delays_seconds):
        relays.append(Relay(secure.port, *delays_seconds))
        return relays[-1]

    yield begin
    for each in relays:
        each.close()


CALLS = {
    "answer": lambda client, seconds: client.start(None, "?", timeout_seconds=seconds).read(),
    "call": lambda client, seconds: client.server_info(timeout_seconds=seconds),
    "health": lambda client, seconds: client._channel.check_health(seconds),
}


@pytest.fixture(params=[Client, AsyncClient])
def call(request):
    """Make one of `CALLS` by either twin."""

    async def run(address, name, seconds):
        if request.param is Client:
            with Client(address, tls_pin=PIN) as client:
                return await asyncio.to_thread(CALLS[name], client, seconds)
        async with AsyncClient(address, tls_pin=PIN) as client:
            return await CALLS[name](client, seconds)

    return run


async def test_another_certificate_is_an_error_of_its_own(secure):
    """By which a script tells it from a pin that is mistyped; the message names the one shown."""
    wrong = "sha256:" + "0" * 64
    with Client(secure.address, tls_pin=wrong) as client, pytest.raises(CertificateRefused) as told:
        client.server_info()
    assert PIN in str(told.value)
    async with AsyncClient(secure.address, tls_pin=wrong) as client:
        with pytest.raises(CertificateRefused):
            await client.server_info()


@pytest.mark.parametrize(
    ("trust", "code", "sentence"),
    [
        (("--pin", "sha256:" + "0" * 64), 3, "not the one in --pin"),
        (("--ca-file", str(CERTIFICATES / "client.pem")), 3, "certificate is signed by an"),
        (("--pin", "sha256:0"), 2, "--pin is 'sha256:0'"),
    ],
)
def test_a_certificate_that_is_not_trusted_has_its_exit_code(
    secure, picture, capsys, monkeypatch, tmp_path, trust, code, sentence
):
    """Not that of a mistyped command."""
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(tmp_path))
    assert code == run(["ask", "-a", secure.address, *trust, picture, "What?"])
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("delays_seconds", [(), (0,)])
async def test_a_silent_server_is_a_deadline_that_passes(call, relay, name, delays_seconds):
    """As without a pin, whether the first or the second of two connections is silent."""
    with pytest.raises(DeadlineExceeded, match=r"^The answer did not come within timeout_seconds"):
        await call(relay(*delays_seconds).address, name, 0.3)


@pytest.mark.parametrize("name", ["answer", "call"])
async def test_what_the_pin_took_is_taken_off_the_call(call, relay, secure, name, monkeypatch):
    """The server sees the rest of the deadline alone."""
    left, keep = [], secure.service._keep

    def note(request, context):
        left.append(context.time_remaining())
        keep(request, context)

    monkeypatch.setattr(secure.service, "_keep", note)
    await call(relay(0.3, 0.3, 0).address, name, 20)
    assert 10 < left[0] <= 19.5


async def test_a_twin_that_has_longer_does_not_hold_up_the_others(relay):
    """Of calls that wait for the same certificate each keeps its own deadline."""
    silent = relay()
    async with AsyncClient(silent.address, tls_pin=PIN) as client:
        patient = asyncio.create_task(client.server_info(timeout_seconds=60))
        assert await asyncio.to_thread(silent.accepted.wait, 60)
        with pytest.raises(DeadlineExceeded):
            await client.server_info(timeout_seconds=0.1)
        assert not patient.done()
        silent.close()
        with pytest.raises(CannotConnect):
            await patient


def test_a_thread_that_has_longer_does_not_hold_up_the_others(relay):
    """As of the twin's tasks."""
    silent, ends = relay(), []
    with Client(silent.address, tls_pin=PIN) as client:

        def wait():
            with pytest.raises(CannotConnect):
                client.server_info(timeout_seconds=60)
            ends.append("patient")

        patient = threading.Thread(target=wait)
        patient.start()
        assert silent.accepted.wait(60)
        with pytest.raises(DeadlineExceeded):
            client.server_info(timeout_seconds=0.1)
        assert [] == ends
        silent.close()
        patient.join(10)
        assert ["patient"] == ends
