"""TLS, client certificates, and what an uninvited caller costs; over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from app_in_process import run_app
from grpc import StatusCode
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from scripted_engine import ScriptedEngine
from server_process import run_server

CERTIFICATES = Path(__file__).parent.parent / "certificates"
TLS = (
    "--tls-cert-file",
    str(CERTIFICATES / "server.pem"),
    "--tls-key-file",
    str(CERTIFICATES / "server.key"),
)
MIB = 1024 * 1024


def read(name: str) -> bytes:
    """A test certificate or key."""
    return (CERTIFICATES / name).read_bytes()


@asynccontextmanager
async def connect(address: str, **credentials: Any) -> AsyncIterator[Any]:
    """A stub over TLS."""
    secure = grpc.ssl_channel_credentials(root_certificates=read("ca.pem"), **credentials)
    async with grpc.aio.secure_channel(address, secure) as channel:
        yield chat_pb2_grpc.ChatServiceStub(channel)


async def test_tls_is_spoken_and_nothing_else() -> None:
    """With a certificate the server answers over TLS and refuses plain text."""
    async with run_app(ScriptedEngine(), *TLS) as app:
        async with connect(app.address) as stub:
            info = await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
            assert "shapes" == info.model.profile
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await app.chat.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
        assert StatusCode.UNAVAILABLE is caught.value.code()


async def test_client_certificates_are_demanded_where_an_authority_is_given() -> None:
    """With a client authority, a certificate of its opens the door and none does not."""
    flags = (*TLS, "--tls-client-ca-file", str(CERTIFICATES / "ca.pem"))
    async with run_app(ScriptedEngine(), *flags) as app:
        mine = {"private_key": read("client.key"), "certificate_chain": read("client.pem")}
        async with connect(app.address, **mine) as stub:
            assert (await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)).device
        async with connect(app.address) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
            assert StatusCode.UNAVAILABLE is caught.value.code()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
async def test_an_uninvited_caller_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    """Thirty calls of 16 MiB at once without a key cost a fraction of one round of bodies; so do
    thirty that stream as much."""
    keys = tmp_path / "keys"
    keys.write_text(f"anna {'0' * 64}\n")
    with run_server(tmp_path, "--keys-file", str(keys)) as server:
        body = pb.StartChatRequest(prompt="?", images=[pb.Image(data=b"x" * 16 * MIB)])
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            # What the first call of a process costs in any case is not what is measured.
            assert StatusCode.UNAUTHENTICATED is await stub.StartChat(pb.StartChatRequest()).code()
            before = server.count_peak_bytes()
            calls = [stub.StartChat(body) for _ in range(30)]
            codes = await asyncio.gather(*[call.code() for call in calls])
            assert {StatusCode.UNAUTHENTICATED} == set(codes)
        # By threads: gRPC's asyncio may tell a broken write instead of the status behind it.
        with grpc.insecure_channel(server.address) as plain:
            parts = [pb.ImportChatRequest(image=b"x" * 8 * MIB)] * 2
            stub = chat_pb2_grpc.ChatServiceStub(plain)
            imports = [stub.ImportChat.future(iter(parts)) for _ in range(30)]
            assert {StatusCode.UNAUTHENTICATED} == {call.code() for call in imports}
        grown = server.count_peak_bytes() - before
        assert 0 == server.stop()
    # 480 MiB were on their way; a server that reads bodies first grows by more than all of it, and
    # one that lets the sender run ahead by up to 60.
    assert grown < 10 * MIB
