"""Single questions with true answers: they need only the picture.

Each function takes chance, the scene, the item last talked about and whether to name things
plainly, and gives a `Draft`, or None where the question cannot be asked of that scene.
"""

import random

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
from training.naming import find_items, make_name, name_in_scene, name_missing, spell_colour
from training.scenes import COLOURS, SHAPES, Item, Scene
from training.wordings.grammar import expand

_ROW_WORDS = ("(top|upper)", "(middle|centre|center)", "(bottom|lower)")


def _describe(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    return Draft("describe", {}, answers.describe(scene), find_only(scene))


def _what(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    only = find_only(scene)
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
    return Draft("colour", slots, answers.tell_colours(shape, found), focus, tuple(found))


def _shape(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    colour = rng.choice(scene.items).colour if scene.items else rng.choice(COLOURS)
    if not plain and rng.random() < 0.08:
        colour = rng.choice(COLOURS)
    found = find_items(scene, colour=colour)
    if plain and len(found) != 1:
        return None
    focus = found[0] if len(found) == 1 else None
    slots = {"colour": spell_colour(rng, colour, plain)}
    return Draft("shape", slots, answers.tell_shapes(colour, found), focus, tuple(found))


def _size(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    name, item = pick_item(rng, scene, plain, may_tell_size=False)
    if item is None:
        return None if plain else Draft("size", fill_slots(name), answers.tell_missing(name.told))
    return Draft("size", fill_slots(name), f"The {name_item(item)} is {item.size}.", item)


def _is_big(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    name, item = pick_item(rng, scene, plain, may_tell_size=False)
    if item is None:
        return None
    asked = rng.choice(("big", "small"))
    slots = fill_slots(name) | {"bigness": rng.choice(SIZE_QUESTION_WORDS[asked])}
    verdict = "yes" if asked == item.size else "no"
    return Draft("is_big", slots, f"The {name_item(item)} is {item.size}, so {verdict}.", item)


def _count_all(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    answer = answers.count(len(scene.items), "shape", "shapes")
    return Draft("count_all", {}, answer, find_only(scene), scene.items)


def _count_shape(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    from_scene = scene.items and rng.random() < 0.75
    shape = rng.choice(scene.items).shape if from_scene else rng.choice(SHAPES)
    found = find_items(scene, shape=shape)
    name = make_name(rng, shape, "", "shape", plain)
    answer = answers.count(len(found), shape, answers.make_plural(shape))
    slots = {"shapes": name.plural, "shape": name.asked}
    focus = found[0] if len(found) == 1 else None
    return Draft("count_shape", slots, answer, focus, tuple(found))


def _count_colour(
    rng: random.Random, scene: Scene, focus: Item | None, plain: bool
) -> Draft | None:
    from_scene = scene.items and rng.random() < 0.75
    colour = rng.choice(scene.items).colour if from_scene else rng.choice(COLOURS)
    found = find_items(scene, colour=colour)
    answer = answers.count(len(found), f"{colour} shape", f"{colour} shapes")
    slots = {"colour": spell_colour(rng, colour, plain)}
    focus = found[0] if len(found) == 1 else None
    return Draft("count_colour", slots, answer, focus, tuple(found))


def _where(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    name, item = pick_item(rng, scene, plain)
    if item is None:
        return None if plain else Draft("where", fill_slots(name), answers.tell_missing(name.told))
    answer = f"The {name_item(item)} is {answers.name_place(item)}."
    return Draft("where", fill_slots(name), answer, item)


def _exists(rng: random.Random, scene: Scene, focus: Item | None, plain: bool) -> Draft | None:
    if scene.items and rng.random() < 0.5:
        item = rng.choice(scene.items)
        name = name_in_scene(rng, scene, item, plain=plain, may_tell_size=False)
        answer = f"Yes, there is {answers.add_article(name.told)}."
        return Draft("exists", fill_slots(name), answer, item)
    name = name_missing(rng, scene, plain=plain)
    return Draft("exists", fill_slots(name), f"No, there is no {name.told}.")


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
        verdict = "yes" if first.size == second.size else "no"
        facts = f"The {name_item(first)} is {first.size} and the {name_item(second)} is"
        return Draft(frames, slots, f"{facts} {second.size}, so {verdict}.")
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
    return look_at_side(rng, scene, "at_side", plain)


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
        side = expand(rng, _ROW_WORDS[1])
        words = expand(rng, f"in the (very |){side}")
    else:
        side = expand(rng, f"{_ROW_WORDS[row]} {'left' if column == 0 else 'right'}")
        words = expand(rng, f"(in|at) the {side}( corner|)")
    found = [item for item in scene.items if (item.row, item.column) == (row, column)]
    place = answers.PLACES[row][column]
    slots = {"on_side": words, "side": side}
    if not found:
        return Draft("at_side", slots, f"There is nothing {place}.")
    answer = f"The one {place} is a {found[0].size} {name_item(found[0])}."
    return Draft("at_side", slots, answer, found[0])


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


def _pick_pair(
    rng: random.Random, scene: Scene, plain: bool
) -> tuple[Item, Item, dict[str, str]] | None:
    if len(scene.items) < 2:
        return None
    first, second = rng.sample(scene.items, 2)
    one = name_in_scene(rng, scene, first, plain=plain, may_tell_size=False)
    two = name_in_scene(rng, scene, second, plain=plain, may_tell_size=False)
    return first, second, fill_slots(one) | {"other": two.asked}


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
    "left_of": (6, _compare_places("left_of")),
    "right_of": (6, _compare_places("right_of")),
    "above": (6, _compare_places("above")),
    "below": (6, _compare_places("below")),
    "background": (6, _background),
    "at_side": (4, _at_side),
    "at_cell": (2, _at_cell),
    "is_colour": (3, _is_colour),
    "same_colour": (2, _same_colour),
}
"""By type: how often it is asked in training, and how."""
