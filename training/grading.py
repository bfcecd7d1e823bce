"""Is an answer right? By the facts in it, or, more strictly, word for word."""

import re
from collections.abc import Callable

from training.scenes import BACKGROUND_COLOURS, SHAPES, SIZES

_PAIR = re.compile(rf"({'|'.join(BACKGROUND_COLOURS)}) ({'|'.join(SHAPES)})")
_NUMBERS = {"no": 0, "zero": 0, "0": 0, "one": 1, "1": 1, "two": 2, "2": 2, "three": 3, "3": 3}
_PLACES = {"top", "bottom", "left", "right", "middle"}

Facts = Callable[[str], object]


def _list_words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _find(vocabulary: frozenset[str]) -> Facts:
    return lambda text: {word.rstrip("s") for word in _list_words(text)} & vocabulary


def _find_shapes(text: str) -> set[str]:
    return {shape for shape in SHAPES if re.search(rf"\b{shape}(e?s)?\b", text.lower()) is not None}


def find_pairs(text: str) -> set[tuple[str, str]]:
    """The (colour, shape) pairs that a text names."""
    return set(_PAIR.findall(text.lower()))


def _find_number(text: str) -> list[int]:
    return [_NUMBERS[word] for word in _list_words(text) if word in _NUMBERS][:1]


def _find_places(text: str) -> set[str]:
    return set(_list_words(text)) & _PLACES


def _find_verdict(text: str) -> list[str]:
    return [word for word in _list_words(text) if word in ("yes", "no")][:1]


def _find_winner(text: str) -> object:
    verdict = text.lower().rsplit(", so ", 1)[-1]
    return "same" if "same" in verdict else find_pairs(verdict)


_FIND_COLOURS = _find(frozenset(BACKGROUND_COLOURS))
_FIND_SIZES = _find(frozenset(SIZES))

_FACTS: dict[str, Facts] = {
    "describe": find_pairs,
    "what": find_pairs,
    "colour": _FIND_COLOURS,
    "shape": _find_shapes,
    "size": _FIND_SIZES,
    "count_all": _find_number,
    "count_shape": _find_number,
    "count_colour": _find_number,
    "where": _find_places,
    "exists": _find_verdict,
    "bigger": _find_winner,
    "left_of": _find_verdict,
    "right_of": _find_verdict,
    "above": _find_verdict,
    "below": _find_verdict,
    "background": _FIND_COLOURS,
    "colour_of_it": _FIND_COLOURS,
    "shape_of_it": _find_shapes,
    "size_of_it": _FIND_SIZES,
    "where_is_it": _find_places,
    "other_one": find_pairs,
    "count_total": _find_number,
    "the_one_on_side": find_pairs,
    "are_you_sure": _find_verdict,
}


def has_right_facts(kind: str, expected: str, answer: str) -> bool:
    """Whether an answer states the facts that were asked for, and no others of their sort.

    Args:
        kind: the type of question; types without a rule of their own, and truths without such
            a fact, are graded word for word.
        expected: the true answer.
        answer: the model's.
    """
    find = _FACTS.get(kind)
    if find is None or not find(expected):
        # Such as 'There is nothing on the left.': no fact of the sort to look for.
        return is_exact(expected, answer)
    return find(expected) == find(answer)


def is_exact(expected: str, answer: str) -> bool:
    """Whether an answer is the true one word for word."""
    return expected == answer.strip()
