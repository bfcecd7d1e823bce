"""A grammar of alternatives, and the split into training and held-out frames.

A frame is one line: ``(a|b)`` chooses, ``%NAME`` is a macro, ``{slot}`` is filled by the caller.
Whole frames are held out, never single expansions, so that held-out wordings are new sentences.
"""

import random
import re
import zlib

MACROS = {
    "COLOUR": "(colour|color|colour|color|hue|shade|coloring)",
    "THING": "(shape|thing|object|figure|item|shape)",
    "THINGS": "(shapes|things|objects|figures|items|shapes)",
    "PIC": "(picture|image|photo|pic|drawing|scene|picture|image|sketch|canvas)",
    "HERE": "(in|on|in) (the|this|my|that|the) %PIC",
    "INPIC": "(| %HERE| here| there| %HERE)",
    "TELL": "((can|could|would|will) you (please |)(tell|say to|inform) me|(please |)tell me|"
    "(do you know|any idea|i'd like to know|i want to know|i would like to know|"
    "i need to know|i wonder|i was wondering|let me know|i'm curious|remind me)|"
    "(can|could) you (say|see|make out|figure out|work out))",
    "SEE": "(see|notice|spot|find|make out|recognise|recognize|detect|perceive|observe|identify)",
    "BIG": "(big|large|big|huge)",
    "SMALL": "(small|little|tiny|small)",
    "BIGGER": "(bigger|larger|bigger|greater in size|more large)",
    "SMALLER": "(smaller|littler|tinier|smaller)",
    "SHOW": "(show|display|contain|depict|hold|have)",
    "PLEASE": "(| please|, please)",
}
_MACRO = re.compile(r"%([A-Z]+)")
_INNERMOST = re.compile(r"\(([^()]*)\)")
_HELD_OUT_ONE_IN = 8


def expand(rng: random.Random, frame: str) -> str:
    """Choose among a frame's alternatives; slots stay as they are."""
    while match := _MACRO.search(frame):
        frame = frame[: match.start()] + MACROS[match[1]] + frame[match.end() :]
    while match := _INNERMOST.search(frame):
        frame = frame[: match.start()] + rng.choice(match[1].split("|")) + frame[match.end() :]
    return " ".join(frame.split())


def read_lines(text: str) -> list[str]:
    """The frames of a text, one a line."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def split_frames(frames: list[str]) -> tuple[list[str], list[str]]:
    """Split frames into those to train on and those held out.

    The split is by each frame's checksum, so that adding a frame moves no other.
    """
    held_out = [frame for frame in frames if _checksum(frame) % _HELD_OUT_ONE_IN == 0]
    # In a list that the checksum spares altogether, the frame with the lowest one is held out.
    if not held_out:
        held_out = [min(frames, key=_checksum)]
    return [frame for frame in frames if frame not in held_out], held_out


def _checksum(frame: str) -> int:
    return zlib.crc32(frame.encode())
