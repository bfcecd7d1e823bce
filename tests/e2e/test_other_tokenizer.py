"""A server that is started anew on a model whose tokenizer gives words other ids."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from checkpoints import write_other_image_token, write_other_words
from google.rpc import error_details_pb2, status_pb2
from llavachat.v1 import chat_pb2 as pb
from pictures import red_circle
from server_process import run_server

TEMPLATE = "USER: <image> \nWhat is this? ASSISTANT: {}</s> USER: And now? ASSISTANT:"


@pytest.mark.parametrize("write", [write_other_words, write_other_image_token])
def test_a_chat_is_gone_on_with_from_its_words(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    """The model reads what was said, counted as it is used; what was answered with other ids is
    told without a raw prompt, and refused by name where that or a replay is asked for."""
    keep = ("--store", "sqlite", "--state-folder", str(tmp_path / "state"))
    with run_server(tmp_path, *keep) as server:
        request = pb.StartChatRequest(prompt="What is this?", images=[pb.Image(data=red_circle())])
        events = [reply.event for reply in server.stub().StartChat(request)]
        chat_id, turn_id = events[0].started.chat_id, events[0].started.turn_id
        answer = "".join(event.delta.text for event in events)
        assert 0 == server.stop()

    with run_server(tmp_path, *keep, "--model", str(write(tmp_path / "other"))) as server:
        stub = server.stub()
        count = stub.CountTokens(pb.CountTokensRequest(chat_id=chat_id, prompt="And now?"))
        ask = pb.ContinueChatRequest(chat_id=chat_id, prompt="And now?")
        usage = [reply.event for reply in stub.ContinueChat(ask)][-1].finished.usage
        assert count.total_tokens == usage.text_tokens + usage.image_tokens
        chat = stub.GetChat(pb.GetChatRequest(chat_id=chat_id, include_raw_prompts=True)).chat
        assert not chat.turns[0].HasField("raw_prompt")
        assert TEMPLATE.format(answer) in chat.turns[1].raw_prompt
        replay = pb.ReplayTurnRequest(chat_id=chat_id, turn_id=chat.turns[1].id)
        verdict = list(stub.ReplayTurn(replay))[-1].verdict
        assert (True, []) == (verdict.identical, list(verdict.changes))
        for call in (
            lambda: stub.GetTurn(
                pb.GetTurnRequest(chat_id=chat_id, turn_id=turn_id, include_raw_prompt=True)
            ),
            lambda: list(stub.ReplayTurn(pb.ReplayTurnRequest(chat_id=chat_id, turn_id=turn_id))),
        ):
            with pytest.raises(grpc.RpcError, match="answered with another tokenizer") as caught:
                call()
            assert "TOKENIZER_CHANGED" == read_violation(caught.value).type
        assert 0 == server.stop()


def read_violation(error: grpc.RpcError) -> error_details_pb2.PreconditionFailure.Violation:
    """The condition that was not met."""
    assert grpc.StatusCode.FAILED_PRECONDITION is error.code()
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    failure = error_details_pb2.PreconditionFailure()
    assert status_pb2.Status.FromString(details).details[0].Unpack(failure)
    return failure.violations[0]
