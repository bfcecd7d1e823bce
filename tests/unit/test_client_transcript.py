"""A chat as Markdown and as JSON."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from llavachat.errors import ArchiveError
from llavachat.transcript import pick_transcript, write_json, write_markdown
from llavachat.types import (
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

TIME = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
TURN = Turn(
    id="t1",
    parent_turn_id=None,
    prompt="What is this?",
    answer="A red circle.",
    images=(ImageInfo("0123456789abcdef", 640, 480, 64, "image/png"),),
    state=TurnState.FINISHED,
    finish_reason=FinishReason.EOS,
    params=Params(max_tokens=64, seed=2**64 - 1),
    usage=Usage(40, 64, 8, 5, 400),
    timings=Timings(0.0, 0.01, 0.02, 0.03, 0.1),
    model=ModelInfo("shapes", "shapes", "", "none", "ff"),
    create_time=TIME,
    finish_time=TIME,
)
SECOND = replace(TURN, id="t2", parent_turn_id="t1", prompt="Where?", answer="Left.", images=())
CHAT = ChatRecord("c1", "What is this?", None, {"k": "v"}, TIME, TIME, 2, (TURN, SECOND))


def test_markdown_reads_like_a_talk():
    """The whole text, as a person gets it."""
    expected = """\
# What is this?

Chat `c1`, model shapes, 2026-11-22 12:30 UTC

**You:** What is this?

*Picture: 640 x 480 pixels, `0123456789ab`*

**shapes:** A red circle.

**You:** Where?

**shapes:** Left.
"""
    assert expected == write_markdown(CHAT)


def test_markdown_says_where_a_branch_begins():
    """A turn that goes on from another than the one above it is announced."""
    branch = replace(SECOND, id="t3", prompt="How many?", answer="One.")
    anew = replace(SECOND, id="t4", parent_turn_id=None)
    text = write_markdown(replace(CHAT, turns=(TURN, SECOND, branch, anew)))
    assert "*Turn 3 goes on from turn 1.*\n\n**You:** How many?" in text
    assert "*Turn 4 begins anew.*" in text


def test_markdown_says_how_an_answer_was_cut():
    """A stopped answer and an empty one are told as such."""
    cut = replace(TURN, answer="", state=TurnState.CANCELLED, finish_reason=FinishReason.CANCELLED)
    text = write_markdown(replace(CHAT, system_prompt="Be\nbrief.", turns=(cut,)))
    assert "**shapes:** *(nothing)*\n\n*(stopped by the caller)*" in text
    assert "> Be\n> brief." in text


def test_json_holds_everything():
    """Numbers stay whole, enums become words, times ISO 8601."""
    record = json.loads(write_json(CHAT))
    assert "2026-11-22T12:30:00+00:00" == record["create_time"]
    first = record["turns"][0]
    assert (2**64 - 1, "eos", "finished") == (
        first["params"]["seed"],
        first["finish_reason"],
        first["state"],
    )
    assert {"k": "v"} == record["labels"]
    assert 640 == first["images"][0]["width_pixels"]


def test_an_unknown_format_is_told():
    """As of an export, and not as a KeyError."""
    assert write_json is pick_transcript("json")
    with pytest.raises(ArchiveError, match="no transcript in the format 'html'; take one of mark"):
        pick_transcript("html")
