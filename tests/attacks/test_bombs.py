"""Requests that are small on the wire and large in memory, and requests that would stay there."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.rpc.access import RULES
from server_process import ServerProcess, run_server

MIB = 1024**2
BOMB_BYTES = 51_000_000
"""As much as gRPC lets through; 50 KB on the wire."""
COPIES = 3
"""Of one message at a time, in gRPC and in Python, besides what is made of it."""
MADE_BYTES = 100 * MIB
NEIGHBOUR_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
START = "/llavachat.v1.ChatService/StartChat"
HEALTH = "/grpc.health.v1.Health/"

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all of them, one after another; it must end well."""
    with run_server(tmp_path_factory.mktemp("bombed")) as running:
        yield running
        assert 0 == running.stop(), running.log.read_text()[-3000:]


@contextmanager
def bearing(server: ServerProcess, num_bytes: int) -> Iterator[None]:
    """Meanwhile the server grows by less than so much, and a neighbour is answered."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    before = server.count_resident_bytes()
    over, times, stub = threading.Event(), [], server.stub()

    def ask() -> None:
        while not over.is_set() or not times:
            began = time.perf_counter()
            stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
            times.append(time.perf_counter() - began)

    neighbour = threading.Thread(target=ask)
    neighbour.start()
    try:
        yield
    finally:
        over.set()
        neighbour.join()
    assert server.count_peak_bytes() - before < num_bytes
    assert median(times) < NEIGHBOUR_SECONDS
    assert max(times) < PATIENCE_SECONDS


def call(
    server: ServerProcess,
    method: str,
    request: bytes,
    compression: grpc.Compression = grpc.Compression.Gzip,
) -> str:
    """Call a method, by default with what a small message unpacks to; the refusal's words."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.address, options) as channel:
        replies = channel.unary_stream(method)(request, timeout=60, compression=compression)
        try:
            next(replies)
        except grpc.RpcError as error:
            return str(error.details())  # type: ignore[attr-defined]
    return ""


def varint(value: int) -> bytes:
    """As protobuf writes it."""
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def entry(number: int, data: bytes) -> bytes:
    """A field of a text, bytes or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def fill_lists(kind: Descriptor) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """A way to each list anywhere in a message, and the message with that list full of nothing."""
    for field in kind.fields:
        name, number = field.name, field.number
        if field.is_repeated:
            yield name, lambda number=number: entry(number, b"") * (BOMB_BYTES // 2)
        if field.message_type is not None:
            for rest, fill in fill_lists(field.message_type):
                yield f"{name}.{rest}", lambda number=number, fill=fill: entry(number, fill())


BOMBS = [
    pytest.param(f"/{service.full_name}/{method.name}", fill, id=f"{method.name}-{path}")
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    for path, fill in fill_lists(method.input_type)
]


@pytest.mark.parametrize(("method", "fill"), BOMBS)
def test_a_list_of_nothing_is_refused_before_it_is_made(
    server: ServerProcess, method: str, fill: Callable[[], bytes]
) -> None:
    """However many entries: each would take up to a hundred times what it takes on the wire."""
    assert method in RULES
    bomb = fill()
    with bearing(server, COPIES * len(bomb) + MADE_BYTES):
        assert call(server, method, bomb).startswith("request: has ")


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_a_stranger_leaves_nothing_behind(server: ServerProcess, method: str) -> None:
    """Twelve health checks of 51 MB, one after another, as anybody may send them."""
    bomb = entry(1, b"a" * BOMB_BYTES)
    with bearing(server, COPIES * len(bomb) + MADE_BYTES):
        for _ in range(12):
            assert call(server, HEALTH + method, bomb).endswith("at most 4,096 here")


def test_refused_pictures_do_not_stay(server: ServerProcess) -> None:
    """Thirty questions of 40 MB each, one after another, none of which is answered."""
    picture = pb.Image(data=os.urandom(10 * MIB - 1))
    request = pb.StartChatRequest(images=[picture] * 4).SerializeToString()
    with bearing(server, COPIES * len(request) + MADE_BYTES):
        for _ in range(30):
            said = call(server, START, request, grpc.Compression.NoCompression)
            assert "prompt: is required, and not blank" == said
