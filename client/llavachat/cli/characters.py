"""Which characters of other people's texts a terminal is shown.

A chat's words come from whoever asked, from a model, or from a file that was imported. Among them
may be what a terminal obeys: escape sequences move the cursor, fill the clipboard and name the
window; overrides of the writing direction make a line read as another one.
"""

import re
from typing import TextIO

# C0 but for \t and \n, DEL, C1; embeddings, overrides and isolates of the writing direction. Not
# the marks (U+200E, U+200F), which right-to-left scripts need and which end with their word.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def spell(text: str, encoding: str = "utf-8") -> str:
    """A text with U+FFFD in place of every character that a terminal would obey.

    Args:
        text: anybody's.
        encoding: of where it goes; "?" stands for U+FFFD in one that does not have it.
    """
    try:
        sign = "\ufffd".encode(encoding).decode(encoding)
    except (UnicodeError, LookupError):
        sign = "?"
    return _OBEYED.sub(sign, text.replace("\r\n", "\n"))


def spell_for(stream: TextIO, text: str) -> str:
    """A text as it goes to a stream: spelt for a terminal, as it is for all else."""
    return spell(text, stream.encoding) if stream.isatty() else text
