"""What messages take in memory, counted before they are unpacked: enough for all that is taken."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.rpc.access import (
    QUESTION_UNPACKED_BYTES,
    RULES,
    SMALL_REQUEST_BYTES,
    Unpacked,
    limit_import,
)
from llavachat_server.rpc.unpacked import Overfull, walk

BOUNDLESS = 2**63
MAX_IMAGES = 16
"""The most that a setting allows in one question."""
LARGE = [rule.unpacked for rule in RULES.values() if rule.unpacked is not None]


def name_kind(unpacked: Unpacked) -> str:
    """Of a parametrised test."""
    return unpacked.kind.name


def refuses(data: bytes, kind: Descriptor, max_bytes: int) -> bool:
    """Whether the message would take more."""
    try:
        for _ in walk(data, kind, max_bytes):
            pass
    except Overfull:
        return True
    return False


def params() -> pb.GenerationParams:
    """All of them."""
    return pb.GenerationParams(
        max_tokens=1,
        temperature=1,
        top_p=1,
        top_k=1,
        repetition_penalty=1,
        seed=1,
        stop=["."] * 8,
    )


def labels() -> dict[str, str]:
    """As many as may be, as long as may be."""
    return {f"{number:02}" + "\U0001f600" * 62: "\U0001f600" * 64 for number in range(16)}


def fullest_question() -> pb.StartChatRequest:
    """With every field, and as many pictures as any server takes."""
    return pb.StartChatRequest(
        images=[pb.Image(data=bytes(5000), num_frames=1)] * MAX_IMAGES,
        prompt="?",
        system_prompt="!",
        params=params(),
        request_id="1",
        overflow_policy=pb.OVERFLOW_POLICY_ERROR,
        labels=labels(),
    )


def fullest_turn(num_images: int) -> pb.Turn:
    """With every field."""
    image = pb.ImageInfo(
        id="0" * 64,
        width_pixels=1,
        height_pixels=1,
        num_tokens=1,
        media_type="image/png",
        num_frames=1,
    )
    second = Duration(seconds=1, nanos=1)
    now = Timestamp(seconds=1, nanos=1)
    return pb.Turn(
        id="1",
        parent_turn_id="2",
        prompt="?",
        answer="!",
        images=[image] * num_images,
        state=pb.TURN_STATE_FINISHED,
        finish_reason=pb.FINISH_REASON_EOS,
        params=params(),
        usage=pb.Usage(
            text_tokens=1,
            image_tokens=1,
            cached_tokens=1,
            completion_tokens=1,
            context_left_tokens=1,
        ),
        timings=pb.Timings(
            queue=second, vision=second, prefill=second, first_token=second, decode=second
        ),
        model=pb.ModelInfo(
            profile="1", name="1", revision="1", quantization="none", weights_sha256="0"
        ),
        create_time=now,
        finish_time=now,
        raw_prompt="?",
        imported=True,
    )


def leave_out_nothing(message: Message) -> None:
    """The message has all of its fields; or a test of the fullest one would show little."""
    assert list(message.DESCRIPTOR.fields) == [field for field, _ in message.ListFields()]


def test_the_fullest_question_is_taken() -> None:
    """With room for fields that a later contract may have."""
    question = fullest_question()
    leave_out_nothing(question)
    leave_out_nothing(question.params)
    assert question.ByteSize() > SMALL_REQUEST_BYTES
    data = question.SerializeToString()
    assert not refuses(data, question.DESCRIPTOR, QUESTION_UNPACKED_BYTES // 4)


@pytest.mark.parametrize("max_images", [0, 4, MAX_IMAGES])
def test_the_fullest_chat_is_taken(max_images: int) -> None:
    """Every turn with every field, and with the pictures of the chat's opening besides its own."""
    turn = fullest_turn(2 * max_images)
    chat = pb.Chat(turns=[turn] * 500, labels=labels())
    for part in (turn.params, turn.usage, turn.timings, turn.model):
        leave_out_nothing(part)
    unpacked = limit_import(500, max_images).unpacked
    assert unpacked is not None
    data = pb.ImportChatRequest(chat=chat).SerializeToString()
    assert not refuses(data, unpacked.kind, unpacked.max_bytes)
    # Twice as many turns would not do: the limit follows what a server takes.
    assert refuses(data, unpacked.kind, unpacked.max_bytes // 2)


def test_the_fullest_list_of_chats_is_small() -> None:
    """Of the requests that are no question and no chat it is the longest."""
    request = pb.ListChatsRequest(
        page_size=1000,
        page_token="x" * 256,
        labels=labels(),
        updated_since=Timestamp(seconds=2**40, nanos=1),
        updated_before=Timestamp(seconds=2**40, nanos=1),
    )
    leave_out_nothing(request)
    assert request.ByteSize() < SMALL_REQUEST_BYTES / 4


@pytest.mark.parametrize("unpacked", LARGE, ids=name_kind)
def test_lists_of_nothing_are_refused(unpacked: Unpacked) -> None:
    """Each list anywhere in a request, full of empty entries; and fields that nobody knows."""
    for path in list_paths(unpacked.kind):
        *outer, (last, _) = path
        data = entry(last, b"") * 2_000_000
        for number, _ in reversed(outer):
            data = entry(number, data)
        assert refuses(data, unpacked.kind, unpacked.max_bytes), path
    assert refuses(entry(1000, b"") * 2_000_000, unpacked.kind, unpacked.max_bytes)


def list_paths(kind: Descriptor) -> Iterator[tuple[tuple[int, str], ...]]:
    """The numbers and names of fields that lead to each list."""
    for field in kind.fields:
        step = (field.number, field.name)
        if field.is_repeated:
            yield (step,)
        if field.message_type is not None:
            yield from ((step, *path) for path in list_paths(field.message_type))


def varint(value: int) -> bytes:
    """As protobuf writes it."""
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def entry(number: int, data: bytes) -> bytes:
    """A field of a text, bytes or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def number_entry(number: int, value: int) -> bytes:
    """A field of a number."""
    return varint(number << 3) + varint(value)


UNGROUPED = [byte for byte in range(256) if byte & 7 in (0, 1, 2, 5)]
"""Bytes that begin no group, of which the contract has none."""
FIELDS = st.recursive(
    st.lists(st.sampled_from(UNGROUPED), max_size=8).map(bytes),
    lambda inner: st.lists(
        st.builds(entry, st.integers(1, 16), inner)
        | st.builds(number_entry, st.integers(1, 16), st.integers(0, 2**64 - 1)),
        max_size=4,
    ).map(b"".join),
    max_leaves=12,
)


@given(data=FIELDS, unpacked=st.sampled_from(LARGE))
def test_what_protobuf_reads_can_be_walked(data: bytes, unpacked: Unpacked) -> None:
    """And what can not be walked is no message for protobuf either."""
    try:
        assert not refuses(data, unpacked.kind, BOUNDLESS)
    except DecodeError:
        with pytest.raises(DecodeError):
            GetMessageClass(unpacked.kind).FromString(data)


@given(data=st.binary(), unpacked=st.sampled_from(LARGE), max_bytes=st.integers(0, 1000))
def test_no_bytes_end_it_otherwise(data: bytes, unpacked: Unpacked, max_bytes: int) -> None:
    """Whatever they are: it takes too much, is no message, or is let pass."""
    with suppress(DecodeError):
        refuses(data, unpacked.kind, max_bytes)
