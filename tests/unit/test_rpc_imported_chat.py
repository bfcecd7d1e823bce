"""The chat of an ImportChat: each limit of a question holds for it, and the tree must be one."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.record import TurnState
from llavachat_server.rpc import messages
from llavachat_server.rpc.imported_chat import ChatLimits, read_chat
from llavachat_server.rpc.requests import RequestLimits
from llavachat_server.values import InvalidField
from store_records import NOON, make_import, make_picture

LIMITS = ChatLimits(
    RequestLimits(max_prompt_chars=16_384, max_images_per_turn=4, max_tokens=1024, vocab_size=1280),
    max_turns=5,
    max_side_pixels=16_384,
)
GOOD = messages.chat(make_import(make_picture(1), make_picture(2)), num_image_tokens=64)
for number, turn in enumerate(GOOD.turns):
    turn.id = "abc"[number]
    if number:
        turn.parent_turn_id = "a"


def change(path: str, value: Any) -> Callable[[pb.Chat], None]:
    """Set a field, given by its path in the chat; None clears it."""

    def apply(chat: pb.Chat) -> None:
        target: Any = chat
        *steps, last = path.split(".")
        for step in steps:
            target = target[int(step)] if step.isdecimal() else getattr(target, step)
        if value is None:
            target.ClearField(last)
        elif isinstance(value, dict):
            getattr(target, last).update(value)
        elif isinstance(value, list):
            getattr(target, last).extend(value)
        else:
            setattr(target, last, value)

    return apply


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"),
    [
        ("turns", None, "chat.turns", "one turn or more"),
        ("turns", [pb.Turn()] * 4, "chat.turns", "7 turns; at most 5 in a chat"),
        ("labels", {"k": ""}, "chat.labels", "1 to 64 characters"),
        ("system_prompt", "x" * 20_000, "chat.system_prompt", "at most 16,384"),
        ("create_time.seconds", 2**60, "chat.create_time", "between the years 1 and 9999"),
        ("turns.0.id", "", "chat.turns[0].id", "is required"),
        ("turns.1.id", "a", "chat.turns[1].id", "each has its own"),
        ("turns.0.parent_turn_id", "b", "chat.turns[0].parent_turn_id", "parents come first"),
        ("turns.1.parent_turn_id", "b", "chat.turns[1].parent_turn_id", "parents come first"),
        ("turns.1.parent_turn_id", "", "chat.turns[1].parent_turn_id", "parents come first"),
        ("turns.0.prompt", " ", "chat.turns[0].prompt", "not blank"),
        ("turns.0.prompt", "a\0", "chat.turns[0].prompt", "NUL"),
        ("turns.0.prompt", "x" * 20_000, "chat.turns[0].prompt", "at most 16,384"),
        ("turns.1.answer", "x" * 16_385, "chat.turns[1].answer", "at most 16,384"),
        ("turns.0.state", 1, "chat.turns[0].state", "TURN_STATE_FINISHED, TURN_STATE_CANCELLED"),
        ("turns.0.state", 77, "chat.turns[0].state", "TURN_STATE_FINISHED"),
        ("turns.0.finish_reason", 6, "chat.turns[0].finish_reason", "FINISH_REASON_EOS"),
        ("turns.0.finish_reason", 99, "chat.turns[0].finish_reason", "FINISH_REASON_EOS"),
        ("turns.0.images", [pb.ImageInfo()], "chat.turns[0].images[3].id", "64 lower-case"),
        ("turns.0.images.0.id", "F" * 64, "chat.turns[0].images[0].id", "64 lower-case"),
        ("turns.0.images.0.width_pixels", 0, "chat.turns[0].images[0].width_pixels", "1 to"),
        ("turns.0.images.0.media_type", "a/b", "chat.turns[0].images[0].media_type", "image/png"),
        ("turns.0.params.seed", None, "chat.turns[0].params.seed", "is required"),
        ("turns.0.params.top_p", 7.0, "chat.turns[0].params.top_p", "over 0.0 to 1.0"),
        ("turns.0.params.stop", ["x"] * 9, "chat.turns[0].params.stop", "at most 8"),
        ("turns.0.model.quantization", "q4", "chat.turns[0].model.quantization", "none, int8"),
        ("turns.0.model.name", "x" * 257, "chat.turns[0].model.name", "at most 256"),
        ("turns.0.model.weights_sha256", "x", "chat.turns[0].model.weights_sha256", "64 lower"),
        ("turns.0.usage.text_tokens", -1, "chat.turns[0].usage.text_tokens", "0 or more"),
        ("turns.0.timings.decode.seconds", -1, "chat.turns[0].timings.decode", "1,000,000 seconds"),
        ("turns.0.timings.decode.nanos", -1, "chat.turns[0].timings.decode", "1,000,000 seconds"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: Any, field: str, expected: str) -> None:
    """By its path from the request's root, and with what would be right."""
    chat = pb.Chat()
    chat.CopyFrom(GOOD)
    change(path, value)(chat)
    with pytest.raises(InvalidField) as caught:
        read_chat(chat, "ada", LIMITS)
    assert field == caught.value.field
    assert expected in caught.value.expected


def test_a_good_chat_is_read_as_it_was_told() -> None:
    """Every value comes back, but for the ids and what only its own server knew."""
    read = read_chat(GOOD, "ada", LIMITS)
    told = messages.chat(read, num_image_tokens=64)
    told.update_time.CopyFrom(GOOD.update_time)
    assert GOOD == told
    assert ("ada", {"k": "v"}, NOON.hour) == (read.tenant, read.labels, read.created_at.hour)
    assert {True} == {turn.imported for turn in read.turns}
    assert ["a", "b", "c"] == [turn.id for turn in read.turns]
    assert TurnState.CANCELLED is read.turns[2].state
    assert {()} == {turn.question_ids for turn in read.turns}


def test_times_that_were_not_told_are_now() -> None:
    """A file made by hand need not know them."""
    chat = pb.Chat()
    chat.CopyFrom(GOOD)
    chat.ClearField("create_time")
    chat.turns[0].ClearField("create_time")
    chat.turns[0].ClearField("finish_time")
    before = datetime.now(UTC)
    read = read_chat(chat, "ada", LIMITS)
    assert before <= read.created_at == read.turns[0].created_at == read.turns[0].finished_at


@given(data=st.binary(max_size=200), cut=st.integers(0, 200))
def test_any_message_is_a_chat_or_a_named_field(data: bytes, cut: int) -> None:
    """Whatever the bytes of a chat say, nothing else is raised."""
    whole = GOOD.SerializeToString()
    chat = pb.Chat()
    try:
        chat.ParseFromString(whole[:cut] + data)
        chat.MergeFromString(data)
    except Exception:
        chat = pb.Chat()
    refusal = ""
    try:
        read_chat(chat, "ada", LIMITS)
    except InvalidField as error:
        refusal = error.field
    assert refusal == "" or refusal.startswith("chat.")
