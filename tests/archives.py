"""Exported chats for tests of the client: one to look at, and any that hypothesis draws."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from llavachat.types import (
    ChatArchive,
    ChatRecord,
    FinishReason,
    ImageInfo,
    ModelInfo,
    Params,
    Timings,
    Turn,
    TurnState,
    Usage,
)

TIME = datetime(2026, 11, 22, 12, 30, 1, 250, tzinfo=UTC)

TURN = Turn(
    id="t1",
    parent_turn_id=None,
    prompt="What is this?",
    answer="A red circle.",
    images=(ImageInfo("0" * 64, 640, 480, 64, "image/jpeg", 12),),
    state=TurnState.FINISHED,
    finish_reason=FinishReason.EOS,
    params=Params(64, 0.2, 0.9, 40, 1.1, 2**64 - 1, ("###",)),
    usage=Usage(40, 64, 8, 5, 400),
    timings=Timings(0.0, 0.01, 0.02, 0.03, 0.1),
    model=ModelInfo("shapes", "shapes", "", "none", "f" * 64),
    create_time=TIME,
    finish_time=TIME + timedelta(seconds=2),
)
CUT = replace(
    TURN,
    id="t2",
    parent_turn_id="t1",
    images=(),
    answer="",
    state=TurnState.CANCELLED,
    finish_reason=FinishReason.SHUTDOWN,
    usage=None,
    timings=None,
)
CHAT = ChatRecord("c1", "What is this?", "", {"k": "v"}, TIME, None, 2, (TURN, CUT))
ARCHIVE = ChatArchive(CHAT, {"0" * 64: b"\x89PNG\r\n\x1a\n\0"})

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
wholes = st.integers(0, 2**31 - 1)
seconds = st.floats(0, 999_999)
times = st.none() | st.datetimes(timezones=st.just(UTC))
images = st.builds(ImageInfo, texts, wholes, wholes, wholes, texts, wholes)
params = st.builds(
    Params,
    st.none() | wholes,
    st.none() | st.floats(0, 2),
    st.none() | st.floats(0, 1),
    st.none() | wholes,
    st.none() | st.floats(0, 2),
    st.none() | st.integers(0, 2**64 - 1),
    st.lists(texts, max_size=2).map(tuple),
)
turns = st.builds(
    Turn,
    id=texts,
    parent_turn_id=st.none() | texts,
    prompt=texts,
    answer=texts,
    images=st.lists(images, max_size=2).map(tuple),
    state=st.sampled_from(TurnState).filter(lambda state: state is not TurnState.RUNNING),
    finish_reason=st.sampled_from(FinishReason),
    params=params,
    usage=st.none() | st.builds(Usage, wholes, wholes, wholes, wholes, wholes),
    timings=st.none() | st.builds(Timings, seconds, seconds, seconds, seconds, seconds),
    model=st.builds(ModelInfo, texts, texts, texts, texts, texts),
    create_time=times,
    finish_time=times,
    raw_prompt=st.none(),
    imported=st.booleans(),
)
chats = st.builds(
    lambda **fields: ChatRecord(**fields, num_turns=len(fields["turns"])),
    id=texts,
    title=texts,
    system_prompt=st.none() | texts,
    labels=st.dictionaries(texts, texts, max_size=2),
    create_time=times,
    update_time=st.none(),
    turns=st.lists(turns, max_size=3).map(tuple),
)
