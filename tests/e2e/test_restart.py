"""A server that is killed in the middle of an answer, and the one that starts after it."""

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from llavachat import Client, TurnState
from llavachat.v1 import chat_pb2 as pb
from pictures import red_circle
from server_process import ServerProcess, run_server

LONG = pb.GenerationParams(max_tokens=400, temperature=1.9, seed=3, repetition_penalty=1.0)
"""Random words, which rarely end by themselves."""

ENDLESS = pb.GenerationParams(temperature=0.0, repetition_penalty=0.01)
"""What was said is said again, up to the server's own limit."""


def keep_in(folder: Path) -> tuple[str, ...]:
    """Flags of a server that keeps its chats in a folder."""
    return ("--store", "sqlite", "--state-folder", str(folder / "state"), "--audit", "content")


def ask(server: ServerProcess, request: pb.ContinueChatRequest) -> list[pb.ChatEvent]:
    """Ask the next question and read to the end."""
    return [reply.event for reply in server.stub().ContinueChat(request)]


def text(events: list[pb.ChatEvent]) -> str:
    """The answer."""
    return "".join(event.delta.text for event in events)


def test_a_killed_server_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """Kill -9 in mid-stream: what was finished is there, the chat goes on from its own ids, the
    question that was cut is answered by its repeat, once, and the audit record is whole."""
    first = pb.StartChatRequest(
        images=[pb.Image(data=red_circle())],
        prompt="What is this?",
        request_id="first",
        labels={"kind": "restart"},
    )
    with run_server(tmp_path, *keep_in(tmp_path)) as server:
        events = [reply.event for reply in server.stub().StartChat(first)]
        chat_id, answer = events[0].started.chat_id, text(events)
        before = server.stub().GetChat(pb.GetChatRequest(chat_id=chat_id, include_raw_prompts=True))
        cut_request = pb.ContinueChatRequest(
            chat_id=chat_id, prompt="Tell me all of it.", params=LONG, request_id="second"
        )
        stream = server.stub().ContinueChat(cut_request)
        seen = [next(stream).event for _ in range(3)]
        server.process.kill()
        with pytest.raises(grpc.RpcError) as caught:
            seen.extend(reply.event for reply in stream)
        assert grpc.StatusCode.UNAVAILABLE is caught.value.code()
        server.process.wait()
    (tmp_path / "ready").unlink()

    with run_server(tmp_path, *keep_in(tmp_path)) as server:
        stub = server.stub()
        after = stub.GetChat(pb.GetChatRequest(chat_id=chat_id, include_raw_prompts=True)).chat
        assert before.chat.turns[0] == after.turns[0]
        cut = after.turns[1]
        assert (pb.TURN_STATE_CANCELLED, seen[0].started.turn_id) == (cut.state, cut.id)
        listed = stub.ListChats(pb.ListChatsRequest(labels={"kind": "restart"})).chats
        assert [(chat_id, 2, "What is this?")] == [(c.id, c.num_turns, c.title) for c in listed]

        repeated = [reply.event for reply in stub.StartChat(first)]
        assert (chat_id, answer) == (repeated[0].started.chat_id, text(repeated))
        again = ask(server, cut_request)
        assert text(again).startswith(text(seen)), "the same seed gave another answer"
        assert text(again) == text(ask(server, cut_request))
        turns = stub.GetChat(
            pb.GetChatRequest(chat_id=chat_id, include_raw_prompts=True)
        ).chat.turns
        assert 3 == len(turns)
        assert turns[2].raw_prompt.startswith(turns[0].raw_prompt)
        assert f"{answer}</s> USER: Tell me all of it." in turns[2].raw_prompt

        resume = pb.ResumeTurnRequest(chat_id=chat_id, turn_id=turns[2].id, char_offset=5)
        rest = [reply.event for reply in stub.ResumeTurn(resume)]
        assert turns[2].answer == turns[2].answer[:5] + text(rest)
        verdict = list(stub.ReplayTurn(pb.ReplayTurnRequest(chat_id=chat_id, turn_id=turns[2].id)))
        assert verdict[-1].verdict.identical, verdict[-1]
        assert [] == list(verdict[-1].verdict.changes)
        assert 0 == server.stop()
    check_audit(tmp_path / "state" / "audit", chat_id, cut.id)


def test_a_repeat_is_cut_to_the_limits_of_today(tmp_path: Path) -> None:
    """Killed as it answered, and started with shorter answers: the question that named no limit is
    answered within today's, under its request_id; what was longer is not replayed, and says why."""
    whole = pb.StartChatRequest(prompt="What can you do?", params=LONG, request_id="whole")
    cut = pb.StartChatRequest(prompt="What is this? " * 300, params=ENDLESS, request_id="cut")
    with run_server(tmp_path, *keep_in(tmp_path)) as server:
        events = [reply.event for reply in server.stub().StartChat(whole)]
        started = events[0].started
        next(server.stub().StartChat(cut))
        server.process.kill()
        server.process.wait()
    (tmp_path / "ready").unlink()

    with run_server(tmp_path, *keep_in(tmp_path), "--max-tokens", "8") as server:
        stub = server.stub()
        events = [reply.event for reply in stub.StartChat(cut)]
        assert 8 == events[0].started.params.max_tokens
        assert 0 < events[-1].finished.usage.completion_tokens <= 8
        replay = pb.ReplayTurnRequest(chat_id=started.chat_id, turn_id=started.turn_id)
        with pytest.raises(grpc.RpcError, match="limit is 8") as caught:
            list(stub.ReplayTurn(replay))
        assert grpc.StatusCode.FAILED_PRECONDITION is caught.value.code()
        assert 0 == server.stop()


@pytest.mark.parametrize("keeps_chats", [True, False])
def test_a_reader_does_not_notice_that_the_server_was_killed(
    tmp_path: Path, *, keeps_chats: bool
) -> None:
    """The client goes on by itself: the answer is whole, and the one that an undisturbed server
    gives to the same seed; also where the chat went with the server."""
    store = keep_in(tmp_path) if keeps_chats else ()
    request = {"max_tokens": 400, "temperature": 1.9, "seed": 3}
    with run_server(tmp_path, *store) as server:
        address = server.address
        client = Client(address, timeout_seconds=120.0)
        expected = client.start(None, "Tell me all of it.", **request).read()
        reply = client.start(None, "Tell me all of it.", **request)
        pieces = iter(reply)
        first = next(pieces)
        server.process.kill()
        server.process.wait()
    (tmp_path / "ready").unlink()
    with run_server(tmp_path, "--listen", address, *store), client:
        assert expected == first + "".join(pieces)
        record = reply.chat.record()
        states = [turn.state for turn in record.turns]
        assert [TurnState.CANCELLED, TurnState.FINISHED][0 if keeps_chats else 1 :] == states
        assert record.turns[-1].id == reply.turn_id


def check_audit(folder: Path, chat_id: str, cut_turn_id: str) -> None:
    """Three turns ended, one was cut; and a changed byte is found."""
    (file,) = folder.glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {chat_id} == {line["chat_id"] for line in lines}
    assert ["turn", "cut", "turn"] == [line["event"] for line in lines]
    assert cut_turn_id == lines[1]["turn_id"]
    command = [sys.executable, "-m", "llavachat_server", "audit", "verify", str(folder)]
    whole = subprocess.run(command, capture_output=True, text=True)
    assert (0, "3 lines, nothing altered") == (whole.returncode, whole.stdout[:24])
    file.write_text(file.read_text().replace("What is this?", "What was this", 1))
    altered = subprocess.run(command, capture_output=True, text=True)
    assert 1 == altered.returncode
    assert "line 1, from byte 0: the line does not have the hash" in altered.stdout


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """It says which folder, and the first one serves on."""
    with run_server(tmp_path, *keep_in(tmp_path)) as server:
        command = [sys.executable, "-m", "llavachat_server", "--listen", "127.0.0.1:0"]
        done = subprocess.run(
            [*command, *keep_in(tmp_path), "--audit", "off"], capture_output=True, text=True
        )
        assert 1 == done.returncode
        assert "another server uses" in done.stderr.splitlines()[-1]
        assert server.stub().GetServerInfo(pb.GetServerInfoRequest()).device
        assert (tmp_path / "state" / "chats.db").exists()
