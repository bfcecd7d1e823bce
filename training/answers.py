"""The truth about a scene, in fixed words.

One fact, one wording: answers can then be graded, and a small model spends nothing on style.
Verdicts come last, one step at a time ("Further left? The red circle is on the left and the blue
star is on the right, so it is further left: yes."), which a small model learns far better than a
bare yes or no: what was asked, in the words of the finding; the facts, in the same form whether
they are equal or not; the finding; and whether the two are the same. With the facts alone before
it, the verdict stayed close to a coin toss.
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
RELATIONS = {"across": ("further left", "further right"), "down": ("higher up", "lower down")}
"""How the first of two things stands to the second."""
ASKED_RELATIONS = {
    "left_of": "further left",
    "right_of": "further right",
    "above": "higher up",
    "below": "lower down",
}
LEVEL = "they are level"
SAME_SIZE = "they are the same size"
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
    one, two = name_item(first), name_item(second)
    facts = f"The {one} is {first.size} and the {two} is {second.size}"
    if yes_no:
        relation = "bigger" if first.size == "big" else "smaller"
        asked = "bigger" if bigger else "smaller"
        return _judge(asked, facts, None if first.size == second.size else relation, SAME_SIZE)
    if first.size == second.size:
        return f"{facts}, so {SAME_SIZE}."
    winner = one if (first.size == "big") == bigger else two
    return f"{facts}, so the {winner} is {'bigger' if bigger else 'smaller'}."


def compare_places(first: Item, second: Item, direction: str) -> str:
    """Whether the first is left of, right of, above or below the second, by grid cells."""
    across = direction in ("left_of", "right_of")
    names = COLUMNS if across else ROWS
    one, two = (first.column, second.column) if across else (first.row, second.row)
    facts = f"The {name_item(first)} is {names[one]} and the {name_item(second)} is {names[two]}"
    relation = RELATIONS["across" if across else "down"][one > two]
    return _judge(ASKED_RELATIONS[direction], facts, None if one == two else relation, LEVEL)


def _judge(asked: str, facts: str, relation: str | None, equal: str) -> str:
    finding = equal if relation is None else f"it is {relation}"
    return f"{asked.capitalize()}? {facts}, so {finding}: {'yes' if relation == asked else 'no'}."


def tell_others(focus: Item, others: list[Item]) -> str:
    """What there is besides the item last talked about, which is named first."""
    verb = "is" if len(others) == 1 else "are"
    details = join_words([detail_item(item) for item in others])
    return f"Besides the {name_item(focus)}, there {verb} {details}."
