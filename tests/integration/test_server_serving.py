"""A real server process on the embedded model, over a real socket."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server.values import hash_request_id
from pictures import draw_shape, encode, red_circle
from server_process import ServerProcess, run_server

CANARY = "a canary sings of quixotic zephyrs"


def connect(server: ServerProcess) -> Any:
    """An async stub."""
    return chat_pb2_grpc.ChatServiceStub(grpc.aio.insecure_channel(server.address))


def read_mapped(server: ServerProcess) -> str:
    """What files are mapped into a server's memory, among other things."""
    return Path(f"/proc/{server.process.pid}/maps").read_text()


async def answer(call: Any) -> tuple[list[pb.ChatEvent], str]:
    """A stream's events, and the text they carry."""
    events = [reply.event async for reply in call]
    return events, "".join(event.delta.text for event in events)


def about(picture: bytes, prompt: str = "What is this?", **fields: Any) -> pb.StartChatRequest:
    """The first question about a picture."""
    return pb.StartChatRequest(images=[pb.Image(data=picture)], prompt=prompt, **fields)


async def test_it_says_that_it_serves_after_an_answer(server: ServerProcess) -> None:
    """Health is SERVING, and the log shows the answer that came before."""
    stub = health_pb2_grpc.HealthStub(grpc.aio.insecure_channel(server.address))
    reply = await stub.Check(health_pb2.HealthCheckRequest(service="llavachat.v1.ChatService"))
    assert health_pb2.HealthCheckResponse.SERVING == reply.status
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    stages = [event["event"] for event in events]
    assert stages.index("warming up") < stages.index("warmed up") < stages.index("serving")
    assert 1 <= next(e["completion_tokens"] for e in events if e["event"] == "warmed up")


async def test_it_says_what_it_is(server: ServerProcess) -> None:
    """GetServerInfo: model, fingerprint, limits, defaults, libraries."""
    info = await connect(server).GetServerInfo(pb.GetServerInfoRequest())
    assert ("shapes", "none") == (info.model.profile, info.model.quantization)
    assert re.fullmatch("[0-9a-f]{64}", info.model.weights_sha256)
    assert (4096, 64) == (info.limits.context_tokens, info.limits.tokens_per_image)
    assert {"torch", "transformers"} <= set(info.library_versions)
    assert 0.0 == info.default_params.temperature
    assert info.device


@pytest.mark.usefixtures("kernels")
async def test_with_the_kernels_it_answers_the_same_without_torch(
    server: ServerProcess, kernels_folder: Path, tmp_path: Path
) -> None:
    """The likeliest answer and a drawn one; neither torch nor what compiles is in its memory."""
    (tmp_path / "compiled").symlink_to(kernels_folder)
    flags = ("--device", "cpu", "--compiled", "on")
    requests = [
        about(red_circle(), "Describe the picture."),
        about(
            red_circle(),
            "Describe the picture.",
            params=pb.GenerationParams(temperature=2.0, repetition_penalty=1.9, seed=5),
        ),
    ]
    by_torch = [(await answer(connect(server).StartChat(one)))[1] for one in requests]
    folder = str(tmp_path / "quantized")
    with run_server(tmp_path, *flags, "--quantized-folder", folder) as compiled:
        stub = connect(compiled)
        by_kernels = [(await answer(stub.StartChat(one)))[1] for one in requests]
        info = await stub.GetServerInfo(pb.GetServerInfoRequest())
        mapped = read_mapped(compiled)

    assert "cpu, compiled" == info.device
    assert by_torch == by_kernels
    assert by_torch[0] != by_torch[1]
    assert [] == [name for name in ("libtorch", "llvmlite", "numba") if name in mapped]


async def test_a_conversation_from_the_first_picture_to_its_end(server: ServerProcess) -> None:
    """Ask, ask again, read it back, count ahead, delete."""
    stub = connect(server)
    events, first = await answer(stub.StartChat(about(red_circle(), labels={"kind": "test"})))
    kinds = [event.WhichOneof("event") for event in events]
    assert ("started", "finished") == (kinds[0], kinds[-1])
    assert {"delta"} == set(kinds[1:-1])
    started, finished = events[0].started, events[-1].finished
    assert (320, 320, 64, "image/png") == (
        started.images[0].width_pixels,
        started.images[0].height_pixels,
        started.images[0].num_tokens,
        started.images[0].media_type,
    )
    assert all(started.params.HasField(name) for name in ("max_tokens", "temperature", "seed"))
    assert 64 == finished.usage.image_tokens
    assert finished.usage.completion_tokens >= len(kinds) - 2
    assert finished.timings.first_token.ToNanoseconds() > 0

    question = pb.ContinueChatRequest(chat_id=started.chat_id, prompt="What colour is it?")
    count = await stub.CountTokens(
        pb.CountTokensRequest(chat_id=started.chat_id, prompt="What colour is it?")
    )
    events, second = await answer(stub.ContinueChat(question))
    usage = events[-1].finished.usage
    assert count.total_tokens == usage.text_tokens + usage.image_tokens
    assert usage.cached_tokens > 64, "the picture's prefix was not found in the cache"
    assert started.turn_id == events[0].started.parent_turn_id

    request = pb.GetChatRequest(chat_id=started.chat_id, include_raw_prompts=True)
    chat = (await stub.GetChat(request)).chat
    assert [first, second] == [turn.answer for turn in chat.turns]
    assert chat.turns[1].raw_prompt.startswith(chat.turns[0].raw_prompt)
    assert f"{first}</s> USER: What colour is it? ASSISTANT:" in chat.turns[1].raw_prompt
    assert ("What is this?", {"kind": "test"}) == (chat.title, dict(chat.labels))
    listed = await stub.ListChats(pb.ListChatsRequest(labels={"kind": "test"}))
    assert [started.chat_id] == [found.id for found in listed.chats]
    await stub.DeleteChat(pb.DeleteChatRequest(chat_id=started.chat_id))
    listed = await stub.ListChats(pb.ListChatsRequest(labels={"kind": "test"}))
    assert [] == list(listed.chats)


async def test_an_erased_chat_is_erased_from_the_cache_too(server: ServerProcess) -> None:
    """The same question on the same picture begins from nothing, once both chats are gone."""
    stub = connect(server)
    # No other test's prompts begin so.
    request = about(red_circle(), system_prompt="To be forgotten: this test's own prompt.")
    asked = [(await answer(stub.StartChat(request)))[0] for _ in range(2)]
    for events in asked:
        await stub.DeleteChat(pb.DeleteChatRequest(chat_id=events[0].started.chat_id))
    asked.append((await answer(stub.StartChat(request)))[0])
    unknown, known, forgotten = (events[-1].finished.usage.cached_tokens for events in asked)
    assert (0, 0) == (unknown, forgotten)
    assert known > 64


async def test_greedy_answers_repeat_and_seeds_reproduce(server: ServerProcess) -> None:
    """The same question gets the same answer; a random one does with its seed."""
    stub = connect(server)
    greedy = [(await answer(stub.StartChat(about(red_circle()))))[1] for _ in range(2)]
    assert greedy[0] == greedy[1]
    params = pb.GenerationParams(temperature=1.5, max_tokens=24)
    events, first = await answer(stub.StartChat(about(red_circle(), params=params)))
    params.seed = events[0].started.params.seed
    _, again = await answer(stub.StartChat(about(red_circle(), params=params)))
    assert first == again


async def test_an_answer_may_be_bounded(server: ServerProcess) -> None:
    """max_tokens and a stop text end an answer, and say so."""
    stub = connect(server)
    params = pb.GenerationParams(max_tokens=2)
    events, _ = await answer(stub.StartChat(about(red_circle(), params=params)))
    finished = events[-1].finished
    assert (pb.FINISH_REASON_MAX_TOKENS, 2) == (
        finished.finish_reason,
        finished.usage.completion_tokens,
    )
    _, whole = await answer(stub.StartChat(about(red_circle())))
    stop = whole.split()[1]
    params = pb.GenerationParams(stop=[stop])
    events, cut = await answer(stub.StartChat(about(red_circle(), params=params)))
    finished = events[-1].finished
    assert (pb.FINISH_REASON_STOP_SEQUENCE, stop) == (
        finished.finish_reason,
        finished.matched_stop,
    )
    assert whole[: whole.index(stop)] == cut


async def test_a_cancelled_answer_is_kept_and_not_gone_on_from(server: ServerProcess) -> None:
    """The beginning of an answer that was cancelled is recorded; the next turn does not see it."""
    stub = connect(server)
    _, whole = await answer(stub.StartChat(about(red_circle())))
    for _ in range(20):
        replies = aiter(stub.StartChat(about(red_circle())))
        started = (await anext(replies)).event.started
        request = pb.CancelTurnRequest(chat_id=started.chat_id, turn_id=started.turn_id)
        turn = (await stub.CancelTurn(request)).turn
        events = [reply.event async for reply in replies]
        assert turn.finish_reason == events[-1].finished.finish_reason
        # An answer of a few words may have ended by itself before it was told to.
        if turn.state == pb.TURN_STATE_CANCELLED:
            break
    assert pb.TURN_STATE_CANCELLED == turn.state
    assert whole.startswith(turn.answer)
    again = pb.ContinueChatRequest(chat_id=started.chat_id, prompt="What is this?")
    events, answered = await answer(stub.ContinueChat(again))
    assert not events[0].started.HasField("parent_turn_id")
    assert whole == answered


async def test_no_word_of_a_chat_is_logged(server: ServerProcess) -> None:
    """The log has a line for the turn, and none of its content."""
    stub = connect(server)
    params = pb.GenerationParams(temperature=0.0)
    request = about(
        red_circle(),
        CANARY,
        request_id="canary-request",
        labels={"x": CANARY[:20]},
        params=params,
    )
    _, text = await answer(stub.StartChat(request))
    log = server.log.read_text()
    assert hash_request_id("canary-request") in log
    assert "canary-request" not in log
    assert "quixotic" not in log
    assert text.strip()
    assert text not in log


SHAPES = [
    ("circle", "red"),
    ("square", "blue"),
    ("triangle", "green"),
    ("star", "yellow"),
    ("circle", "black"),
    ("square", "orange"),
    ("triangle", "purple"),
    ("star", "pink"),
]


async def test_eight_chats_at_once_each_about_its_own_picture(server: ServerProcess) -> None:
    """Eight pictures, eight questions side by side: every answer names its own shape."""
    stub = connect(server)
    calls = [stub.StartChat(about(encode(draw_shape(shape, colour)))) for shape, colour in SHAPES]
    answers = [text.lower() for _, text in await asyncio.gather(*map(answer, calls))]
    expected = [f"{colour} {shape}" for shape, colour in SHAPES]
    wrong = [(e, a) for e, a in zip(expected, answers, strict=True) if e not in a]
    assert [] == wrong


async def test_neighbours_do_not_change_an_answer(server: ServerProcess) -> None:
    """What is answered alone is answered among seven neighbours, word for word."""
    stub = connect(server)
    pictures = [encode(draw_shape(shape, colour)) for shape, colour in SHAPES]
    alone = [(await answer(stub.StartChat(about(picture))))[1] for picture in pictures]
    calls = [stub.StartChat(about(picture)) for picture in pictures]
    together = [text for _, text in await asyncio.gather(*map(answer, calls))]
    assert alone == together


async def test_a_process_that_is_told_to_stop_ends_its_streams_well(tmp_path: Path) -> None:
    """SIGTERM without grace: streams finish or end UNAVAILABLE, never otherwise; exit code 0."""
    with run_server(tmp_path, "--grace-seconds", "0") as server:
        stub = connect(server)
        # More than run side by side, so that some have certainly not ended at the first word.
        calls = [stub.StartChat(about(red_circle())) for _ in range(24)]
        await calls[0].read()
        streams = [asyncio.create_task(answer(call)) for call in calls[1:]]
        code = await asyncio.to_thread(server.stop)
        ends = await asyncio.gather(*streams, return_exceptions=True)
    assert 0 == code, server.log.read_text()
    failed = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert {StatusCode.UNAVAILABLE} == {error.code() for error in failed}
    whole = [end[0] for end in ends if not isinstance(end, BaseException)]
    assert len(ends) == len(failed) + len(whole)
    assert {events[-1].WhichOneof("event") for events in whole} <= {"finished"}
    assert "stopped" in server.log.read_text()
