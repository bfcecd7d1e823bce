"""Chats that are long: read while others are served, and refused in our words where too long."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from app_in_process import PATIENCE_SECONDS, RunningApp, run_app
from grpc import StatusCode
from imports import import_chat
from llavachat.v1 import chat_pb2 as pb
from llavachat.v1 import chat_pb2_grpc
from llavachat_server.chats.record import Chat
from llavachat_server.rpc import messages, whole_chat
from llavachat_server.rpc.auth import OPEN_TENANT
from llavachat_server.rpc.limits import MAX_REPLY_BYTES
from rpc_calls import failure, violation
from scripted_engine import NUM_IMAGE_TOKENS, ScriptedEngine, shapes_prompts
from store_records import end, make_chat, make_turn


class HeldPrompts:
    """The real prompts, which are shown only once they may be."""

    def __init__(self) -> None:
        self.is_shown, self.may_show = threading.Event(), threading.Event()
        self.num_shown = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(shapes_prompts(), name)

    def render(self, token_ids: tuple[int, ...]) -> str:
        """Wait, and do it."""
        self.num_shown += 1
        self.is_shown.set()
        assert self.may_show.wait(PATIENCE_SECONDS)
        return shapes_prompts().render(token_ids)


async def keep(app: RunningApp, chat: Chat) -> None:
    """Keep a whole chat as if it had been talked."""
    await app.app._service.desk.store.add_chat(chat, ())


def size_of(chat: Chat) -> int:
    """Of the reply that tells the chat without raw prompts."""
    return pb.GetChatResponse(chat=messages.chat(chat, NUM_IMAGE_TOKENS)).ByteSize()


@pytest.mark.parametrize("method", ["GetChat", "GetTurn"])
async def test_others_are_served_while_raw_prompts_are_told(method: str) -> None:
    """They take long in a long chat: that is the time of who asks for them alone."""
    engine = ScriptedEngine()
    async with run_app(engine) as app:
        chat_id = await app.start()
        turn_id = (await app.chat.GetChat(pb.GetChatRequest(chat_id=chat_id))).chat.turns[0].id
        held = engine.prompts = HeldPrompts()  # type: ignore[assignment]
        if method == "GetChat":
            reading = app.chat.GetChat(pb.GetChatRequest(chat_id=chat_id, include_raw_prompts=True))
        else:
            reading = app.chat.GetTurn(
                pb.GetTurnRequest(chat_id=chat_id, turn_id=turn_id, include_raw_prompt=True)
            )
        assert await asyncio.to_thread(held.is_shown.wait, PATIENCE_SECONDS)
        assert (await app.chat.GetServerInfo(pb.GetServerInfoRequest())).server_version
        held.may_show.set()
        assert b"USER: What is this? ASSISTANT:" in (await reading).SerializeToString()


async def test_many_turns_are_told_with_the_prompt_of_each() -> None:
    """More than are told at a time, in two branches: all are there, in their order, with theirs."""
    prompts = shapes_prompts()
    turns = []
    for number in range(2 * whole_chat._BATCH_TURNS + 3):
        parent = turns[number // 2 - 1].id if number > 1 else None
        ids = prompts.build_next_turn(f"Question {number}?")
        turns.append(end(make_turn(f"Question {number}?", parent_id=parent, question_ids=ids)))
    own = {"answer_ids": prompts.encode_text("Yes."), "tokenizer_sha256": prompts.tokenizer_sha256}
    turns = [replace(turn, **own) for turn in turns]
    chat = make_chat(OPEN_TENANT, turns=tuple(turns))
    async with run_app(ScriptedEngine()) as app:
        await keep(app, chat)
        request = pb.GetChatRequest(chat_id=chat.id, include_raw_prompts=True)
        told = (await app.chat.GetChat(request)).chat.turns
    assert [turn.id for turn in turns] == [turn.id for turn in told]
    for turn, message in zip(turns, told, strict=True):
        ids = prompts.join_turns(
            [(each.question_ids, each.answer_ids) for each in chat.branch(turn.parent_id)],
            turn.question_ids,
        )
        assert prompts.render(ids) == message.raw_prompt


@pytest.mark.parametrize("num_more", [0, 1])
async def test_the_largest_reply_is_sent_and_a_larger_one_refused(num_more: int) -> None:
    """To the byte where gRPC would refuse it, in our words, which say what would be right."""
    turn = end(make_turn("x" * MAX_REPLY_BYTES))
    chat = make_chat(OPEN_TENANT, turns=(turn,))
    num_surplus = size_of(chat) - MAX_REPLY_BYTES - num_more
    prompt = turn.prompt[:-num_surplus]
    chat = replace(chat, turns=(replace(turn, prompt=prompt),))
    assert MAX_REPLY_BYTES + num_more == size_of(chat)
    async with run_app(ScriptedEngine()) as app:
        await keep(app, chat)
        options = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(app.address, options) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            call = stub.GetChat(pb.GetChatRequest(chat_id=chat.id))
            if num_more == 0:
                assert MAX_REPLY_BYTES == (await call).ByteSize()
                return
            error = await failure(call)
    assert StatusCode.INVALID_ARGUMENT is error.code()
    field, expected = violation(error)
    assert "chat_id" == field
    assert "take more than the 67,108,864 bytes of one reply; ask for one turn" in expected


async def test_too_many_raw_prompts_are_not_told_to_their_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As soon as it is too much; without them the same chat is told."""
    ids = shapes_prompts().encode_text("And what is this? " * 100)
    own = {"question_ids": ids, "tokenizer_sha256": shapes_prompts().tokenizer_sha256}
    turns = tuple(end(make_turn("And?", **own)) for _ in range(500))
    chat = make_chat(OPEN_TENANT, turns=turns)
    monkeypatch.setattr(whole_chat, "MAX_REPLY_BYTES", size_of(chat))
    engine = ScriptedEngine()
    async with run_app(engine) as app:
        await keep(app, chat)
        prompts = engine.prompts = HeldPrompts()  # type: ignore[assignment]
        prompts.may_show.set()
        assert 500 == len((await app.chat.GetChat(pb.GetChatRequest(chat_id=chat.id))).chat.turns)
        request = pb.GetChatRequest(chat_id=chat.id, include_raw_prompts=True)
        error = await failure(app.chat.GetChat(request))
    assert StatusCode.INVALID_ARGUMENT is error.code()
    assert 0 < prompts.num_shown < 250
    field, expected = violation(error)
    assert "include_raw_prompts" == field
    assert expected.startswith("its 500 turns with the whole prompt of each take more")


async def test_a_prompt_that_no_model_saw_is_not_spelt() -> None:
    """An import may be far longer than the context: its last prompts are refused by name, and in
    the whole chat left out, while those that fit are told."""
    engine = ScriptedEngine(context_tokens=300)
    async with run_app(engine) as app:
        chat = (await app.chat.GetChat(pb.GetChatRequest(chat_id=await app.start()))).chat
        for number in range(1, 40):
            turn = chat.turns.add()
            turn.CopyFrom(chat.turns[0])
            turn.id, turn.parent_turn_id = f"t{number}", chat.turns[number - 1].id
        taken = await import_chat(app.chat, chat, ())
        prompts = engine.prompts = HeldPrompts()  # type: ignore[assignment]
        prompts.may_show.set()
        request = pb.GetChatRequest(chat_id=taken.id, include_raw_prompts=True)
        told = (await app.chat.GetChat(request)).chat.turns
        are_told = [turn.HasField("raw_prompt") for turn in told]
        num_told = sum(are_told)
        assert 1 < num_told == prompts.num_shown < 40
        assert [True] * num_told + [False] * (40 - num_told) == are_told
        last = pb.GetTurnRequest(chat_id=taken.id, turn_id=told[-1].id, include_raw_prompt=True)
        error = await failure(app.chat.GetTurn(last))
    assert StatusCode.FAILED_PRECONDITION is error.code()
    assert "never saw that prompt" in error.details()
    assert num_told == prompts.num_shown
