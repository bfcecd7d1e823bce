"""A reply as events come: what is known when, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat._reply import ReplyRecord
from llavachat.errors import DeadlineExceeded, IncompleteReply, NotStartedYet, ServerFailed
from llavachat.types import (
    ContextTrimmed,
    Delta,
    Finished,
    FinishReason,
    ImageInfo,
    ModelInfo,
    Params,
    Queued,
    Started,
    Timings,
    Usage,
)

MODEL = ModelInfo("shapes", "shapes", "", "none", "")
IMAGES = (ImageInfo("ab", 4, 3, 64, "image/png"),)
STARTED = Started("chat", "turn", None, MODEL, Params(seed=1), IMAGES)


def finish(num_tokens=11, decode_seconds=2.0, reason=FinishReason.EOS):
    """The last event."""
    usage = Usage(40, 64, 8, num_tokens, 100)
    return Finished(reason, None, usage, Timings(0, 0, 0, 0.1, decode_seconds))


def take(*events):
    """A reply that has seen these events."""
    reply = ReplyRecord()
    for event in events:
        reply._take(event)
    return reply


@pytest.mark.parametrize(
    "name", ["chat_id", "turn_id", "parent_turn_id", "params", "model", "images"]
)
def test_a_beginning_is_known_once_it_has_begun(name):
    """Before the first event the error says what to do; after it the value is there."""
    with pytest.raises(NotStartedYet, match=f"`{name}` is known once the answer has begun"):
        getattr(take(), name)
    assert getattr(STARTED, name) == getattr(take(STARTED), name)


@pytest.mark.parametrize("name", ["usage", "timings", "tokens_per_second"])
def test_an_end_is_known_at_the_end(name):
    """While the answer comes the error says what to do."""
    with pytest.raises(NotStartedYet, match="read it to the end"):
        getattr(take(STARTED), name)


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), ServerFailed("no")])
def test_an_answer_that_broke_off_has_ended(error):
    """Who watches it from another thread need not wait; why it ended is what was raised."""
    reply = take(STARTED, Delta("A red ", 0))
    assert (False, FinishReason.UNSPECIFIED) == (reply.is_finished, reply.finish_reason)
    reply._note_failure(error)
    assert (True, FinishReason.UNSPECIFIED) == (reply.is_finished, reply.finish_reason)


def test_a_whole_answer():
    """Everything that a finished reply tells."""
    reply = take(STARTED, Delta("A red ", 0), Delta("circle.", 6), finish())
    assert "A red circle." == reply.text
    assert (True, True) == (reply.is_started, reply.is_finished)
    assert FinishReason.EOS is reply.finish_reason
    assert 104 == reply.usage.prompt_tokens
    assert 5.0 == reply.tokens_per_second


@pytest.mark.parametrize(("num_tokens", "seconds"), [(0, 0.0), (1, 0.0), (1, 1.0), (5, 0.0)])
def test_speed_without_tokens_or_time_is_zero(num_tokens, seconds):
    """No division by zero, and no speed of less than two tokens."""
    assert 0.0 == take(STARTED, finish(num_tokens, seconds)).tokens_per_second


def test_the_place_in_the_queue_is_told_and_forgotten():
    """Once text comes, nothing waits."""
    assert 3 == take(STARTED, Queued(3)).queue_position
    assert take(STARTED, Queued(3), Delta("a", 0)).queue_position is None
    assert take(STARTED, Queued(3), finish()).queue_position is None


def test_trimmed_turns_are_kept():
    """What the server left out of the prompt is on the reply."""
    trimmed = ContextTrimmed(("turn-1",), 5000, 3000)
    assert trimmed == take(STARTED, trimmed).trimmed


@settings(deadline=None)
@given(st.lists(st.text()))
def test_parts_join_by_characters(parts):
    """Offsets count characters, not bytes, whatever the text."""
    reply, offset = take(STARTED), 0
    for part in parts:
        reply._take(Delta(part, offset))
        offset += len(part)
    assert "".join(parts) == reply.text


@settings(deadline=None)
@given(st.integers(-5, 5).filter(bool))
def test_a_gap_is_never_passed_over(shift):
    """Lost or repeated text is an error, not a wrong answer."""
    reply = take(STARTED, Delta("five.", 0))
    with pytest.raises(IncompleteReply, match="gap"):
        reply._take(Delta("more", 5 + shift))


def test_an_end_without_finished_is_told():
    """A stream that just ends is not a whole answer."""
    with pytest.raises(IncompleteReply, match="cut short"):
        take(STARTED, Delta("A", 0))._check_end()
    take(STARTED, finish())._check_end()
