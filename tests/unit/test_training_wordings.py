"""Frames of all authors fit their types, and an evaluation asks the frames of whom it is told."""

import copy
import random

import pytest

from training import evaluate, phrasing
from training.dialogues import sample_chat
from training.phrasing import AUTHORS, FIRST_AUTHOR, FRAMES, choose_asked


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[list[str], list[str]]]:
    """Frames that a test may change."""
    own = copy.deepcopy(FRAMES)
    monkeypatch.setattr(phrasing, "FRAMES", own)
    return own


def test_every_slot_is_filled() -> None:
    """No chat shows a brace: each frame asks only for what its drafts give."""
    for seed in range(150):
        for turn in sample_chat(random.Random(seed), 9, draw=False).turns:
            assert "{" not in turn.question, turn


def test_one_author_is_asked(frames: dict[str, tuple[list[str], list[str]]]) -> None:
    """The held-out frames of the others are forgotten, those to train on are not."""
    choose_asked([FIRST_AUTHOR])
    assert 0 < len(frames["colour"][True]) < len(FRAMES["colour"][True])
    assert FRAMES["colour"][False] == frames["colour"][False]
    choose_asked(["terse"])
    assert [] == frames["colour"][True]


def test_seen_frames_are_asked(frames: dict[str, tuple[list[str], list[str]]]) -> None:
    """All that training has, and nothing that it has not."""
    choose_asked(AUTHORS, seen=True)
    for kind, (trained, held_out) in FRAMES.items():
        assert trained == frames[kind][True]
        assert set(held_out).isdisjoint(frames[kind][True])


@pytest.mark.usefixtures("frames")
def test_authors_who_wrote_too_little(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An evaluation names the types that they left out, before anything is loaded."""
    monkeypatch.setattr("sys.argv", ["evaluate", "--authors", "curious", "--model", "nowhere"])
    with pytest.raises(SystemExit) as end:
        evaluate.main()
    assert 2 == end.value.code
    assert "--authors curious: they have no frames to ask of describe, " in capsys.readouterr().err
