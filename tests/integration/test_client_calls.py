"""Every call of `Client` besides the stream itself, against a scripted service."""

import math
import threading
from fractions import Fraction

import numpy as np
import pytest
from llavachat import (
    CallCancelled,
    Client,
    ImageError,
    InvalidRequest,
    NotFound,
    NotSupported,
    OverflowPolicy,
    ServerUnavailable,
)
from llavachat.v1 import chat_pb2
from PIL import Image

RED = Image.new("RGB", (8, 8), "red")
HUGE = pytest.param(10**400, id="huge")


def test_a_chat_goes_on(client, service):
    """`chat.ask` names the chat; `parent` names a turn, by object or id."""
    reply = client.start(RED, "What is this?")
    reply.read()
    assert "A red circle." == reply.chat.ask("And behind it?").read()
    history = reply.chat.history()
    assert ["What is this?", "And behind it?"] == [turn.prompt for turn in history]
    reply.chat.ask("Or?", parent=history[0]).read()
    reply.chat.ask("Or?", parent="turn-2", overflow=OverflowPolicy.DROP_OLDEST_TURNS).read()
    first, second, third = service.requests[-4], service.requests[-2], service.requests[-1]
    assert ("chat-1", False) == (first.chat_id, first.HasField("parent_turn_id"))
    assert ("turn-1", "turn-2") == (second.parent_turn_id, third.parent_turn_id)
    assert chat_pb2.OVERFLOW_POLICY_DROP_OLDEST_TURNS == third.overflow_policy


def test_parameters_arrive(client, service):
    """Every keyword argument finds its field."""
    client.start(
        None,
        "What?",
        system_prompt="Be brief.",
        labels={"job": "7"},
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.5,
        seed=2**63,
        stop=["END", "\n"],
        request_id="mine",
    ).read()
    request = service.requests[0]
    assert ("Be brief.", {"job": "7"}, "mine") == (
        request.system_prompt,
        dict(request.labels),
        request.request_id,
    )
    expected = chat_pb2.GenerationParams(
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.5,
        seed=2**63,
        stop=["END", "\n"],
    )
    assert expected == request.params


def test_wrong_pictures_and_questions_are_told_at_once(client, service):
    """Nothing is sent."""
    with pytest.raises(ImageError, match="does not exist"):
        client.start("nowhere.png", "What?")
    with pytest.raises(InvalidRequest):
        client.start(None, " ")
    assert [] == service.requests


def test_chats_are_listed_lazily(client, service):
    """A page is fetched when it is read, and not before."""
    for number in range(5):
        client.start(None, f"Question {number}").read()
    service.requests.clear()
    chats = client.chats(page_size=2, labels={"a": "b"})
    assert [] == service.requests
    assert "Question 0" == next(chats).title
    assert 1 == len(service.requests)
    assert ["chat-2", "chat-3", "chat-4", "chat-5"] == [chat.id for chat in chats]
    tokens = ["", "chat-1 chat-2", "chat-1 chat-2 chat-3 chat-4"]
    assert tokens == [request.page_token for request in service.requests]
    assert [{"a": "b"}] * 3 == [dict(request.labels) for request in service.requests]


def test_a_chat_is_told_and_erased(client):
    """Transcript in both forms, the raw prompt, and then NotFound."""
    reply = client.start(RED, "What is this?")
    reply.read()
    chat = reply.chat
    assert "**You:** What is this?" in chat.transcript()
    assert '"answer": "A red circle."' in chat.transcript("json")
    assert "<s>USER: What is this? ASSISTANT:" == chat.raw_prompt()
    assert "<s>USER: What is this? ASSISTANT:" == chat.raw_prompt(reply.turn_id)
    with pytest.raises(NotFound, match="no such turn"):
        chat.raw_prompt("turn-9")
    chat.delete()
    with pytest.raises(NotFound) as missing:
        chat.history()
    assert ("chat", chat.id) == missing.value.details.resource
    with pytest.raises(NotFound):
        client.delete_chat(chat.id)


def test_one_raw_prompt_does_not_fetch_them_all(client, service):
    """Each holds all the turns before it: together they outgrow a long chat by its length."""
    reply = client.start(RED, "What is this?")
    reply.read()
    assert reply.chat.raw_prompt()
    record, turn = service.requests[-2:]
    assert not record.include_raw_prompts
    assert (reply.turn_id, True) == (turn.turn_id, turn.include_raw_prompt)
    assert reply.chat.raw_prompt(reply.turn_id)
    assert turn == service.requests[-1]
    service.chats["chat-9"] = chat_pb2.Chat(id="chat-9")
    with pytest.raises(NotFound, match=r"^The chat has no turns yet\.$"):
        client.chat("chat-9").raw_prompt()


def test_tokens_are_counted(client, service):
    """For a first question and for a chat's next one."""
    assert 138 == client.count_tokens([RED, RED], "What?", system_prompt="").total_tokens
    assert 10 == client.chat("chat-1").count_tokens("What?", parent="turn-1").total_tokens
    assert ("chat-1", "turn-1") == (
        service.requests[-1].chat_id,
        service.requests[-1].parent_turn_id,
    )


def test_the_server_is_described(client):
    """Model, limits and defaults."""
    info = client.server_info()
    assert ("scripted-model", 512, 90.0, ("image/png",), 64) == (
        info.model.name,
        info.limits.context_tokens,
        info.limits.max_turn_seconds,
        info.limits.media_types,
        info.default_params.max_tokens,
    )


def test_a_call_of_a_later_release_is_not_supported(client):
    """UNIMPLEMENTED has its class: this service does not have ReplayTurn."""
    with pytest.raises(NotSupported):
        client.chat("chat-1").replay("turn-1")


def test_health_is_asked_without_the_health_package(client, service, scripted):
    """SERVING is True; NOT_SERVING, and nobody at all, is False."""
    assert client.is_healthy()
    service.is_serving = False
    assert not client.is_healthy()
    scripted.stop()
    assert not client.is_healthy(timeout_seconds=1)


@pytest.mark.parametrize("seconds", [1e9, 1e10, 1e300, math.inf])
def test_a_deadline_may_be_as_far_as_anybody_likes(client, seconds):
    """One past the year 2262 was over at once: gRPC could not count so far."""
    assert client.is_healthy(timeout_seconds=seconds)
    assert "cpu" == client.server_info(timeout_seconds=seconds).device
    assert "A red circle." == client.start(None, "What?", timeout_seconds=seconds).read()


@pytest.mark.parametrize("seconds", [np.float32(20), np.float64(20), Fraction(41, 2), HUGE])
def test_a_deadline_may_be_any_kind_of_number(scripted, seconds):
    """As it comes out of a computation; of the client, of an answer, of a call, of a wait."""
    times = {name: Fraction(3, 2) for name in ("keepalive_seconds", "resume_seconds")}
    with Client(scripted.address, timeout_seconds=seconds, **times) as client:
        client.wait_until_ready(timeout_seconds=seconds)
        assert "A red circle." == client.start(None, "What?").read()
        assert "cpu" == client.server_info(timeout_seconds=seconds).device


@pytest.mark.parametrize("is_used", [True, False])
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.server_info(),
        lambda client: client.start(None, "What?"),
        lambda client: client.chat("chat-1").ask("And?"),
        lambda client: client.image("0" * 64),
        lambda client: list(client.chats()),
        lambda client: client.is_healthy(),
        lambda client: client.wait_until_ready(),
    ],
)
def test_a_closed_client_says_so(client, is_used, call):
    """In the library's own error, also where it never was open."""
    if is_used:
        assert client.is_healthy()
    client.close()
    with pytest.raises(CallCancelled, match=r"^The client is closed; make another\.$"):
        call(client)


@pytest.mark.parametrize(
    "call",
    [lambda client: client.start(None, "What?").read(), lambda client: client.server_info()],
)
def test_a_client_that_is_closed_under_a_call_says_so(client, service, call):
    """By another thread, in the words of a client that was closed before."""
    release = threading.Event()

    def close_and_hold(*_):
        client.close()
        release.wait(10)

    service._keep = close_and_hold
    with pytest.raises(CallCancelled, match=r"^The client is closed; make another\.$"):
        call(client)
    release.set()


def test_a_client_that_is_closed_while_a_call_begins_says_so(client):
    """As by another thread: here by the very metadata that are read for the call."""

    class Closing(dict):
        def items(self):
            client.close()
            return super().items()

    with pytest.raises(CallCancelled, match="The client is closed"):
        client.start(None, "What?", metadata=Closing(x="1"))


def test_a_connection_may_be_trusted_for_ever(scripted):
    """Longer than the milliseconds that gRPC can count."""
    with Client(scripted.address, keepalive_seconds=1e10) as client:
        assert client.is_healthy()


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"x y": "1"}, "metadata's key 'x y' must be of ASCII letters, digits, -, _ and ."),
        ({"x": "secret\n"}, "metadata's x must be printable ASCII."),
        ([("x", "1")], "metadata must be a mapping of keys to values."),
    ],
)
def test_metadata_that_can_not_be_sent_are_told(client, service, metadata, sentence):
    """Their values are not: they may be secrets."""
    with pytest.raises(InvalidRequest) as refusal:
        client.start(None, "What?", metadata=metadata)
    assert sentence.rstrip(".") == str(refusal.value).rstrip(".")
    assert "metadata" == refusal.value.violations[0].field
    assert [] == service.requests


def test_metadata_may_be_of_any_kind_that_grpc_sends(client, service):
    """Text, and bytes where the key says so."""
    metadata = {"X-Text_1.a": "Half & half", "x-empty": "", "x-bytes-bin": b"\0\xff"}
    client.start(None, "What?", metadata=metadata).read()
    expected = {key.lower(): value for key, value in metadata.items()}
    assert expected.items() <= service.metadata[0].items()


def test_a_proxy_is_no_way_to_this_machine(scripted, monkeypatch):
    """http_proxy in the environment does not keep localhost from being reached."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(scripted.address) as client:
        assert "cpu" == client.server_info().device


def test_waiting_until_a_server_is_ready(client, service):
    """Returns once it serves, and says so when it does not."""
    service.is_serving = False
    threading.Timer(0.3, lambda: setattr(service, "is_serving", True)).start()
    client.wait_until_ready(timeout_seconds=10)
    service.is_serving = False
    with pytest.raises(ServerUnavailable, match=r"not ready within 0.3 seconds"):
        client.wait_until_ready(timeout_seconds=0.3)
