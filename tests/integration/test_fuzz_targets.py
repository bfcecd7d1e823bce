"""The fuzzers' targets on what is known to be hard: a hundred thousand prompts, bent messages."""

import random

import pytest
from fuzz.seeds import HOSTILE_PIECES, list_seeds
from fuzz.targets import TARGETS, check_structure
from hypothesis import given, settings
from hypothesis import strategies as st

NUM_PROMPTS = 100_000
"""R21."""
_MAX_PIECES = 6


def make_prompt(rng: random.Random) -> str:
    """Pieces that look like structure, and characters from anywhere in Unicode."""
    pieces = []
    for _ in range(rng.randint(0, _MAX_PIECES)):
        if rng.random() < 0.7:
            pieces.append(rng.choice(HOSTILE_PIECES))
        else:
            point = rng.randrange(0x10FFFF)
            pieces.append(chr(point) if not 0xD800 <= point <= 0xDFFF else "x")
    return "".join(pieces)


def test_no_prompt_becomes_structure() -> None:
    """A hundred thousand prompts: no special token, no moved picture, and an own beginning."""
    rng = random.Random(21)
    for _ in range(NUM_PROMPTS):
        check_structure(make_prompt(rng), rng.randrange(4))


@pytest.mark.parametrize("name", TARGETS)
def test_targets_take_their_seeds(name: str) -> None:
    """What a fuzzer begins with is understood, so that it begins behind the first check."""
    for seed in list_seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_bent_seeds_are_answered(name: str, data: st.DataObject) -> None:
    """Bytes changed, cut and put in anywhere: a value or a refusal, and nothing else."""
    seed = bytearray(data.draw(st.sampled_from(list_seeds(name))))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(0, len(seed) - 1)))
        match data.draw(st.sampled_from(("change", "cut", "insert"))):
            case "change" if seed:
                seed[place] = data.draw(st.integers(0, 255))
            case "cut":
                del seed[place : place + data.draw(st.integers(1, 40))]
            case _:
                seed[place:place] = data.draw(st.binary(max_size=12))
    TARGETS[name](bytes(seed))
