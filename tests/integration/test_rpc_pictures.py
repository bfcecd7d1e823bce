"""Evil pictures and addresses at a real server, by every call that takes pictures."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from app_in_process import PATIENCE_SECONDS, run_app
from corpus.containers import gif
from corpus.evil import BOMBS, SLOW
from google.rpc import error_details_pb2, status_pb2
from imports import write_parts
from llavachat import Client
from llavachat.cli.app import run
from llavachat.v1 import chat_pb2 as pb
from pictures import red_circle
from processes import Gauge, children, wait_until_gone
from scripted_engine import ScriptedEngine
from server_process import ServerProcess, run_server

SMALL_BOMBS = [(evil.make(), evil.says) for evil in BOMBS if "11 MiB" not in evil.name]
"""Whose own bytes do not matter beside what they would take when decoded."""


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str, str]:
    """How a call is refused: code, field and what is said of it."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return read_refusal(caught.value)


def read_refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, str]:
    """Code, field and description of an INVALID_ARGUMENT."""
    trailer = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(trailer)
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            return error.code(), request.field_violations[0].field, error.details()
    return error.code(), "", error.details()


def test_every_call_takes_pictures_by_the_same_way(server: ServerProcess) -> None:
    """The same bomb gets the same sentence wherever it is thrown."""
    stub = server.stub()
    (started, *_) = stub.StartChat(
        pb.StartChatRequest(prompt="What is this?", images=[pb.Image(data=red_circle())])
    )
    chat_id = started.event.started.chat_id
    chat = stub.GetChat(pb.GetChatRequest(chat_id=chat_id)).chat
    for data, says in SMALL_BOMBS:
        images = [pb.Image(data=data)]
        calls = (
            lambda i=images: [*stub.StartChat(pb.StartChatRequest(prompt="?", images=i))],
            lambda i=images: [
                *stub.ContinueChat(pb.ContinueChatRequest(chat_id=chat_id, prompt="?", images=i))
            ],
            lambda i=images: stub.CountTokens(pb.CountTokensRequest(prompt="?", images=i)),
        )
        for call in calls:
            code, field, details = refusal(call)
            assert (grpc.StatusCode.INVALID_ARGUMENT, "images[0].data") == (code, field)
            assert details.startswith(f"images[0].data: {says}"), details
        parts = write_parts(chat, [data])
        code, field, details = refusal(lambda p=parts: stub.ImportChat(iter(p)))
        assert (grpc.StatusCode.INVALID_ARGUMENT, "image[0]") == (code, field)
        assert details.startswith(f"image[0]: {says}"), details


def test_bombs_cost_the_server_no_memory(server: ServerProcess) -> None:
    """While bombs are thrown, the server and its processes take at most 20 MiB more."""
    stub = server.stub()

    def throw_all() -> None:
        for data, _ in SMALL_BOMBS:
            refusal(
                lambda d=data: [  # type: ignore[misc]
                    *stub.StartChat(pb.StartChatRequest(prompt="?", images=[pb.Image(data=d)]))
                ]
            )

    throw_all()
    with Gauge(server.process.pid) as gauge:
        throw_all()
    assert gauge.grown_mib < 20


STOPPED = ("images[0].data", f"images[0].data: {SLOW.says} it down or save it anew")
BUSY = (grpc.StatusCode.UNAVAILABLE, "", "the server can not look at pictures now")
"""On a machine that is so busy that the decoder had no time to use up."""


def stalls(stub: object, is_over: threading.Event) -> Iterator[float]:
    """The longest pause within each of the streams that a neighbour reads, one after another."""
    while not is_over.is_set():
        request = pb.StartChatRequest(prompt="What is this?", images=[pb.Image(data=red_circle())])
        longest, last = 0.0, 0.0
        for _ in stub.StartChat(request):  # type: ignore[attr-defined]
            now = time.monotonic()
            longest, last = max(longest, now - last if last else 0.0), now
        yield longest


@pytest.fixture
def strict_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that gives a picture a second."""
    with run_server(tmp_path, "--max-image-cpu-seconds", "1") as running:
        yield running


def test_slow_pictures_stall_nobody(strict_server: ServerProcess) -> None:
    """While pictures are decoded that only the clock stops, a neighbour's streams run on."""
    server = strict_server
    is_over, outcomes = threading.Event(), []
    slow = SLOW.make()

    def attack() -> None:
        request = pb.StartChatRequest(prompt="?", images=[pb.Image(data=slow)])
        outcomes.append(refusal(lambda: [*server.stub().StartChat(request)]))

    def attack_all() -> None:
        threads = [threading.Thread(target=attack) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        is_over.set()

    thread = threading.Thread(target=attack_all)
    thread.start()
    found = list(stalls(server.stub(), is_over))
    thread.join()
    # A second is what a picture computes at least; and a test's machine may have better things to
    # do than to read on for a moment.
    assert sorted(found)[len(found) // 2] < 1, found
    assert 2 == len(outcomes)
    for outcome in outcomes:
        assert outcome == BUSY or outcome[1:] == STOPPED, outcome


def test_stopping_ends_the_decoders(tmp_path: Path) -> None:
    """A server that was told to stop leaves no process, and ends well."""
    with run_server(tmp_path) as server:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(decoders := children(server.process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 3 == len(decoders)
        assert 0 == server.stop()
        wait_until_gone(*decoders)


async def test_addresses_are_off_by_default() -> None:
    """Without a list of hosts no address is fetched, and the refusal says what to do."""
    async with run_app(ScriptedEngine()) as running:
        with pytest.raises(grpc.RpcError) as caught:
            await running.start(images=[pb.Image(url="https://pictures.example.org/a.png")])
        assert read_refusal(caught.value) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "images[0].url",
            "images[0].url: this server does not fetch addresses; send the file as data",
        )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://evil.org/a.png", "is on a host that this server does not fetch from"),
        ("https://pictures.example.org/a.png", "is on a host that can not be reached"),
        ("http://pictures.example.org/a.png", "must begin with https://"),
    ],
)
async def test_addresses_are_checked(monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    """With a list, a host outside it is refused, and one in it that resolves inside as well."""

    def resolve_inside(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert "pictures.example.org" == host
        return [(2, 1, 6, "", ("169.254.169.254", port))]

    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *words, **options: (
            resolve_inside(host, *words, **options)
            if host == "pictures.example.org"
            else real(host, *words, **options)
        ),
    )
    flags = ("--image-url-hosts", "pictures.example.org")
    async with run_app(ScriptedEngine(), *flags) as running:
        with pytest.raises(grpc.RpcError) as caught:
            await running.start(images=[pb.Image(url=url)])
        code, field, details = read_refusal(caught.value)
        assert (grpc.StatusCode.INVALID_ARGUMENT, "images[0].url") == (code, field)
        assert details.startswith(f"images[0].url: {says}"), details
        count = pb.CountTokensRequest(prompt="?", images=[pb.Image(url=url)])
        with pytest.raises(grpc.RpcError) as caught:
            await running.chat.CountTokens(count)
        assert details == caught.value.details()


def test_of_a_moving_picture_the_number_of_frames_is_told(
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether the file moves or a client says that it did: in the answer, the chat and its export,
    and by the command line in a sentence. Nonsense is refused."""
    stub, moving = server.stub(), tmp_path / "moving.gif"
    moving.write_bytes(gif(12))
    images = [
        pb.Image(data=gif(12)),
        pb.Image(data=red_circle(), num_frames=7),
        pb.Image(data=red_circle()),
    ]
    first, *_ = stub.StartChat(pb.StartChatRequest(prompt="What is this?", images=images))
    started = first.event.started
    chat = stub.GetChat(pb.GetChatRequest(chat_id=started.chat_id)).chat
    for told in (started.images, chat.turns[0].images):
        assert [12, 7, 1] == [image.num_frames for image in told]
    for wrong in (-1, 10_001):
        refused = pb.Image(data=red_circle(), num_frames=wrong)
        code, field, _ = refusal(
            lambda i=refused: [*stub.StartChat(pb.StartChatRequest(prompt="?", images=[i]))]
        )
        assert (grpc.StatusCode.INVALID_ARGUMENT, "images[0].num_frames") == (code, field)

    monkeypatch.setenv("LLAVACHAT_ADDRESS", server.address)
    monkeypatch.setenv("LLAVACHAT_STATE_DIR", str(tmp_path / "state"))
    assert 0 == run(["ask", str(moving), "What is this?"])
    sentence = f"llavachat: {moving} has 12 frames; only the first was looked at.\n"
    assert sentence in capsys.readouterr().err
    with Client(server.address) as client:
        (mine,) = list(client.chats())[:1]
        assert 12 == client.chat(mine.id).record().turns[0].images[0].num_frames
        text = client.chat(started.chat_id).export()
        imported = client.import_chat(text).record()
        assert [12, 7, 1] == [image.num_frames for image in imported.turns[0].images]
        assert "the first of 12 frames" in client.chat(mine.id).export("html")
        assert "the first of 12 frames" in client.chat(mine.id).export("markdown")
