"""From token ids to text, as they come: whole characters, and nothing of a stop text.

Works on the bytes that each token of a Llama-style tokenizer spells, so that the result does
not depend on where one token ends and the next begins. It knows no model.
"""

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

SPACE_MARK = "\u2581"


class TokenTable:
    """The bytes that each token spells.

    Args:
        tokenizer: a Llama-style tokenizer: pieces with a mark for the space, single bytes as
            ``<0x0A>``.

    Raises:
        ValueError: the tokenizer is of another kind.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
        kinds = [part.get("type") for part in decoder.get("decoders", [decoder])]
        if "ByteFallback" not in kinds:
            raise ValueError(
                "the tokenizer is not a Llama-style one: its decoder must fall back to bytes"
            )
        self._bytes: list[bytes] = []
        special = {
            token_id
            for token_id, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        for token_id in range(tokenizer.get_vocab_size(with_added_tokens=True)):
            piece = tokenizer.id_to_token(token_id)
            if piece is None or token_id in special:
                self._bytes.append(b"")
            else:
                self._bytes.append(_spell_piece(piece))

    def spell(self, token_id: int) -> bytes:
        """The bytes of a token; none for special tokens and ids without a token."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""


def _spell_piece(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(SPACE_MARK, " ").encode()


@dataclass(frozen=True, slots=True)
class StopMatch:
    """A stop text came up: `text` is which one."""

    text: str


class Detokeniser:
    """One answer's text, a token at a time.

    Args:
        table: the tokenizer's.
        stop: texts that end the answer, none of them empty. The one whose last character comes
            first counts, and of two that end together the longer.
    """

    def __init__(self, table: TokenTable, stop: Sequence[str] = ()) -> None:
        self._table = table
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_first_byte_due = True
        # Text that may still turn out to be the beginning of a stop text.
        self._held = ""
        self._num_released_chars = 0
        self._token_ends: list[int] = []
        # Tokens, by their numbers, that end within a character.
        self._broken_tokens: set[int] = set()
        self.match: StopMatch | None = None

    def push(self, token_id: int) -> str:
        """Take a token; returns the text that is now certain, often "".

        After a match everything is "".
        """
        if self.match is not None:
            return ""
        spelt = self._table.spell(token_id)
        if self._is_first_byte_due and spelt:
            self._is_first_byte_due = False
            spelt = spelt.removeprefix(b" ")
        decoded = self._decoder.decode(spelt)
        if self._decoder.getstate()[0]:
            self._broken_tokens.add(len(self._token_ends))
        if not self._stop:
            # Nothing can be held back.
            self._num_released_chars += len(decoded)
            self._token_ends.append(self._num_released_chars)
            return decoded
        self._held += decoded
        self._token_ends.append(self._num_released_chars + len(self._held))
        found = self._find_stop()
        if found is not None:
            start, text = found
            self.match = StopMatch(text)
            return self._release(start)
        return self._release(len(self._held) - self._count_undecided())

    def finish(self) -> str:
        """The answer ends here: the text that was held back."""
        return "" if self.match is not None else self._release(len(self._held))

    def count_spoken_tokens(self) -> int:
        """How many tokens, from the first on, spell nothing beyond the released text."""
        count = sum(end <= self._num_released_chars for end in self._token_ends)
        # A stop text may begin with a character that these only begin.
        while self.match is not None and count - 1 in self._broken_tokens:
            count -= 1
        return count

    def _release(self, num_chars: int) -> str:
        text, self._held = self._held[:num_chars], self._held[num_chars:]
        self._num_released_chars += len(text)
        return text

    def _find_stop(self) -> tuple[int, str] | None:
        found = [
            (start + len(text), start, text)
            for text in self._stop
            if (start := self._held.find(text)) >= 0
        ]
        if not found:
            return None
        _, start, text = min(found)
        return start, text

    def _count_undecided(self) -> int:
        longest = max(map(len, self._stop), default=1) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-count:]
            if any(text.startswith(tail) for text in self._stop):
                return count
        return 0
