"""Follow-ups with true answers: they lean on what was said before.

The functions are of the same kind as in `training.single_questions`.
"""

import random
from collections.abc import Callable

from training import answers
from training.answers import name_item
from training.drafts import (
    SIZE_QUESTION_WORDS,
    Ask,
    Draft,
    fill_slots,
    find_only,
    look_at_side,
    pick_item,
)
from training.naming import name_in_scene, spell_colour
from training.scenes import COLOURS, SHAPES, Item, Scene
from training.wordings.grammar import expand


def _about_it(frames: str, tell: Callable[[Item], str]) -> Ask:
    def ask(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
        it = focus or find_only(scene)
        return None if it is None else Draft(frames, {}, tell(it), it)

    return ask


def _other_one(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    if focus is None:
        return None
    others = [item for item in scene.items if item != focus]
    if not others:
        return Draft("other_one", {}, answers.NOTHING_ELSE, focus)
    rest = others[0] if len(others) == 1 else None
    return Draft("other_one", {}, answers.tell_others(focus, others), rest)


def _count_total(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    answer = answers.count(len(scene.items), "shape", "shapes")
    return Draft("count_total", {}, answer, focus, scene.items)


def _the_one_on_side(
    rng: random.Random, scene: Scene, focus: Item | None, plain: bool
) -> Draft | None:
    return look_at_side(rng, scene, "the_one_on_side", plain)


def _are_you_sure(
    rng: random.Random, scene: Scene, focus: Item | None, plain: bool
) -> Draft | None:
    return Draft("are_you_sure", {}, answers.SURE, focus)


def _and_object(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    name, item = pick_item(rng, scene, plain)
    if item is None:
        return Draft("and_object", fill_slots(name), answers.tell_missing(name.told))
    answer = f"The {name_item(item)} is {item.size} and {answers.name_place(item)}."
    return Draft("and_object", fill_slots(name), answer, item)


def _is_it_colour(
    rng: random.Random, scene: Scene, focus: Item | None, plain: bool
) -> Draft | None:
    it = focus or find_only(scene)
    if it is None:
        return None
    asked = it.colour if rng.random() < 0.5 else rng.choice(COLOURS)
    verdict = "yes" if asked == it.colour else "no"
    slots = {"colour": spell_colour(rng, asked, plain)}
    return Draft("is_it_colour", slots, f"It is {it.colour}, so {verdict}.", it)


def _is_it_shape(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    it = focus or find_only(scene)
    if it is None:
        return None
    asked = it.shape if rng.random() < 0.5 else rng.choice(SHAPES)
    verdict = "yes" if asked == it.shape else "no"
    slots = {"shape": asked, "a_shape": f"a {asked}"}
    return Draft("is_it_shape", slots, f"It is a {it.shape}, so {verdict}.", it)


def _is_it_size(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    it = focus or find_only(scene)
    if it is None:
        return None
    asked = rng.choice(("big", "small"))
    verdict = "yes" if asked == it.size else "no"
    slots = {"bigness": rng.choice(SIZE_QUESTION_WORDS[asked])}
    return Draft("is_it_size", slots, f"It is {it.size}, so {verdict}.", it)


def _compare_it(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    others = [item for item in scene.items if item != focus]
    if focus is None or not others:
        return None
    other = rng.choice(others)
    slots = {"other": name_in_scene(rng, scene, other, plain=plain).asked}
    frames = rng.choice(("bigger_than_it", "left_of_it", "right_of_it", "above_it", "below_it"))
    if frames == "bigger_than_it":
        bigger = rng.random() < 0.6
        slots["bigger"] = expand(rng, "%BIGGER" if bigger else "%SMALLER")
        answer = answers.compare_sizes(focus, other, bigger, yes_no=True)
    else:
        answer = answers.compare_places(focus, other, frames.removesuffix("_it"))
    return Draft(frames, slots, answer, focus)


FOLLOW_UP: dict[str, tuple[float, Ask]] = {
    "colour_of_it": (9, _about_it("colour_of_it", lambda item: f"It is {item.colour}.")),
    "shape_of_it": (8, _about_it("shape_of_it", lambda item: f"It is a {item.shape}.")),
    "size_of_it": (9, _about_it("size_of_it", lambda item: f"It is {item.size}.")),
    "where_is_it": (
        9,
        _about_it("where_is_it", lambda item: f"It is {answers.name_place(item)}."),
    ),
    "what_is_it": (4, _about_it("what_is_it", answers.identify)),
    "other_one": (10, _other_one),
    "count_total": (6, _count_total),
    "the_one_on_side": (9, _the_one_on_side),
    "are_you_sure": (11, _are_you_sure),
    "and_object": (5, _and_object),
    "is_it_colour": (3, _is_it_colour),
    "is_it_shape": (3, _is_it_shape),
    "is_it_size": (3, _is_it_size),
    "compare_it": (5, _compare_it),
}
"""Likewise, for questions that lean on what was said before."""
