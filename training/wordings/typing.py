"""Rough typing: openers, politeness, slang, typos, lower case, missing punctuation."""

import random
import re

_OPENERS = (
    "hey", "hi", "hello", "hiya", "yo", "oi", "ok", "okay", "so", "well", "right", "now", "um",
    "uh", "hmm", "alright", "listen", "look", "excuse me", "sorry", "quick question", "question",
    "just curious", "one more thing", "next question", "next", "by the way", "btw", "good morning",
    "good evening", "hey there", "hi there", "hello there", "dude", "mate", "bro", "buddy",
    "my friend", "sir", "robot", "computer", "assistant", "be honest", "come on", "honestly",
    "also", "then", "actually", "please", "oh", "ah", "ooh", "wow", "cool", "nice", "great",
    "in your opinion", "according to you", "if you look closely", "as far as you can tell",
    "from what you see", "looking at the picture", "in this picture", "in the image",
    "on this drawing", "in the drawing", "from the picture", "based on the image", "help",
    "i have a question", "here goes", "let's see", "lemme ask", "real quick", "pretty please",
    "for my homework", "my son asks", "my daughter wants to know", "pop quiz", "riddle me this",
    "first of all", "and", "but", "ahem", "psst", "say", "tell me", "my dear", "kindly",
)  # fmt: skip
_STATEMENTS = (
    "i drew this", "look at this", "here is a picture", "my kid made this", "see the image",
    "this is my drawing", "i made a drawing", "check this out", "have a look", "thank you",
    "i have another question", "take your time", "think carefully", "look carefully",
    "i can't see it well", "i am colour blind", "i forgot my glasses", "let me ask you something",
    "this is a test", "i need your help", "help me out", "it is important", "i am not sure",
    "let us play a game", "here you go", "i found this picture", "answer me", "be precise",
    "my friend sent me this", "i just made this", "this is for school", "don't laugh",
)  # fmt: skip
_CLOSERS = (
    "please", "pls", "thanks", "thank you", "mate", "dude", "bro", "my friend", "exactly",
    "then", "again", "now", "for me", "in your opinion", "do you think", "would you say", "buddy",
    "in the picture", "in this image", "on the picture", "in the drawing", "can you tell", "lol",
    "really", "anyway", "if i may ask", "if you can", "by the way", "roughly", "right now", "huh",
    "i wonder", "i can't tell", "can you tell me", "if you don't mind", "just asking", "actually",
    "according to you", "in there", "cheers", "precisely", "plz", "i'm curious", "help me",
)  # fmt: skip
_CONTRACTIONS = (
    (r"\b(what|where|which|who|how|that|there|it) is\b", r"\1's"),
    (r"\b(what|where|which|who|how) are\b", r"\1're"),
    (r"\bwhat (do|are) you\b", r"whaddya"),
)
_SLANG = (
    (r"\bthe\b", ("teh", "da", "th", "the", "th'", "de", "")),
    (r"\bwhat\b", ("wat", "wut", "whut", "wht", "waht", "wot")),
    (r"\bwhat is\b", ("whats", "wats", "what s", "whts", "wots", "wassup with")),
    (r"\bwhere is\b", ("wheres", "wheres", "wher is", "were is", "where s")),
    (r"\bhow many\b", ("how much", "howmany", "hw many", "how mny", "hm")),
    (r"\byou\b", ("u", "ya", "yu", "yoo", "ye")),
    (r"\bare\b", ("r", "ar")),
    (r"\bis\b", ("iz", "'s", "s")),
    (r"\bplease\b", ("pls", "plz", "pleeease")),
    (r"\bpicture\b", ("pic", "pix", "pikture")),
    (r"\band\b", ("n", "an", "&")),
    (r"\bthis\b", ("dis", "ths")),
    (r"\bthat\b", ("dat", "tht")),
    (r"\bthere\b", ("ther", "their", "thr")),
    (r"\bbecause\b", ("cuz",)),
    (r"\bsomething\b", ("sth", "smth")),
    (r"\bto\b", ("2",)),
    (r"\bcolou?r\b", ("colr", "culor", "clr", "colur", "kolor", "couleur", "coulor", "collor")),
    (r"\bcircle\b", ("circel", "cirlce", "circl")),
    (r"\bsquare\b", ("sqare", "squre", "sqaure")),
    (r"\btriangle\b", ("triangel", "traingle", "triangl")),
    (r"\bdo you see\b", ("d'you see", "do u c", "see")),
    (r"\ban?\b", ("", "a")),
)
_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "ko", "m": "n", "n": "bm", "o": "ip", "p": "o",
    "q": "wa", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "xs",
}  # fmt: skip


def roughen(rng: random.Random, text: str, *, is_question: bool = True) -> str:
    """Type a lower-case sentence as people do.

    Args:
        rng: the only source of chance.
        text: without a final mark, capitals or openers.
        is_question: ends in a question mark when tidy.
    """
    if rng.random() < 0.25:
        pattern, replacement = rng.choice(_CONTRACTIONS)
        text = re.sub(pattern, replacement, text, count=1)
    if rng.random() < 0.22:
        text = _put_around(rng, text)
    if rng.random() < 0.13:
        for pattern, choices in rng.sample(_SLANG, 9):
            text = re.sub(pattern, rng.choice(choices), text, count=1)
        text = " ".join(text.split())
    if rng.random() < 0.17:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            text = _mistype(rng, text)
    return _finish(rng, text, is_question)


def _put_around(rng: random.Random, text: str) -> str:
    kind = rng.random()
    if kind < 0.5:
        text = (
            f"{rng.choice(_OPENERS)}{rng.choice((', ', ', ', ' ', '! ', ': ', '. ', '... '))}{text}"
        )
    if 0.35 < kind < 0.8:
        text = f"{text}{rng.choice((', ', ' ', ' '))}{rng.choice(_CLOSERS)}"
    if kind > 0.8:
        text = f"{rng.choice(_STATEMENTS)}{rng.choice(('. ', '. ', ', ', '! ', ' '))}{text}"
    return text


def _mistype(rng: random.Random, text: str) -> str:
    spots = [match.start() for match in re.finditer(r"[a-z](?=[a-z]{2})", text)]
    if not spots:
        return text
    at = rng.choice(spots)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[:at] + text[at] + text[at:]
    return text[:at] + rng.choice(_NEIGHBOURS[text[at]]) + text[at + 1 :]


def _finish(rng: random.Random, text: str, is_question: bool) -> str:
    kind = rng.random()
    if kind < 0.68:
        text = re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)
        text = re.sub(r"\bi('| |$)", r"I\1", text)
    elif kind < 0.71:
        text = text.upper()
    elif kind < 0.73:
        text = text.title()
    mark = "?" if is_question else rng.choice(("", "."))
    kind = rng.random()
    if kind < 0.66:
        return text + mark
    if kind < 0.90:
        return text
    return text + rng.choice(
        ("??", " ?", ".", "!", "...", "?!", "???", " ??", "!!", ",", " .", ":)")
    )
