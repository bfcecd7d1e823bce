"""Questions with true answers: single ones, that need only the picture, and follow-ups.

Each function below takes chance, the scene, the item last talked about and whether to name
things plainly, and gives a `Draft`, or None where the question cannot be asked of that scene.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from training import answers
from training.answers import name_item
from training.naming import (
    Name,
    find_items,
    make_name,
    name_in_scene,
    name_missing,
    spell_colour,
)
from training.scenes import COLOURS, SHAPES, Item, Scene
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
_ROW_WORDS = ("(top|upper)", "(middle|centre|center)", "(bottom|lower)")
_SIZE_QUESTION_WORDS = {
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
    """

    frames: str
    slots: dict[str, str]
    answer: str
    focus: Item | None = field(default=None)


Ask = Callable[[random.Random, Scene, Item | None, bool], Draft | None]


def _only(scene: Scene) -> Item | None:
    return scene.items[0] if len(scene.items) == 1 else None


def _describe(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    return Draft("describe", {}, answers.describe(scene), _only(scene))


def _what(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    only = _only(scene)
    if only is None:
        return None if plain else Draft("what", {}, answers.describe(scene))
    return Draft("what", {}, answers.identify(only), only)


def _colour(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    shape = rng.choice(scene.items).shape if scene.items else rng.choice(SHAPES)
    if not plain and rng.random() < 0.08:
        shape = rng.choice(SHAPES)
    found = find_items(scene, shape=shape)
    if plain and len(found) != 1:
        return None
    name = make_name(rng, shape, "", "shape", plain)
    focus = found[0] if len(found) == 1 else None
    slots = {"object": name.asked, "shape": name.asked}
    return Draft("colour", slots, answers.tell_colours(shape, found), focus)


def _shape(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    colour = rng.choice(scene.items).colour if scene.items else rng.choice(COLOURS)
    if not plain and rng.random() < 0.08:
        colour = rng.choice(COLOURS)
    found = find_items(scene, colour=colour)
    if plain and len(found) != 1:
        return None
    focus = found[0] if len(found) == 1 else None
    slots = {"colour": spell_colour(rng, colour, plain)}
    return Draft("shape", slots, answers.tell_shapes(colour, found), focus)


def _size(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    name, item = _pick(rng, scene, plain, may_tell_size=False)
    if item is None:
        return None if plain else Draft("size", _slots(name), answers.tell_missing(name.told))
    return Draft("size", _slots(name), f"The {name_item(item)} is {item.size}.", item)


def _is_big(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    name, item = _pick(rng, scene, plain, may_tell_size=False)
    if item is None:
        return None
    asked = rng.choice(("big", "small"))
    slots = _slots(name) | {"bigness": rng.choice(_SIZE_QUESTION_WORDS[asked])}
    verdict = "yes" if asked == item.size else "no"
    return Draft("is_big", slots, f"The {name_item(item)} is {item.size}, so {verdict}.", item)


def _count_all(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    return Draft("count_all", {}, answers.count(len(scene.items), "shape", "shapes"), _only(scene))


def _count_shape(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    from_scene = scene.items and rng.random() < 0.75
    shape = rng.choice(scene.items).shape if from_scene else rng.choice(SHAPES)
    found = find_items(scene, shape=shape)
    name = make_name(rng, shape, "", "shape", plain)
    answer = answers.count(len(found), shape, answers.make_plural(shape))
    slots = {"shapes": name.plural, "shape": name.asked}
    return Draft("count_shape", slots, answer, found[0] if len(found) == 1 else None)


def _count_colour(
    rng: random.Random, scene: Scene, focus: Item | None, plain: bool
) -> Draft | None:
    from_scene = scene.items and rng.random() < 0.75
    colour = rng.choice(scene.items).colour if from_scene else rng.choice(COLOURS)
    found = find_items(scene, colour=colour)
    answer = answers.count(len(found), f"{colour} shape", f"{colour} shapes")
    slots = {"colour": spell_colour(rng, colour, plain)}
    return Draft("count_colour", slots, answer, found[0] if len(found) == 1 else None)


def _where(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    name, item = _pick(rng, scene, plain)
    if item is None:
        return None if plain else Draft("where", _slots(name), answers.tell_missing(name.told))
    answer = f"The {name_item(item)} is {answers.name_place(item)}."
    return Draft("where", _slots(name), answer, item)


def _exists(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    if scene.items and rng.random() < 0.5:
        item = rng.choice(scene.items)
        name = name_in_scene(rng, scene, item, plain=plain, may_tell_size=False)
        answer = f"Yes, there is {answers.add_article(name.told)}."
        return Draft("exists", _slots(name), answer, item)
    name = name_missing(rng, scene, plain=plain)
    return Draft("exists", _slots(name), f"No, there is no {name.told}.")


def _bigger(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    pair = _pick_pair(rng, scene, plain)
    if pair is None:
        return None
    first, second, slots = pair
    bigger = plain or rng.random() < 0.6
    frames = "bigger"
    if not plain:
        frames = rng.choices(("bigger", "bigger_yes_no", "same_size"), (6, 3, 1))[0]
    if frames == "same_size":
        sizes = f"The {name_item(first)} is {first.size} and the {name_item(second)} is"
        answer = f"{sizes} {second.size}, so no."
        if first.size == second.size:
            both = f"The {name_item(first)} and the {name_item(second)} are both {first.size}"
            answer = f"{both}, so yes."
        return Draft(frames, slots, answer)
    slots["bigger"] = expand(rng, "%BIGGER" if bigger else "%SMALLER")
    answer = answers.compare_sizes(first, second, bigger, yes_no=frames == "bigger_yes_no")
    return Draft(frames, slots, answer)


def _bigger_any(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    if len(scene.items) != 2:
        return None
    bigger = rng.random() < 0.6
    slots = {
        "bigger": expand(rng, "%BIGGER" if bigger else "%SMALLER"),
        "biggest": rng.choice(("biggest", "largest") if bigger else ("smallest", "tiniest")),
    }
    answer = answers.compare_sizes(scene.items[0], scene.items[1], bigger, yes_no=False)
    return Draft("bigger_any", slots, answer)


def _compare_places(direction: str) -> Ask:
    def ask(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
        pair = _pick_pair(rng, scene, plain)
        if pair is None:
            return None
        first, second, slots = pair
        return Draft(direction, slots, answers.compare_places(first, second, direction), first)

    return ask


def _background(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    return Draft("background", {}, f"The background is {scene.background}.", focus)


def _at_side(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    return _look_at_side(rng, scene, "at_side", plain)


def _at_cell(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    if not scene.items:
        return None
    row, column = rng.choice(((0, 0), (0, 2), (2, 0), (2, 2), (1, 1)))
    if rng.random() < 0.65:
        item = rng.choice(scene.items)
        row, column = item.row, item.column
    if (row + column) % 2:
        return None
    if (row, column) == (1, 1):
        words = expand(rng, f"in the (very |){_ROW_WORDS[1]}")
    else:
        side = "left" if column == 0 else "right"
        words = expand(rng, f"(in|at) the {_ROW_WORDS[row]} {side}( corner|)")
    found = [item for item in scene.items if (item.row, item.column) == (row, column)]
    place = answers.PLACES[row][column]
    if not found:
        return Draft("at_side", {"on_side": words}, f"There is nothing {place}.")
    answer = f"The one {place} is a {found[0].size} {name_item(found[0])}."
    return Draft("at_side", {"on_side": words}, answer, found[0])


def _is_colour(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    item = _unique_shape(rng, scene)
    if item is None:
        return None
    asked = item.colour if rng.random() < 0.5 else rng.choice(COLOURS)
    verdict = "yes" if asked == item.colour else "no"
    slots = {"object": item.shape, "colour": spell_colour(rng, asked, plain)}
    return Draft("is_colour", slots, f"The {item.shape} is {item.colour}, so {verdict}.", item)


def _same_colour(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    if len(scene.items) != 2:
        return None
    first, second = scene.items
    if first.colour == second.colour:
        return Draft("same_colour", {}, f"Both are {first.colour}, so yes.")
    return Draft("same_colour", {}, f"One is {first.colour} and one is {second.colour}, so no.")


def _about_it(frames: str, tell: Callable[[Item], str]) -> Ask:
    def ask(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
        it = focus or _only(scene)
        return None if it is None else Draft(frames, {}, tell(it), it)

    return ask


def _other_one(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    if focus is None:
        return None
    others = [item for item in scene.items if item != focus]
    if not others:
        return Draft("other_one", {}, answers.NOTHING_ELSE, focus)
    if len(others) == 1:
        answer = f"The other one is {answers.detail_item(others[0])}."
        return Draft("other_one", {}, answer, others[0])
    details = answers.join_words([answers.detail_item(item) for item in others])
    return Draft("other_one", {}, f"The others are {details}.")


def _count_total(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    answer = answers.count(len(scene.items), "shape", "shapes")
    return Draft("count_total", {}, answer, focus)


def _the_one_on_side(
    rng: random.Random, scene: Scene, focus: Item | None, plain: bool
) -> Draft | None:
    return _look_at_side(rng, scene, "the_one_on_side", plain)


def _are_you_sure(
    rng: random.Random, scene: Scene, focus: Item | None, plain: bool
) -> Draft | None:
    return Draft("are_you_sure", {}, answers.SURE, focus)


def _and_object(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    name, item = _pick(rng, scene, plain)
    if item is None:
        return Draft("and_object", _slots(name), answers.tell_missing(name.told))
    answer = f"The {name_item(item)} is {item.size} and {answers.name_place(item)}."
    return Draft("and_object", _slots(name), answer, item)


def _is_it_colour(
    rng: random.Random, scene: Scene, focus: Item | None, plain: bool
) -> Draft | None:
    it = focus or _only(scene)
    if it is None:
        return None
    asked = it.colour if rng.random() < 0.5 else rng.choice(COLOURS)
    verdict = "yes" if asked == it.colour else "no"
    slots = {"colour": spell_colour(rng, asked, plain)}
    return Draft("is_it_colour", slots, f"It is {it.colour}, so {verdict}.", it)


def _is_it_shape(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    it = focus or _only(scene)
    if it is None:
        return None
    asked = it.shape if rng.random() < 0.5 else rng.choice(SHAPES)
    verdict = "yes" if asked == it.shape else "no"
    return Draft("is_it_shape", {"a_shape": f"a {asked}"}, f"It is a {it.shape}, so {verdict}.", it)


def _is_it_size(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    it = focus or _only(scene)
    if it is None:
        return None
    asked = rng.choice(("big", "small"))
    verdict = "yes" if asked == it.size else "no"
    slots = {"bigness": rng.choice(_SIZE_QUESTION_WORDS[asked])}
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


def _look_at_side(rng: random.Random, scene: Scene, frames: str, plain: bool) -> Draft | None:
    side = rng.choice(tuple(_SIDE_WORDS))
    slots = {
        "on_side": expand(rng, _SIDE_WORDS[side]),
        "side": side if plain else expand(rng, _SIDE_ADJECTIVES[side]),
        "sidemost": expand(rng, _SIDEMOST[side]),
    }
    only = _only(scene)
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


def _slots(name: Name) -> dict[str, str]:
    return {"object": name.asked, "objects": name.plural, "a_object": name.with_article}


def _pick(
    rng: random.Random, scene: Scene, plain: bool, *, may_tell_size: bool = True
) -> tuple[Name, Item | None]:
    if not scene.items or (not plain and rng.random() < 0.08):
        return name_missing(rng, scene, plain=plain), None
    item = rng.choice(scene.items)
    name = name_in_scene(rng, scene, item, plain=plain, may_tell_size=may_tell_size)
    return name, item


def _pick_pair(
    rng: random.Random, scene: Scene, plain: bool
) -> tuple[Item, Item, dict[str, str]] | None:
    if len(scene.items) < 2:
        return None
    first, second = rng.sample(scene.items, 2)
    one = name_in_scene(rng, scene, first, plain=plain, may_tell_size=False)
    two = name_in_scene(rng, scene, second, plain=plain, may_tell_size=False)
    return first, second, _slots(one) | {"other": two.asked}


def _unique_shape(rng: random.Random, scene: Scene) -> Item | None:
    unique = [item for item in scene.items if len(find_items(scene, shape=item.shape)) == 1]
    return rng.choice(unique) if unique else None


SINGLE: dict[str, tuple[float, Ask]] = {
    "describe": (9, _describe),
    "what": (6, _what),
    "colour": (8, _colour),
    "shape": (8, _shape),
    "size": (8, _size),
    "is_big": (3, _is_big),
    "count_all": (6, _count_all),
    "count_shape": (6, _count_shape),
    "count_colour": (6, _count_colour),
    "where": (9, _where),
    "exists": (11, _exists),
    "bigger": (9, _bigger),
    "bigger_any": (2, _bigger_any),
    "left_of": (4.5, _compare_places("left_of")),
    "right_of": (4.5, _compare_places("right_of")),
    "above": (4.5, _compare_places("above")),
    "below": (4.5, _compare_places("below")),
    "background": (6, _background),
    "at_side": (4, _at_side),
    "at_cell": (2, _at_cell),
    "is_colour": (3, _is_colour),
    "same_colour": (2, _same_colour),
}
"""By type: how often it is asked in training, and how."""

FOLLOW_UP: dict[str, tuple[float, Ask]] = {
    "colour_of_it": (9, _about_it("colour_of_it", lambda item: f"It is {item.colour}.")),
    "shape_of_it": (8, _about_it("shape_of_it", lambda item: f"It is a {item.shape}.")),
    "size_of_it": (9, _about_it("size_of_it", lambda item: f"It is {item.size}.")),
    "where_is_it": (
        9,
        _about_it("where_is_it", lambda item: f"It is {answers.name_place(item)}."),
    ),
    "what_is_it": (4, _about_it("what_is_it", answers.identify)),
    "other_one": (9, _other_one),
    "count_total": (6, _count_total),
    "the_one_on_side": (9, _the_one_on_side),
    "are_you_sure": (7, _are_you_sure),
    "and_object": (5, _and_object),
    "is_it_colour": (3, _is_it_colour),
    "is_it_shape": (3, _is_it_shape),
    "is_it_size": (3, _is_it_size),
    "compare_it": (5, _compare_it),
}
"""Likewise, for questions that lean on what was said before."""
