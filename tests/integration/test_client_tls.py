"""TLS, keys and metadata, over a socket."""

import re
import shutil
from pathlib import Path

import grpc
import pytest
from llavachat import (
    AsyncClient,
    AuthenticationFailed,
    CannotConnect,
    Client,
    ConfigurationError,
    ServerUnavailable,
)
from llavachat._wire.diagnosis import is_doubtful, look_closer
from llavachat.connection import Connection
from llavachat.errors import StatusDetails
from llavachat.v1 import error_details_pb2
from scripted_service import ScriptedServer, abort

CERTIFICATES = Path(__file__).parent.parent / "certificates"
CA = CERTIFICATES / "ca.pem"
CLIENT = {
    "tls_cert_file": CERTIFICATES / "client.pem",
    "tls_key_file": CERTIFICATES / "client.key",
}


def serve_tls(*, mutual=False):
    """A scripted service behind TLS."""
    pair = (CERTIFICATES / "server.key").read_bytes(), (CERTIFICATES / "server.pem").read_bytes()
    return ScriptedServer(
        grpc.ssl_server_credentials(
            [pair],
            root_certificates=CA.read_bytes() if mutual else None,
            require_client_auth=mutual,
        )
    )


@pytest.fixture
def secure():
    """A scripted service behind TLS."""
    server = serve_tls()
    yield server
    server.stop()


def test_tls_with_a_key(secure):
    """The key travels as a bearer token over an encrypted connection."""
    with Client(secure.address, tls_ca_file=CA, api_key="secret") as client:
        assert "A red circle." == client.start(None, "What?").read()
    assert "Bearer secret" == secure.service.metadata[0]["authorization"]


async def test_tls_for_the_twin(secure):
    """AsyncClient encrypts in the same way."""
    async with AsyncClient(secure.address, tls_ca_file=str(CA), api_key="secret") as client:
        assert "A red circle." == await client.start(None, "What?").read()
    assert "Bearer secret" == secure.service.metadata[0]["authorization"]


def test_an_unknown_authority_is_not_trusted(secure):
    """Without the CA the connection does not come about."""
    with (
        Client(secure.address, tls=True) as client,
        pytest.raises(CannotConnect, match="authority unknown here"),
    ):
        client.server_info(timeout_seconds=10)


def test_clear_text_to_a_tls_port_is_told(secure):
    """A forgotten --tls ends in a sentence, not in a hang."""
    with (
        Client(secure.address) as client,
        pytest.raises(CannotConnect, match="perhaps it wants TLS"),
    ):
        client.server_info(timeout_seconds=10)


def test_tls_to_a_clear_text_port_is_told():
    """An unneeded --tls ends in a sentence too."""
    server = ScriptedServer()
    try:
        with (
            Client(server.address, tls_ca_file=CA) as client,
            pytest.raises(CannotConnect, match="does not speak TLS"),
        ):
            client.server_info(timeout_seconds=10)
    finally:
        server.stop()


def test_the_expected_name_can_be_given(secure):
    """Behind a tunnel the certificate's name is not the address's; a wrong name is refused."""
    with Client(secure.address, tls_ca_file=CA, tls_server_name="llavachat.test") as client:
        assert "cpu" == client.server_info().device
    with (
        Client(secure.address, tls_ca_file=CA, tls_server_name="other.test") as client,
        pytest.raises(CannotConnect, match="for another name"),
    ):
        client.server_info(timeout_seconds=10)


def test_mutual_tls():
    """A server that asks for certificates gets ours, and refuses those who have none."""
    server = serve_tls(mutual=True)
    try:
        with Client(server.address, tls_ca_file=CA, **CLIENT) as client:
            assert "cpu" == client.server_info().device
        with Client(server.address, tls_ca_file=CA) as client, pytest.raises(ServerUnavailable):
            client.server_info(timeout_seconds=5)
    finally:
        server.stop()


def test_a_missing_certificate_names_its_file():
    """Told when the client is made."""
    with pytest.raises(ConfigurationError, match=r"tls_ca_file nowhere\.pem can not be read"):
        Client("localhost", tls_ca_file="nowhere.pem")


@pytest.mark.parametrize("path", ["~nosuchuser/x.pem", "a\0b"])
@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_a_certificate_whose_name_is_no_path_is_told(make, path):
    """Of the server's authority, and of one's own."""
    with pytest.raises(ConfigurationError, match=r"tls_ca_file .* its name is not a path\.$"):
        make("localhost", tls_ca_file=path)
    with pytest.raises(ConfigurationError, match=r"tls_key_file .* its name is not a path\.$"):
        make("localhost", tls=True, tls_cert_file=CA, tls_key_file=path)


def test_an_own_certificate_that_goes_away_is_told(secure, tmp_path):
    """Also when a pinned server is asked for its own, at the first call."""
    paths = {name: shutil.copy(path, tmp_path) for name, path in CLIENT.items()}
    with Client(secure.address, tls_pin="sha256:" + "0" * 64, **paths) as client:
        Path(paths["tls_key_file"]).unlink()
        with pytest.raises(ConfigurationError, match=r"client\.key can not be read\.$"):
            client.server_info()


@pytest.mark.parametrize(
    "files",
    [
        {"tls_ca_file": CERTIFICATES / "server.key"},
        {"tls_ca_file": __file__},
        {"tls_cert_file": CERTIFICATES / "client.pem", "tls_key_file": CERTIFICATES / "server.key"},
        {"tls_cert_file": CERTIFICATES / "client.key", "tls_key_file": CERTIFICATES / "client.pem"},
    ],
)
def test_files_that_are_no_certificates_are_told(files):
    """When the client is made, and by name; gRPC alone would log it and fail at the first call."""
    with pytest.raises(ConfigurationError, match=r"tls_\w+_file .*PEM certificate"):
        Client("localhost", tls=True, **files)


def test_metadata_goes_with_every_call(secure):
    """The client's own, the call's own over it, and the key which neither replaces."""
    with Client(secure.address, tls_ca_file=CA, metadata={"Tenant": "a", "x-b": "1"}) as client:
        client.start(None, "What?", metadata={"traceparent": "00-1-2-01", "x-b": "2"}).read()
        client.chat("chat-1").ask("And?", metadata={"traceparent": "00-3-4-01"}).read()
        client.server_info()
    first, second, third = secure.service.metadata
    assert ("a", "00-1-2-01", "2") == (first["tenant"], first["traceparent"], first["x-b"])
    assert ("00-3-4-01", "1") == (second["traceparent"], second["x-b"])
    assert ("a", False) == (third["tenant"], "traceparent" in third)
    assert "llavachat" in first["user-agent"]


def test_the_environment_makes_a_client(secure, monkeypatch):
    """What the command line does; an argument goes before the environment."""
    monkeypatch.setenv("LLAVACHAT_ADDRESS", secure.address)
    monkeypatch.setenv("LLAVACHAT_TLS_CA_FILE", str(CA))
    monkeypatch.setenv("LLAVACHAT_API_KEY", "secret")
    with Client.from_environment() as client:
        client.server_info()
    assert "Bearer secret" == secure.service.metadata[0]["authorization"]
    with Client.from_environment(address="127.0.0.1:9") as client:
        assert "127.0.0.1:9" == client.address


def mistakes():
    """Settings that do not fit a server, whether it is behind TLS, and what is to be said."""
    return pytest.mark.parametrize(
        ("behind_tls", "settings", "reason"),
        [
            (False, {"tls": True}, "it does not speak TLS"),
            (True, {"tls": True}, "certificate is (not trusted|signed by an authority unknown)"),
            (True, {}, "wants TLS"),
        ],
    )


@pytest.fixture
def named(behind_tls):
    """A server of either kind, by a name that has an address where nothing listens: gRPC finds
    [::1] in "localhost" even where the system's resolver does not."""
    server = serve_tls() if behind_tls else ScriptedServer()
    yield f"localhost:{server.address.rpartition(':')[2]}"
    server.stop()


REFUSED = CannotConnect(
    "No llavachat server answers there (connection refused).",
    StatusDetails(
        "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:1: "
        "Failed to connect to remote host: Connection refused"
    ),
)


@mistakes()
def test_a_refusal_of_another_address_is_looked_into(named, settings, reason):
    """What gRPC says every other time, when [::1] was the last that it tried."""
    connection = Connection(address=named, **settings)
    assert is_doubtful(REFUSED, connection)
    told = look_closer(REFUSED, connection)
    assert re.search(rf"answers at {named} \(.*{reason}", str(told))


@mistakes()
def test_a_name_with_two_addresses_tells_the_servers_own_reason(named, settings, reason):
    """Whichever gRPC tried last; by one client and by its twin."""
    with Client(named, **settings) as client, pytest.raises(CannotConnect, match=reason):
        client.server_info(timeout_seconds=10)


@mistakes()
async def test_the_twin_tells_it_too(named, settings, reason):
    """In a call with one answer, and in a stream."""
    async with AsyncClient(named, **settings) as client:
        with pytest.raises(CannotConnect, match=reason):
            await client.start(None, "What?", timeout_seconds=10).read()


def test_a_refusal_without_doubt_is_told_as_it_is(secure):
    """An address that is no name has no other; a name at which nothing listens is refused."""
    port = int(secure.address.rpartition(":")[2])
    assert not is_doubtful(REFUSED, Connection(address=f"127.0.0.1:{port}"))
    assert not is_doubtful(REFUSED, Connection(address=f"[::1]:{port}"))
    assert not is_doubtful(REFUSED, Connection(address="unix:/nowhere"))
    secure.stop()
    assert REFUSED is look_closer(REFUSED, Connection(address=f"localhost:{port}"))


@pytest.mark.parametrize(
    ("key", "sentence"),
    [(None, "The server wants a key."), ("wrong", "The server does not know this key.")],
)
async def test_a_refused_key_is_told_from_a_missing_one(secure, key, sentence):
    """The server says the same to both; neither is told of headers."""

    def answer(request, context):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field="authorization", description="Bearer KEY, once, with a key that is valid here"
        )
        detail = error_details_pb2.BadRequest(field_violations=[violation])
        abort(context, grpc.StatusCode.UNAUTHENTICATED, "send the header", detail)
        yield

    secure.service.answer = answer
    with (
        Client(secure.address, tls_ca_file=CA, api_key=key) as client,
        pytest.raises(AuthenticationFailed, match=rf"^{sentence}$") as refusal,
    ):
        client.start(None, "What?").read()
    assert "send the header" == refusal.value.details.message
    async with AsyncClient(secure.address, tls_ca_file=CA, api_key=key) as twin:
        with pytest.raises(AuthenticationFailed, match=rf"^{sentence}$"):
            await twin.start(None, "What?").read()
