"""A question before it is worded, and what single questions and follow-ups share."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from training import answers
from training.answers import name_item
from training.naming import Name, name_in_scene, name_missing
from training.scenes import Item, Scene
from training.wordings.grammar import expand

_SIDE_WORDS = {
    "left": "((on|to|at) the left|on the left (hand |)side|on the left|left|on the far left)",
    "right": "((on|to|at) the right|on the right (hand |)side|on the right|right|on the far right)",
    "top": "(at the top|on top|on the top|up top|in the upper part|at the top|"
    "(on|at) the top side)",
    "bottom": "(at the bottom|on the bottom|down below|in the lower part|at the bottom|"
    "(on|at) the bottom side)",
}


_SIDE_ADJECTIVES = {
    "left": "(left|left|left hand)",
    "right": "(right|right|right hand)",
    "top": "(top|upper)",
    "bottom": "(bottom|lower)",
}


_SIDEMOST = {
    "left": "leftmost",
    "right": "rightmost",
    "top": "(topmost|uppermost|highest)",
    "bottom": "(bottommost|lowest|bottom most)",
}


SIZE_QUESTION_WORDS = {
    "big": ("big", "large", "huge"),
    "small": ("small", "little", "tiny"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A question without its wording.

    Attributes:
        frames: the type whose frames word it.
        slots: fill the frame.
        answer: the truth.
        focus: what 'it' means afterwards; None if nothing does.
        listed: the items that the answer counts, or lists by one trait alone, in its order.
    """

    frames: str
    slots: dict[str, str]
    answer: str
    focus: Item | None = None
    listed: tuple[Item, ...] = ()


Ask = Callable[[random.Random, Scene, Item | None, bool], Draft | None]


def find_only(scene: Scene) -> Item | None:
    """The scene's only item, if it has just one."""
    return scene.items[0] if len(scene.items) == 1 else None


def fill_slots(name: Name) -> dict[str, str]:
    """The slots that a named thing fills."""
    return {"object": name.asked, "objects": name.plural, "a_object": name.with_article}


def pick_item(
    rng: random.Random, scene: Scene, plain: bool, *, may_tell_size: bool = True
) -> tuple[Name, Item | None]:
    """Something to ask about: an item, or now and then something that is not there."""
    if not scene.items or (not plain and rng.random() < 0.12):
        return name_missing(rng, scene, plain=plain), None
    item = rng.choice(scene.items)
    name = name_in_scene(rng, scene, item, plain=plain, may_tell_size=may_tell_size)
    return name, item


def look_at_side(rng: random.Random, scene: Scene, frames: str, plain: bool) -> Draft | None:
    """What is on a side drawn by chance; None where two are equally far out."""
    side = rng.choice(tuple(_SIDE_WORDS))
    slots = {
        "on_side": expand(rng, _SIDE_WORDS[side]),
        "side": side if plain else expand(rng, _SIDE_ADJECTIVES[side]),
        "sidemost": expand(rng, _SIDEMOST[side]),
    }
    only = find_only(scene)
    if not scene.items:
        return None
    if only is not None:
        cell = only.column if side in ("left", "right") else only.row
        if cell != (0 if side in ("left", "top") else 2):
            if plain:
                return None
            return Draft(frames, slots, f"There is nothing {answers.SIDES[side]}.")
        found = only
    else:
        # With several items, the outermost one is 'the one on the left', as people say it.
        cells = [item.column if side in ("left", "right") else item.row for item in scene.items]
        outermost = min(cells) if side in ("left", "top") else max(cells)
        if cells.count(outermost) > 1:
            return None
        found = scene.items[cells.index(outermost)]
    answer = f"The one {answers.SIDES[side]} is a {found.size} {name_item(found)}."
    return Draft(frames, slots, answer, found)
