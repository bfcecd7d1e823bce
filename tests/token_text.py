"""An answer's text from its ids at once, beside which what streams is held."""

import codecs
from collections.abc import Sequence

from llavachat_server.engine.detokenise import TokenTable


def decode_tokens(table: TokenTable, token_ids: Sequence[int]) -> str:
    """The text of an answer.

    As the tokenizer decodes it, save for bytes that are not UTF-8: those become U+FFFD without
    taking their valid neighbours along, and a character cut off at the end is left out.
    """
    spelt = b"".join(table.spell(token_id) for token_id in token_ids)
    return codecs.getincrementaldecoder("utf-8")("replace").decode(spelt.removeprefix(b" "))
