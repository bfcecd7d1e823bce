"""Values into messages and back: nothing is lost, nothing is made up."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.descriptor import EnumDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat._wire import exchange, requests, responses
from llavachat.errors import NOT_SENT, FieldViolation, InvalidRequest
from llavachat.images import Picture
from llavachat.types import FinishReason, ImageInfo, OverflowPolicy, Params, TurnState
from llavachat.v1 import chat_pb2

PICTURE = Picture(b"bytes", "image/png", 4, 3)
NO_PARAMS = Params()


def start(prompt="What?", images=(), **changes):
    """A StartChat operation."""
    arguments = {
        "system_prompt": None,
        "labels": None,
        "params": NO_PARAMS,
        "overflow": None,
        "request_id": None,
    }
    return requests.start_chat(images, prompt, **{**arguments, **changes})


def go_on(chat_id, **changes):
    """A ContinueChat operation."""
    arguments = {"parent_turn_id": None, "params": NO_PARAMS, "overflow": None, "request_id": None}
    return requests.continue_chat(chat_id, (), "And?", **{**arguments, **changes})


def list_chats(**changes):
    """A ListChats operation."""
    arguments = {"page_size": 1, "labels": None, "updated_since": None, "updated_before": None}
    return requests.list_chats(page_token="", **{**arguments, **changes})


def test_what_is_not_given_is_not_sent():
    """The server can tell "not set" from zero."""
    request = start().request
    assert not request.HasField("system_prompt")
    assert chat_pb2.GenerationParams() == request.params
    request = start(params=Params(temperature=0.0, top_k=0, seed=0), system_prompt="").request
    assert request.HasField("system_prompt")
    assert request.params.HasField("temperature")
    assert request.params.HasField("top_k")
    assert request.params.HasField("seed")
    assert not request.params.HasField("top_p")


@pytest.mark.parametrize("name", ["max_tokens", "top_k"])
@pytest.mark.parametrize("value", [2**31, -1, 1.5, True])
def test_a_number_that_the_contract_has_not_is_told_with_both_bounds(name, value):
    """And marked as refused before it was sent."""
    with pytest.raises(InvalidRequest) as refusal:
        start(params=Params(**{name: value}))
    expected = f"must be a whole number, 0 to 2147483647, not {value!r}"
    assert f"{name} {expected}." == str(refusal.value)
    assert (FieldViolation(name, expected, NOT_SENT),) == refusal.value.violations


def test_every_question_can_be_repeated_safely():
    """A request_id is made where none is given, another each time."""
    first, second = start().request.request_id, start().request.request_id
    assert 36 == len(first)
    assert first != second
    assert "mine" == start(request_id="mine").request.request_id


def test_pictures_are_sent_or_named():
    """Bytes go as data, known pictures by id, in order."""
    info = ImageInfo("ab" * 32, 1, 1, 64, "image/png")
    first, second = start(images=(PICTURE, info)).request.images
    assert b"bytes" == first.data
    assert "ab" * 32 == second.image_id


@pytest.mark.parametrize("policy", [None, *OverflowPolicy])
def test_every_overflow_policy_has_its_number(policy):
    """None leaves it to the server."""
    name = f"OVERFLOW_POLICY_{policy.name if policy else 'UNSPECIFIED'}"
    assert chat_pb2.OverflowPolicy.Value(name) == start(overflow=policy).request.overflow_policy


@pytest.mark.parametrize("prompt", ["", "  \n", "a\ud800b", None, 7])
def test_no_question_is_refused_here(prompt):
    """What could not be asked does not reach the network."""
    with pytest.raises(InvalidRequest, match="prompt must be"):
        start(prompt)


@pytest.mark.parametrize("text", ["a\ud800b", "\udce9", 7])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("system_prompt", lambda text: start(system_prompt=text)),
        ("request_id", lambda text: start(request_id=text)),
        ("labels", lambda text: start(labels={text: "value"})),
        ("labels", lambda text: start(labels={"key": text})),
        ("stop", lambda text: start(params=Params(stop=("END", text)))),
        ("image_id", lambda text: start(images=(ImageInfo(text, 1, 1, 64, "image/png"),))),
        ("chat_id", lambda text: go_on(text)),
        ("parent_turn_id", lambda text: go_on("chat-1", parent_turn_id=text)),
        ("request_id", lambda text: go_on("chat-1", request_id=text)),
        ("chat_id", lambda text: requests.get_chat(text)),
        ("chat_id", lambda text: requests.delete_chat(text)),
        ("turn_id", lambda text: requests.get_turn("chat-1", text)),
        ("turn_id", lambda text: requests.cancel_turn("chat-1", text)),
        ("turn_id", lambda text: requests.replay_turn("chat-1", text)),
        ("labels", lambda text: list_chats(labels={"key": text})),
        ("system_prompt", lambda text: requests.count_tokens((), "?", system_prompt=text)),
        ("chat_id", lambda text: requests.count_tokens((), "?", chat_id=text)),
        ("parent_turn_id", lambda text: requests.count_tokens((), "?", parent_turn_id=text)),
        ("image_id", lambda text: exchange.get_image(text)),
        ("image_id", lambda text: exchange.get_original(text)),
    ],
)
def test_what_is_no_text_is_refused(name, make, text):
    """Bytes of a command line that are no UTF-8 come as lone surrogates, which can not be sent."""
    expected = "must be text, not 7" if text == 7 else "must be whole Unicode characters, without"
    with pytest.raises(InvalidRequest, match=f"^{name} {expected}") as refusal:
        make(text)
    assert name == refusal.value.violations[0].field


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 1.5},
        {"max_tokens": -1},
        {"max_tokens": 2**31},
        {"max_tokens": True},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"top_p": float("inf")},
        {"top_k": -1},
        {"seed": -1},
        {"seed": 2**64},
        {"repetition_penalty": float("inf")},
    ],
)
def test_what_protobuf_could_not_carry_is_refused(params):
    """The field is named, in the sentence and as a violation."""
    name = next(iter(params))
    with pytest.raises(InvalidRequest, match=f"{name} must be") as refusal:
        start(params=Params(**params))
    assert name == refusal.value.violations[0].field


def test_an_empty_chat_id_is_refused():
    """An empty id would be a question about nothing."""
    for make in (requests.get_chat, requests.delete_chat):
        with pytest.raises(InvalidRequest, match="chat_id must not be empty"):
            make("")


@settings(deadline=None)
@given(
    st.builds(
        Params,
        max_tokens=st.none() | st.integers(0, 2**31 - 1),
        temperature=st.none() | st.integers(0, 2000).map(lambda number: number / 1000),
        top_p=st.none() | st.integers(1, 1000).map(lambda number: number / 1000),
        top_k=st.none() | st.integers(0, 2**31 - 1),
        repetition_penalty=st.none() | st.integers(1, 2000).map(lambda number: number / 1000),
        seed=st.none() | st.integers(0, 2**64 - 1),
        stop=st.lists(st.text(), max_size=3).map(tuple),
    )
)
def test_parameters_come_back_as_they_went(params):
    """0.2 is 0.2 again, not 0.20000000298."""
    message = start(params=params).request.params
    assert params == responses.read_params(message)


@pytest.mark.parametrize(
    ("values", "names", "prefix"),
    [
        (FinishReason, chat_pb2.FinishReason.DESCRIPTOR, "FINISH_REASON_"),
        (TurnState, chat_pb2.TurnState.DESCRIPTOR, "TURN_STATE_"),
    ],
)
def test_every_enum_value_of_the_contract_is_known(values, names: EnumDescriptor, prefix):
    """A reason that the contract gains must be given a name here."""
    expected = {value.name.removeprefix(prefix) for value in names.values}
    assert expected == {value.name for value in values}


def test_what_a_newer_server_says_is_passed_over():
    """An unknown reason is UNSPECIFIED, an unknown event is none."""
    assert FinishReason.UNSPECIFIED is responses.read_finish_reason(99)
    assert responses.read_event(chat_pb2.ChatEvent()) is None


def test_every_event_of_the_contract_is_read():
    """No event of today's contract is passed over as unknown."""
    for field in chat_pb2.ChatEvent.DESCRIPTOR.fields:
        event = chat_pb2.ChatEvent()
        getattr(event, field.name).SetInParent()
        assert responses.read_event(event) is not None, field.name


def test_times_keep_their_zone():
    """A time of another zone is sent as the same instant; one without a zone is refused."""
    there = timezone(timedelta(hours=2))
    request = list_chats(updated_since=datetime(2026, 1, 1, 2, tzinfo=there)).request
    assert datetime(2026, 1, 1, tzinfo=UTC) == request.updated_since.ToDatetime(UTC)
    assert not request.HasField("updated_before")
    with pytest.raises(InvalidRequest, match="time zone"):
        list_chats(updated_since=datetime(2026, 1, 1))


@pytest.mark.parametrize(
    "time",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        "2026-01-01",
    ],
)
def test_times_that_can_not_be_told_are_refused(time):
    """In UTC it would be another year than those there are; or it is no time at all."""
    expected = "datetime" if isinstance(time, str) else "in the years 1 to 9999 of UTC"
    for name in ("updated_since", "updated_before"):
        with pytest.raises(InvalidRequest, match=f"^{name} must be (a )?{expected}"):
            list_chats(**{name: time})


@pytest.mark.parametrize("labels", [["a"], "a=b", 7, (), {"a": None}, {None: "a"}, {"a": 1}])
def test_what_is_no_labels_is_refused(labels):
    """Texts by texts, and nothing that protobuf or Python itself would stumble over."""
    for make in (start, list_chats):
        with pytest.raises(InvalidRequest, match=r"^labels must be (a mapping|text)") as refusal:
            make(labels=labels)
        assert ("labels", NOT_SENT) == (
            refusal.value.violations[0].field,
            refusal.value.violations[0].reason,
        )


@pytest.mark.parametrize("size", ["5", 2.0, True, None, -1, 1001])
def test_what_is_no_size_of_a_page_is_refused(size):
    """A whole number, as far as the contract goes."""
    with pytest.raises(InvalidRequest, match=r"^page_size must be a whole number, 1 to 1000 "):
        list_chats(page_size=size)


@pytest.mark.parametrize("overflow", ["error", 1, []])
def test_what_is_no_policy_is_refused(overflow):
    """Neither its word nor its number is one."""
    for make in (lambda: start(overflow=overflow), lambda: go_on("chat-1", overflow=overflow)):
        with pytest.raises(InvalidRequest, match=r"^overflow must be an OverflowPolicy, not "):
            make()


def test_a_single_stop_text_may_stand_alone():
    """A text is not taken for a list of its characters."""
    params = requests.collect_params(None, None, None, None, None, None, "END")
    assert ("END",) == params.stop


def test_no_stop_text_may_be_none():
    """As with every other parameter, None is not given."""
    assert () == requests.collect_params(None, None, None, None, None, None, None).stop


@pytest.mark.parametrize("stop", [7, 1.5, b"END", {"a": "b"}, [b"END"], [None]])
def test_what_is_no_stop_text_is_refused(stop):
    """One text or several."""
    with pytest.raises(InvalidRequest, match=r"^stop must be (a text or several|text)\b"):
        start(params=requests.collect_params(None, None, None, None, None, None, stop))
