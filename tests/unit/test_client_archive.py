"""Exported chats as JSON: what is written is read, and whatever is read is a chat or a sentence."""

import base64
import json
from dataclasses import replace
from datetime import UTC

import pytest
from archives import ARCHIVE, CHAT, CUT, TIME, TURN, chats, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat import ArchiveError
from llavachat._wire import exchange
from llavachat.archive import FORMAT, read_archive, write_archive
from llavachat.types import ChatArchive, FinishReason, TurnState


@given(
    chat=chats,
    originals=st.dictionaries(texts, st.binary(max_size=20), max_size=2),
    pictures=st.dictionaries(texts, st.binary(max_size=20), max_size=2),
)
def test_what_is_written_is_read(chat, originals, pictures):
    """Every value of a chat comes back equal."""
    archive = ChatArchive(chat, pictures, originals)
    assert archive == read_archive(write_archive(archive))
    assert archive == read_archive(write_archive(archive).encode())


def test_the_file_reads_by_itself():
    """Plain names, words for enums, times in ISO 8601, pictures in Base64; no raw prompts."""
    record = json.loads(write_archive(ARCHIVE))
    assert FORMAT == record["format"] == "llavachat-chat/1"
    assert base64.b64encode(ARCHIVE.pictures["0" * 64]).decode() == record["pictures"]["0" * 64]
    first, second = record["turns"]
    assert ("finished", "cancelled") == (first["state"], second["state"])
    assert "2026-11-22T12:30:01.000250+00:00" == first["create_time"]
    assert "raw_prompt" not in first
    assert 0.01 == first["timings"]["vision_seconds"]


def test_a_turn_that_runs_is_left_out():
    """It has no end that could be brought back."""
    running = replace(CUT, state=TurnState.RUNNING, finish_reason=FinishReason.UNSPECIFIED)
    archive = replace(ARCHIVE, chat=replace(CHAT, turns=(TURN, running)))
    assert (TURN,) == read_archive(write_archive(archive)).chat.turns


def test_members_that_are_not_known_are_passed_over():
    """A later release may add some without another format."""
    record = json.loads(write_archive(ARCHIVE))
    record["turns"][0]["mood"] = record["more"] = {"any": ["thing"]}
    assert ARCHIVE == read_archive(json.dumps(record))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (b"\xff\xfe", "This is no exported chat: it is not UTF-8 text."),
        ("{", "This is no exported chat: it is not JSON (line 1, column 2)."),
        ("", "This is no exported chat: it is not JSON (line 1, column 1)."),
        ("[" * 100_000, "This is no exported chat: its JSON can not be read."),
        ("9" * 5000, "This is no exported chat: its JSON can not be read."),
        ("[]", "This is no exported chat: it must be an object."),
        ("{}", 'This is no exported chat: "format" must be "llavachat-chat/1".'),
        (
            '{"format": "llavachat-chat/2"}',
            "The chat's format is 'llavachat-chat/2', and this release reads 'llavachat-chat/1'; "
            "install a newer llavachat.",
        ),
    ],
)
def test_another_file_is_told_as_such(source, sentence):
    """The sentence says what it is not."""
    with pytest.raises(ArchiveError) as caught:
        read_archive(source)
    assert sentence == str(caught.value)


def damage(path, value):
    """The archive with another value somewhere."""
    record = json.loads(write_archive(ARCHIVE))
    target = record
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (["turns"], None, "turns must be a list"),
        (["turns", 0], 7, "turns[0] must be an object"),
        (["turns", 0, "prompt"], None, "turns[0].prompt must be a text"),
        (["turns", 0, "prompt"], "\ud800", "turns[0].prompt must be whole Unicode characters"),
        (["turns", 1, "state"], "odd", "turns[1].state must be one of running, finished"),
        (["turns", 1, "state"], [], "turns[1].state must be one of"),
        (["turns", 0, "params", "seed"], 2**64, "turns[0].params.seed must be a whole number"),
        (["turns", 0, "params", "seed"], True, "turns[0].params.seed must be a whole number"),
        (["turns", 0, "params", "top_p"], float("nan"), "turns[0].params.top_p must be a number"),
        (["turns", 0, "params", "stop"], [1], "turns[0].params.stop[0] must be a text"),
        (["turns", 0, "usage", "text_tokens"], -1, "turns[0].usage.text_tokens must be a whole"),
        (["turns", 0, "timings", "queue_seconds"], 1e7, "turns[0].timings.queue_seconds must be"),
        (["turns", 0, "create_time"], "noon", "turns[0].create_time must be a time with its"),
        (["create_time"], "2026-01-01T00:00:00", "create_time must be a time with its time zone"),
        (["create_time"], "0001-01-01T00:00:00+23:00", "create_time must be a time with its"),
        (["labels"], {"k": 1}, "labels.k must be a text"),
        (["labels"], {"\ud800": "1"}, "labels.... must be whole Unicode"),
        (["pictures"], {"a": "*"}, "pictures.a must be a file in Base64"),
        (["pictures"], {"a": "é"}, "pictures.a must be a file in Base64"),
    ],
)
def test_damage_is_told_with_its_place(path, value, place):
    """The path of what is wrong, and what it must be."""
    with pytest.raises(ArchiveError, match="The exported chat is damaged: ") as caught:
        read_archive(damage(path, value))
    assert place in str(caught.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def list_paths(value, path=()):
    """Every place in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for step, item in items:
            yield from list_paths(item, (*path, step))


PATHS = [path for path in list_paths(json.loads(write_archive(ARCHIVE))) if path]


@settings(max_examples=300)
@given(path=st.sampled_from(PATHS), value=anything)
def test_whatever_stands_somewhere_is_a_chat_or_a_sentence(path, value):
    """And what is read can be put into the contract's messages."""
    sentence, operation = ".", None
    try:
        operation = exchange.import_chat(read_archive(damage(path, value)))
    except ArchiveError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    assert operation is None or "ImportChat" == operation.method


@settings(max_examples=300)
@given(source=st.binary() | st.text() | anything.map(json.dumps))
def test_any_other_file_is_a_sentence(source):
    """No traceback of the parser, whatever it is given."""
    with pytest.raises(ArchiveError, match=r"\.$"):
        read_archive(source)


@pytest.mark.parametrize("source", [5, None, {}, memoryview(b"{}")])
def test_what_is_neither_text_nor_bytes_is_a_sentence(source):
    """As what json.load has read already."""
    with pytest.raises(ArchiveError, match=r"^An exported chat is text or bytes, not \w+\.$"):
        read_archive(source)


@given(cut=st.integers(0, len(write_archive(ARCHIVE)) - 3))
def test_a_file_that_was_cut_short_is_a_sentence(cut):
    """As a broken download leaves it."""
    with pytest.raises(ArchiveError, match="it is not JSON"):
        read_archive(write_archive(ARCHIVE)[:cut])


def test_the_message_holds_the_chat():
    """Every field of the archive is in the parts that are sent, the pictures after the chat."""
    first, second = exchange.import_chat(ARCHIVE).request
    turn = first.chat.turns[0]
    assert ARCHIVE.pictures["0" * 64] == second.image
    assert ("", {"k": "v"}) == (first.chat.system_prompt, dict(first.chat.labels))
    assert (2**64 - 1, ["###"]) == (turn.params.seed, list(turn.params.stop))
    assert (640, "image/jpeg") == (turn.images[0].width_pixels, turn.images[0].media_type)
    assert 10_000_000 == turn.timings.vision.nanos
    assert TIME == turn.create_time.ToDatetime(UTC)
    assert not first.chat.turns[1].HasField("usage")
    assert "t1" == first.chat.turns[1].parent_turn_id
