"""Requests: every field is checked, and a wrong one is named by its path."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.chats.question import ImageSource, NewChat, OverflowPolicy, Place
from llavachat_server.chats.store import PageMark
from llavachat_server.rpc.requests import (
    MAX_LABELS,
    RequestLimits,
    chat_query,
    continue_question,
    count_question,
    page_token,
    required_id,
    start_question,
)
from llavachat_server.values import InvalidField, Sampling

LIMITS = RequestLimits(max_prompt_chars=100, max_images_per_turn=2, max_tokens=50, vocab_size=1280)
IMAGE_ID = "ab" * 32


def start(**fields: Any) -> pb.StartChatRequest:
    """A good StartChat with some fields changed."""
    return pb.StartChatRequest(**{"prompt": "What is this?", **fields})


def refused_field(request: pb.StartChatRequest) -> str:
    """The path of the field that is refused."""
    with pytest.raises(InvalidField) as caught:
        start_question(request, LIMITS)
    assert caught.value.expected
    return caught.value.field


def test_a_whole_request_becomes_a_question() -> None:
    """Every field arrives."""
    request = start(
        images=[pb.Image(data=b"file"), pb.Image(image_id=IMAGE_ID)],
        system_prompt="",
        params=pb.GenerationParams(
            max_tokens=5,
            temperature=0.5,
            top_p=0.25,
            top_k=3,
            repetition_penalty=1.5,
            seed=2**64 - 1,
            stop=["END"],
        ),
        request_id="r 1",
        overflow_policy=pb.OVERFLOW_POLICY_DROP_OLDEST_TURNS,
        labels={"project": "x"},
    )
    question = start_question(request, LIMITS)
    assert NewChat("", {"project": "x"}) == question.where
    assert (ImageSource(data=b"file"), ImageSource(image_id=IMAGE_ID)) == question.images
    wishes = question.wishes
    assert (5, 0.5, 0.25, 3, 1.5) == (
        wishes.max_tokens,
        wishes.temperature,
        wishes.top_p,
        wishes.top_k,
        wishes.repetition_penalty,
    )
    assert (2**64 - 1, ("END",)) == (wishes.seed, wishes.stop)
    assert OverflowPolicy.DROP_OLDEST_TURNS is question.overflow
    assert ("What is this?", "r 1") == (question.prompt, question.request_id)


def test_what_is_not_set_stays_open() -> None:
    """Unset differs from zero: temperature 0 is a wish, no temperature is none."""
    open_wishes = start_question(start(), LIMITS).wishes
    assert (None, None, None) == (open_wishes.temperature, open_wishes.seed, open_wishes.stop)
    zero = start(params=pb.GenerationParams(temperature=0.0, seed=0, top_k=0))
    wishes = start_question(zero, LIMITS).wishes
    assert (0.0, 0, 0) == (wishes.temperature, wishes.seed, wishes.top_k)
    question = start_question(start(), LIMITS)
    assert isinstance(question.where, NewChat)
    assert None is question.where.system_prompt
    assert OverflowPolicy.ERROR is question.overflow


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n\t "}, "prompt"),
        ({"prompt": "x" * 101}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"system_prompt": "x" * 101}, "system_prompt"),
        ({"system_prompt": "\0"}, "system_prompt"),
        ({"images": [pb.Image(data=b"x")] * 3}, "images"),
        ({"images": [pb.Image(data=b"x"), pb.Image()]}, "images[1]"),
        ({"images": [pb.Image(url="https://example.org/a.png")]}, "images[0].url"),
        ({"images": [pb.Image(image_id="xyz")]}, "images[0].image_id"),
        ({"images": [pb.Image(image_id=IMAGE_ID.upper())]}, "images[0].image_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "é"}, "request_id"),
        ({"request_id": "a\nb"}, "request_id"),
        ({"overflow_policy": 99}, "overflow_policy"),
        ({"labels": {str(i): "x" for i in range(17)}}, "labels"),
        ({"labels": {"": "x"}}, "labels"),
        ({"labels": {"x": "y" * 65}}, "labels"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], path: str) -> None:
    """The refusal carries the path of the field."""
    assert path == refused_field(start(**fields))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_tokens", [0, -1, 51]),
        ("temperature", [-0.1, 2.1, float("nan"), float("inf")]),
        ("top_p", [0.0, -0.5, 1.1, float("nan")]),
        ("top_k", [-1, 1281]),
        ("repetition_penalty", [0.0, 2.1, float("nan")]),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, values: list[float]) -> None:
    """Each parameter has a range; what lies outside, or is no number, is refused by name."""
    for value in values:
        params = pb.GenerationParams(**{name: value})  # type: ignore[arg-type]
        assert f"params.{name}" == refused_field(start(params=params))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_tokens", [1, 50]),
        ("temperature", [0.0, 2.0]),
        ("top_p", [0.0009765625, 1.0]),
        ("top_k", [0, 1280]),
        ("repetition_penalty", [0.0009765625, 2.0]),
    ],
)
def test_parameters_at_the_edge_are_taken(name: str, values: list[float]) -> None:
    """The edges belong to the range."""
    for value in values:
        params = pb.GenerationParams(**{name: value})  # type: ignore[arg-type]
        question = start_question(start(params=params), LIMITS)
        assert value == getattr(question.wishes, name)


@pytest.mark.parametrize(
    ("stop", "path"),
    [(["x"] * 9, "params.stop"), (["ok", ""], "params.stop[1]"), (["y" * 65], "params.stop[0]")],
)
def test_stops_are_checked(stop: list[str], path: str) -> None:
    """At most 8 texts of 1 to 64 characters."""
    assert path == refused_field(start(params=pb.GenerationParams(stop=stop)))


def test_an_address_is_refused_with_a_way_out() -> None:
    """The server fetches nothing, and says what to do instead."""
    with pytest.raises(InvalidField, match="does not fetch addresses; send the file as data"):
        start_question(start(images=[pb.Image(url="https://example.org/a.png")]), LIMITS)


def test_body_hashes_tell_bodies_apart_and_ids_not() -> None:
    """The same body under two ids has one hash; any other field changes it; methods differ."""
    one = start_question(start(request_id="1", labels={"a": "1", "b": "2"}), LIMITS)
    two = start_question(start(request_id="2", labels={"b": "2", "a": "1"}), LIMITS)
    other = start_question(start(request_id="1", labels={"a": "1", "b": "3"}), LIMITS)
    assert one.body_sha256 == two.body_sha256 != other.body_sha256
    later = pb.ContinueChatRequest(chat_id="c", prompt="What is this?", request_id="1")
    assert continue_question(later, LIMITS).body_sha256 != one.body_sha256
    assert "" == start_question(start(), LIMITS).body_sha256


def test_body_hashes_do_not_depend_on_the_order_of_labels() -> None:
    """A map has none, and a client that asks again may send it in another."""
    pairs = [(f"label {number}", f"{number}") for number in range(MAX_LABELS)]
    hashes = set()
    for seed in range(20):
        Random(seed).shuffle(pairs)
        request = start(request_id="r")
        for key, value in pairs:
            request.labels[key] = value
        hashes.add(start_question(request, LIMITS).body_sha256)
    assert 1 == len(hashes)


def test_body_hashes_tell_methods_apart_by_more_than_their_bytes() -> None:
    """A picture of a new chat may read like the id of one that is there."""
    one = start(images=[pb.Image(image_id=IMAGE_ID)])
    other = pb.ContinueChatRequest.FromString(one.SerializeToString())
    assert one.SerializeToString() == other.SerializeToString()
    one.request_id = other.request_id = "r"
    first, second = start_question(one, LIMITS), continue_question(other, LIMITS)
    assert first.body_sha256 != second.body_sha256


def test_continuing_tells_an_unset_parent_from_an_empty_one() -> None:
    """Unset goes on from the latest turn, "" from none."""
    unset = continue_question(pb.ContinueChatRequest(chat_id="c", prompt="And?"), LIMITS)
    empty = continue_question(
        pb.ContinueChatRequest(chat_id="c", prompt="And?", parent_turn_id=""), LIMITS
    )
    assert (Place("c", None), Place("c", "")) == (unset.where, empty.where)
    with pytest.raises(InvalidField, match="chat_id"):
        continue_question(pb.ContinueChatRequest(prompt="And?"), LIMITS)


def test_counting_takes_a_chat_or_a_system_prompt() -> None:
    """A parent needs a chat, and a chat has its system prompt already."""
    new = count_question(pb.CountTokensRequest(prompt="?", system_prompt="Be brief."), LIMITS)
    assert NewChat("Be brief.") == new.where
    for fields, path in (
        ({"parent_turn_id": "t"}, "parent_turn_id"),
        ({"chat_id": "c", "system_prompt": "s"}, "system_prompt"),
        ({"chat_id": ""}, "chat_id"),
    ):
        with pytest.raises(InvalidField) as caught:
            count_question(pb.CountTokensRequest(prompt="?", **fields), LIMITS)
        assert path == caught.value.field


def test_ids_are_required_and_bounded() -> None:
    """Empty and endless ids are refused; what else an id may be is not the caller's to know."""
    assert "whatever" == required_id("chat_id", "whatever")
    for wrong in ("", "x" * 129):
        with pytest.raises(InvalidField):
            required_id("chat_id", wrong)


@pytest.mark.parametrize(
    ("told", "used"), [(1e-45, 0.0), (1e-38, 0.0), (9.9e-7, 0.0), (1e-6, 1e-6), (1e-4, 1e-4)]
)
def test_a_temperature_too_small_to_draw_by_is_greedy(told: float, used: float) -> None:
    """And a greedy answer's seed is 0."""
    params = pb.GenerationParams(temperature=told)
    for question in (
        start_question(start(params=params), LIMITS),
        continue_question(pb.ContinueChatRequest(chat_id="c", prompt="?", params=params), LIMITS),
    ):
        sampling = question.wishes.resolve(Sampling(max_tokens=1))
        assert pytest.approx(used, rel=1e-6, abs=0) == sampling.temperature
        assert used > 0 or sampling.seed == 0


def test_a_parent_is_bounded_like_every_id() -> None:
    """A refusal tells it back, and would not fit into the status."""
    fields = {"chat_id": "c", "prompt": "And?"}
    for kind, read in (
        (pb.ContinueChatRequest, continue_question),
        (pb.CountTokensRequest, count_question),
    ):
        for parent in ("", "z" * 128):
            assert Place("c", parent) == read(kind(**fields, parent_turn_id=parent), LIMITS).where
        with pytest.raises(InvalidField) as caught:
            read(kind(**fields, parent_turn_id="z" * 129), LIMITS)
        assert "parent_turn_id" == caught.value.field


def test_listing_has_defaults_and_limits() -> None:
    """No size asks for 50; sizes beyond 1000 and negative ones are refused."""
    assert 50 == chat_query(pb.ListChatsRequest()).limit
    assert 1000 == chat_query(pb.ListChatsRequest(page_size=1000)).limit
    for wrong in (-1, 1001):
        with pytest.raises(InvalidField, match="page_size"):
            chat_query(pb.ListChatsRequest(page_size=wrong))


def test_listing_reads_times() -> None:
    """Times arrive in UTC; impossible ones are refused."""
    query = chat_query(pb.ListChatsRequest(updated_since=Timestamp(seconds=60)))
    assert datetime(1970, 1, 1, 0, 1, tzinfo=UTC) == query.updated_since
    with pytest.raises(InvalidField, match="updated_before"):
        chat_query(pb.ListChatsRequest(updated_before=Timestamp(seconds=10**15)))


@given(
    microseconds=st.integers(0, 10**16),
    chat_id=st.text("0123456789abcdef", min_size=32, max_size=32),
)
def test_page_tokens_come_back_as_they_went(microseconds: int, chat_id: str) -> None:
    """A token leads to where its page ended, to the microsecond."""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    mark = PageMark(time, chat_id)
    assert mark == chat_query(pb.ListChatsRequest(page_token=page_token(mark))).after


def write_token(text: str) -> str:
    """A token that reads so within."""
    return base64.urlsafe_b64encode(text.encode()).decode()


@given(
    token=st.text(min_size=1, max_size=60)
    | st.builds("{}:{}".format, st.integers(), st.text(max_size=40)).map(write_token)
)
@example(token=write_token(f"{'9' * 23}:x"))
@example(token=write_token(f"-{'9' * 23}:x"))
def test_made_up_page_tokens_are_refused_or_read(token: str) -> None:
    """No token, however odd, raises anything else."""
    try:
        query = chat_query(pb.ListChatsRequest(page_token=token))
    except InvalidField as error:
        field = error.field
    else:
        field = "page_token" if query.after else ""
    assert "page_token" == field


def test_a_page_token_with_a_nul_is_refused() -> None:
    """No page has ended at such a chat, and not every store can look for it."""
    token = page_token(PageMark(datetime(2026, 11, 30, tzinfo=UTC), "x\0"))
    with pytest.raises(InvalidField, match="page_token: take next_page_token"):
        chat_query(pb.ListChatsRequest(page_token=token))


def test_addresses_pass_where_hosts_are_allowed() -> None:
    """What may be behind an address is the intake's business; here it is off or on."""
    limits = replace(LIMITS, takes_urls=True)
    url = "https://example.org/a.png"
    (source,) = start_question(start(images=[pb.Image(url=url)]), limits).images
    assert ImageSource(url=url) == source
