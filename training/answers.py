"""The truth about a scene, in fixed words.

One fact, one wording: answers can then be graded, and a small model spends nothing on style.
Verdicts come after the facts they rest on ("... on the left ..., so yes."), which a small model
learns far better than a bare yes or no.
"""

from training.scenes import Item, Scene

NUMBERS = ("no", "one", "two", "three")
PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
COLUMNS = ("on the left", "in the middle", "on the right")
ROWS = ("at the top", "in the middle", "at the bottom")
SIDES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}

GREETING = "Hello! Send me a picture of shapes and ask me about it."
THANKS = "You are welcome."
GOODBYE = "Goodbye!"
WHO = "I am a tiny model: I know shapes and nothing else."
OFF_TOPIC = "I can only talk about simple shapes: I know nothing else."
NO_PICTURE = "I see no picture yet. Please send me one."
SURE = "Yes, I am sure."
HOW_DO_YOU_KNOW = "I can see it in the picture."
NOTHING_ELSE = "There is nothing else in the picture."
EMPTY = "There are no shapes in the picture."


def name_place(item: Item) -> str:
    """Such as 'at the top left'."""
    return PLACES[item.row][item.column]


def name_item(item: Item) -> str:
    """Such as 'red circle'."""
    return f"{item.colour} {item.shape}"


def add_article(words: str) -> str:
    """'a' or 'an' before the words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def make_plural(shape: str) -> str:
    """The plural of one of our shapes."""
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def join_words(parts: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def detail_item(item: Item) -> str:
    """Everything about an item: 'a big red circle at the top left'."""
    return f"a {item.size} {name_item(item)} {name_place(item)}"


def describe(scene: Scene) -> str:
    """Every item in reading order."""
    if not scene.items:
        return EMPTY
    return f"There is {join_words([detail_item(item) for item in scene.items])}."


def identify(item: Item) -> str:
    """What one thing is."""
    return f"It is a {item.size} {name_item(item)}."


def tell_missing(words: str) -> str:
    """Answer to a question about something that is not there."""
    return f"There is no {words} in the picture."


def tell_colours(shape: str, items: list[Item]) -> str:
    """The colour or colours of all items of one shape."""
    if not items:
        return tell_missing(shape)
    if len(items) == 1:
        return f"The {shape} is {items[0].colour}."
    return f"The {make_plural(shape)} are {join_words([item.colour for item in items])}."


def tell_shapes(colour: str, items: list[Item]) -> str:
    """The shape or shapes of all items of one colour."""
    if not items:
        return tell_missing(f"{colour} shape")
    if len(items) == 1:
        return f"The {colour} shape is a {items[0].shape}."
    names = join_words([f"a {item.shape}" for item in items])
    return f"The {colour} shapes are {names}."


def count(number: int, singular: str, plural: str) -> str:
    """'There is one circle.', 'There are no circles.'"""
    if number == 1:
        return f"There is one {singular}."
    return f"There are {NUMBERS[number]} {plural}."


def compare_sizes(first: Item, second: Item, bigger: bool, *, yes_no: bool) -> str:
    """Which of two is bigger or smaller, or whether the first is."""
    word = "bigger" if bigger else "smaller"
    one, two = name_item(first), name_item(second)
    if first.size == second.size:
        verdict = "no" if yes_no else "they are the same size"
        return f"The {one} and the {two} are both {first.size}, so {verdict}."
    first_wins = (first.size == "big") == bigger
    if yes_no:
        verdict = "yes" if first_wins else "no"
    else:
        verdict = f"the {one if first_wins else two} is {word}"
    return f"The {one} is {first.size} and the {two} is {second.size}, so {verdict}."


def compare_places(first: Item, second: Item, direction: str) -> str:
    """Whether the first is left of, right of, above or below the second, by grid cells."""
    across = direction in ("left_of", "right_of")
    names = COLUMNS if across else ROWS
    one, two = (first.column, second.column) if across else (first.row, second.row)
    subject, other = name_item(first), name_item(second)
    if one == two:
        return f"The {subject} and the {other} are both {names[one]}, so no."
    is_true = one < two if direction in ("left_of", "above") else one > two
    verdict = "yes" if is_true else "no"
    return f"The {subject} is {names[one]} and the {other} is {names[two]}, so {verdict}."
