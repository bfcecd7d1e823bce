"""What callers say stays between them and the model: no log, error, record, metric or trace
repeats it.

Every method is called with marked prompts, pictures, labels and keys, rightly and wrongly, at the
debug level, over a real socket; then everything that the server wrote, said or sent is searched.
"""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
from figures_text import find_address, scrape
from google.protobuf.message import Message
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from otlp_receiver import receive_by_grpc
from pictures import draw_shape
from PIL import Image, PngImagePlugin
from reports import SPAN_ID, TRACE_ID
from server_process import run_server

KEY = "sk-zephyr-of-the-quixotic-canary-0123456789"
WRONG_KEY = "sk-wrong-quixotic-canary-9876543210"
SCRAPER_KEY = "sk-scraper-quixotic-canary-1357924680"
MARK = "quixotic"
"""In every text that a caller sends."""
UNKNOWN = "0" * 32


@dataclass
class Said:
    """What came back besides answers: statuses, their texts and their trailing metadata."""

    lines: list[str]

    def note(self, error: grpc.RpcError) -> None:
        """Keep all that an error tells."""
        assert isinstance(error, grpc.Call)
        trailing = [f"{key}={value!r}" for key, value in error.trailing_metadata() or ()]
        self.lines.append(f"{error.code()} {error.details()} {' '.join(trailing)}")


def draw_marked_picture() -> bytes:
    """A PNG whose metadata holds the mark."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", f"a {MARK} picture")
    file = io.BytesIO()
    draw_shape("star", "yellow").save(file, "PNG", pnginfo=info)
    return file.getvalue()


PICTURE = draw_marked_picture()
BROKEN = PICTURE[: len(PICTURE) // 2]


def make_requests(chat_id: str, turn_id: str, image_id: str) -> dict[str, list[Any]]:
    """For every method of the service, calls that succeed and calls that are refused."""
    picture = pb.Image(data=PICTURE)
    params = pb.GenerationParams(stop=[f"{MARK} stop"], max_tokens=8)
    known = {"chat_id": chat_id, "turn_id": turn_id}
    chat = pb.Chat(
        system_prompt=f"Be {MARK}.",
        labels={"team": MARK},
        turns=[
            pb.Turn(
                id="1",
                prompt=f"A {MARK} question?",
                answer=f"A {MARK} answer.",
                state=pb.TURN_STATE_FINISHED,
                finish_reason=pb.FINISH_REASON_EOS,
            )
        ],
    )
    return {
        "StartChat": [
            pb.StartChatRequest(
                images=[picture],
                prompt=f"Is this {MARK}?",
                system_prompt=f"You are {MARK}.",
                labels={"team": f"the {MARK} team"},
                params=params,
            ),
            pb.StartChatRequest(images=[pb.Image(data=BROKEN)], prompt=f"A {MARK} one?"),
            pb.StartChatRequest(images=[pb.Image(data=MARK.encode() * 9)], prompt=MARK),
            pb.StartChatRequest(
                images=[pb.Image(url=f"https://localhost/{MARK}.png")], prompt=MARK
            ),
            pb.StartChatRequest(prompt=f"{MARK} " * 4000),
            pb.StartChatRequest(prompt=MARK, params=pb.GenerationParams(temperature=-1)),
            pb.StartChatRequest(prompt=f"{MARK}\0"),
            pb.StartChatRequest(prompt="?", labels={f"{MARK} label" * 99: MARK}),
            pb.StartChatRequest(prompt="?", params=pb.GenerationParams(stop=[MARK * 99])),
        ],
        "ContinueChat": [
            pb.ContinueChatRequest(chat_id=chat_id, prompt=f"And {MARK}?", params=params),
            pb.ContinueChatRequest(chat_id=UNKNOWN, prompt=f"And {MARK}?"),
            pb.ContinueChatRequest(chat_id=UNKNOWN, prompt=MARK),
        ],
        "ResumeTurn": [pb.ResumeTurnRequest(**known), pb.ResumeTurnRequest(chat_id=UNKNOWN)],
        "ReplayTurn": [pb.ReplayTurnRequest(**known), pb.ReplayTurnRequest(chat_id=UNKNOWN)],
        "GetChat": [
            pb.GetChatRequest(chat_id=chat_id, include_raw_prompts=True),
            pb.GetChatRequest(chat_id=UNKNOWN),
        ],
        "GetTurn": [
            pb.GetTurnRequest(**known),
            pb.GetTurnRequest(chat_id=chat_id, turn_id=UNKNOWN),
        ],
        "ListChats": [
            pb.ListChatsRequest(labels={"team": f"the {MARK} team"}),
            pb.ListChatsRequest(page_token=MARK),
        ],
        "CountTokens": [
            pb.CountTokensRequest(prompt=f"How {MARK}?", images=[picture]),
            pb.CountTokensRequest(prompt=MARK, chat_id=UNKNOWN),
        ],
        "GetServerInfo": [pb.GetServerInfoRequest()],
        "CancelTurn": [pb.CancelTurnRequest(**known), pb.CancelTurnRequest(chat_id=UNKNOWN)],
        "GetImage": [
            pb.GetImageRequest(image_id=image_id),
            pb.GetImageRequest(image_id=image_id, original=True),
            pb.GetImageRequest(image_id=UNKNOWN),
        ],
        "ImportChat": [
            [pb.ImportChatRequest(chat=chat)],
            [pb.ImportChatRequest(chat=chat), pb.ImportChatRequest(image=BROKEN)],
            [pb.ImportChatRequest(chat=chat), pb.ImportChatRequest(original=PICTURE)],
            [pb.ImportChatRequest(image=MARK.encode())],
        ],
        "DeleteChat": [
            pb.DeleteChatRequest(chat_id=UNKNOWN),
            pb.DeleteChatRequest(chat_id=chat_id),
        ],
    }


def call_everything(address: str, said: Said) -> None:
    """Call every method with every request, and each first one with a wrong key as well."""
    # A state of a trace that is none is said as well.
    trace = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"), ("tracestate", f"{MARK}, not so"))
    right = (("authorization", f"Bearer {KEY}"), *trace)
    wrong = (("authorization", f"Bearer {WRONG_KEY}"),)
    with grpc.insecure_channel(address) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        first = pb.StartChatRequest(images=[pb.Image(data=PICTURE)], prompt=f"{MARK}?")
        started = next(iter(stub.StartChat(first, metadata=right))).event.started
        requests = make_requests(started.chat_id, started.turn_id, started.images[0].id)
        methods = pb.DESCRIPTOR.services_by_name["ChatService"].methods
        assert {method.name for method in methods} == set(requests), "call the new method too"
        for name, cases in requests.items():
            for case, key in [(cases[0], wrong), *((case, right) for case in cases)]:
                try:
                    read_all(getattr(stub, name), case, key)
                except grpc.RpcError as error:
                    said.note(error)


def read_all(call: Any, request: Any, metadata: Any) -> None:
    """Make a call of any kind and read its answer to the end."""
    reply = call(iter(request) if isinstance(request, list) else request, metadata=metadata)
    if not isinstance(reply, Message):
        for _ in reply:
            pass


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """All that the server wrote and said, by where it did."""
    folder = tmp_path_factory.mktemp("silence")
    keys = folder / "keys"
    keys.write_text(
        f"anna {sha256(KEY.encode()).hexdigest()}\n"
        f"monitor {sha256(SCRAPER_KEY.encode()).hexdigest()} scopes=metrics\n"
    )
    state = folder / "state"
    flags = ["--log-level", "debug", "--keys-file", str(keys)]
    flags += ["--store", "sqlite", "--state-folder", str(state), "--keep-originals"]
    flags += ["--metrics-listen", "127.0.0.1:0"]
    said = Said([])
    with receive_by_grpc() as received:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.address,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        with run_server(folder, *flags, environment=environment) as server:
            call_everything(server.address, said)
            figures = scrape(find_address(server.log.read_text()), SCRAPER_KEY).text
            # What was not sent yet is sent at the end.
            assert 0 == server.stop()
        yield {
            "the log": server.log.read_text(),
            "the audit record": "".join(
                path.read_text() for path in sorted((state / "audit").glob("*.jsonl"))
            ),
            "errors": "\n".join(said.lines),
            "the figures": figures,
            "the spans": "\n".join(map(str, received.traces)),
            "the metrics": "\n".join(map(str, received.metrics)),
        }


PLACES = ("the log", "the audit record", "errors", "the figures", "the spans", "the metrics")


@pytest.mark.parametrize("place", PLACES)
def test_no_word_of_a_caller_is_repeated(written: dict[str, str], place: str) -> None:
    """Prompts, system prompts, labels, stop strings, and what pictures carry with them."""
    assert written[place]
    assert [] == [line for line in written[place].splitlines() if MARK in line]


@pytest.mark.parametrize("place", PLACES)
def test_no_key_is_repeated(written: dict[str, str], place: str) -> None:
    """Neither a right one nor a wrong one, nor the better half of it."""
    assert KEY[10:] not in written[place]
    assert WRONG_KEY[10:] not in written[place]
    assert SCRAPER_KEY[10:] not in written[place]


@pytest.mark.parametrize("place", PLACES)
def test_no_picture_is_repeated(written: dict[str, str], place: str) -> None:
    """Not as text of any usual kind."""
    part = PICTURE[40:120]
    assert part.hex() not in written[place]
    assert base64.b64encode(PICTURE[39:120]).decode() not in written[place]
    assert repr(part)[2:-1] not in written[place]


def test_everything_was_told_of(written: dict[str, str]) -> None:
    """Or the search above would prove nothing: turns are in each place, and refusals."""
    assert '"event": "turn"' in written["the log"]
    assert '"event": "call refused"' in written["the log"]
    assert 'llavachat_turns_total{finish_reason="max_tokens"}' in written["the figures"]
    assert 'llavachat_refusals_total{reason="invalid_field"} 0.0' not in written["the figures"]
    assert "gen_ai.conversation.id" in written["the spans"]
    assert "invalid_field" in written["the spans"]
    assert "llavachat.tokens" in written["the metrics"]


def test_refusals_are_told_without_the_inside(written: dict[str, str]) -> None:
    """Errors came, and none shows a traceback, a path or an exception's name."""
    lines = written["errors"].splitlines()
    assert len(lines) > 20
    for word in ("Traceback", "Error(", "Exception", ".py", str(Path.cwd())):
        assert [] == [line for line in lines if word in line], word


def test_the_picture_is_a_picture() -> None:
    """The marked file opens and carries its mark, or the search above would prove nothing."""
    with Image.open(io.BytesIO(PICTURE)) as picture:
        assert f"a {MARK} picture" == picture.info["Comment"]
