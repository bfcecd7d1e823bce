"""How a question names a thing: 'red circle', 'circle', 'blue one', 'big star', 'disc'."""

import random
from dataclasses import dataclass

from training.answers import add_article, make_plural
from training.scenes import COLOURS, SHAPES, Item, Scene

_SYNONYMS = {
    "circle": ("disc", "disk", "round shape", "ball", "round one", "ring"),
    "square": ("box", "block", "square shape"),
    "triangle": ("triangular shape", "triangle shape"),
    "star": ("star shape", "starry shape"),
    "cross": ("plus", "plus sign", "x", "cross shape"),
    "heart": ("heart shape", "love heart"),
}
_PLURAL_SYNONYMS = {
    "circle": ("discs", "disks", "round shapes", "balls", "rings"),
    "square": ("boxes", "blocks"),
    "triangle": ("triangular shapes",),
    "star": ("star shapes",),
    "cross": ("plus signs", "pluses", "crosses"),
    "heart": ("heart shapes",),
}
_UNKNOWN_COLOURS = ("white", "cyan", "turquoise", "silver", "gold", "beige")
_UNKNOWN_SHAPES = ("rectangle", "hexagon", "pentagon", "oval", "diamond", "arrow", "moon", "line")
_SIZE_WORDS = {"big": ("big", "large", "huge"), "small": ("small", "little", "tiny")}


@dataclass(frozen=True, slots=True)
class Name:
    """A way to name a thing.

    Attributes:
        asked: as the question says it.
        told: as the answer says it, canonical.
        plural: as the question says several of it.
    """

    asked: str
    told: str
    plural: str

    @property
    def with_article(self) -> str:
        """As asked, with 'a' or 'an'."""
        return add_article(self.asked)


def spell_colour(rng: random.Random, colour: str, plain: bool) -> str:
    """The colour, sometimes in American."""
    return "gray" if colour == "grey" and not plain and rng.random() < 0.45 else colour


def find_items(scene: Scene, *, shape: str | None = None, colour: str | None = None) -> list[Item]:
    """The items of a shape, a colour or both, in reading order."""
    return [
        item
        for item in scene.items
        if (shape is None or item.shape == shape) and (colour is None or item.colour == colour)
    ]


def name_in_scene(
    rng: random.Random,
    scene: Scene,
    item: Item,
    *,
    plain: bool = False,
    may_tell_size: bool = True,
) -> Name:
    """A name that means this item and no other.

    Args:
        rng: the only source of chance.
        scene: where the item is.
        item: one of its items.
        plain: only 'red circle', or 'circle' where it is the only one.
        may_tell_size: whether 'big' or 'small' may be part of the name.
    """
    forms = ["full"] * 6
    if len(find_items(scene, shape=item.shape)) == 1:
        forms += ["shape"] * 4
    if not plain:
        if len(find_items(scene, colour=item.colour)) == 1:
            forms += ["colour"] * 2
        if may_tell_size:
            forms += ["sized"]
    return make_name(rng, item.shape, item.colour, rng.choice(forms), plain, item.size)


def name_missing(rng: random.Random, scene: Scene, *, plain: bool = False) -> Name:
    """A name of something that the scene does not show, often nearly there."""
    while True:
        shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
        form = rng.choice(("full", "full", "full", "shape", "colour"))
        if not plain and rng.random() < 0.10:
            if rng.random() < 0.5 or form == "colour":
                colour = rng.choice(_UNKNOWN_COLOURS)
            else:
                shape = rng.choice(_UNKNOWN_SHAPES)
        elif scene.items and form == "full" and rng.random() < 0.7:
            near = rng.choice(scene.items)
            if rng.random() < 0.5:
                shape = near.shape
            else:
                colour = near.colour
        if plain and form == "colour":
            continue
        found = find_items(
            scene,
            shape=None if form == "colour" else shape,
            colour=None if form == "shape" else colour,
        )
        if not found:
            return make_name(rng, shape, colour, form, plain)


def make_name(
    rng: random.Random, shape: str, colour: str, form: str, plain: bool, size: str = "big"
) -> Name:
    """Build a name of the given form: full, shape, colour or sized."""
    word, words = shape, make_plural(shape)
    if not plain and shape in _SYNONYMS and rng.random() < 0.05:
        word, words = rng.choice(_SYNONYMS[shape]), rng.choice(_PLURAL_SYNONYMS[shape])
    said = spell_colour(rng, colour, plain)
    if form == "shape":
        return Name(word, shape, words)
    if form == "colour":
        noun = rng.choice(("one", "shape", "thing", "object", "item", "figure"))
        return Name(f"{said} {noun}", f"{colour} shape", f"{said} {noun}s")
    if form == "sized":
        big = rng.choice(_SIZE_WORDS[size])
        return Name(f"{big} {said} {word}", f"{colour} {shape}", f"{big} {said} {words}")
    return Name(f"{said} {word}", f"{colour} {shape}", f"{said} {words}")
