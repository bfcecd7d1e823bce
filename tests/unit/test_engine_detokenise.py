"""Streaming text: whole characters, stop texts never half shown."""

from pathlib import Path

import llavachat_server
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.engine.detokenise import Detokeniser, StopMatch, TokenTable
from token_text import decode_tokens
from tokenizers import Tokenizer

FOLDER = Path(llavachat_server.__file__).parent / "models" / "shapes"
TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
TABLE = TokenTable(TOKENIZER)
NUM_TOKENS = TOKENIZER.get_vocab_size(with_added_tokens=True)

token_ids = st.lists(st.integers(0, NUM_TOKENS - 1), max_size=40)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=30)
stops = st.lists(st.text(st.sampled_from("ab é€\n"), min_size=1, max_size=5), max_size=4)


def encode(text: str) -> list[int]:
    """Ids of a text, as a model would write it."""
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def stream(ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], Detokeniser]:
    """All deltas of an answer, and what is left of the detokeniser."""
    detokeniser = Detokeniser(TABLE, stop)
    deltas = [detokeniser.push(token_id) for token_id in ids]
    return [*deltas, detokeniser.finish()], detokeniser


def cut(text: str, stop: tuple[str, ...]) -> tuple[str, str | None]:
    """Where an answer must end: before the stop text that is complete first."""
    ends = [
        (index + len(word), index, word)
        for word in stop
        for index in [text.find(word)]
        if index >= 0
    ]
    if not ends:
        return text, None
    _, index, word = min(ends)
    return text[:index], word


@given(token_ids)
def test_deltas_spell_the_decoded_ids(ids: list[int]) -> None:
    """Any ids at all: joined deltas equal the text of all ids, and nothing raises."""
    assert decode_tokens(TABLE, ids) == "".join(stream(ids)[0])


@given(texts)
def test_text_comes_out_as_the_tokenizer_decodes_it(text: str) -> None:
    """For ids that spell valid text the tokenizer's own decoder agrees."""
    ids = encode(text)

    assert TOKENIZER.decode(ids) == "".join(stream(ids)[0])


@given(token_ids, st.sampled_from(["é", "€", "🦙"]))
def test_no_delta_holds_half_a_character(ids: list[int], character: str) -> None:
    """A character of several byte tokens comes out in one piece or not at all."""
    spelt = [3 + byte for byte in character.encode()]
    prefix = [token_id for token_id in ids if not 3 <= token_id < 259]

    for length in range(1, len(spelt)):
        assert "\ufffd" not in "".join(stream(prefix + spelt[:length])[0])
    assert character == stream([encode("a")[0], *spelt])[0][len(spelt)]


@given(st.lists(st.sampled_from(encode("ab abba é € a\nb bab")), max_size=30), stops)
def test_the_answer_ends_before_the_first_stop_text(ids: list[int], stop: list[str]) -> None:
    """Wherever token borders fall, the shown text is cut exactly, and no delta has to be undone."""
    expected, matched = cut(decode_tokens(TABLE, ids), tuple(stop))
    deltas, detokeniser = stream(ids, tuple(stop))

    assert expected == "".join(deltas)
    assert matched == (detokeniser.match and detokeniser.match.text)


def test_of_two_stop_texts_in_one_token_the_first_counts() -> None:
    """Both come with the same push; the answer ends before the one that is complete first."""
    token_id = next(
        token_id
        for token_id in range(NUM_TOKENS)
        if TABLE.spell(token_id).isalpha() and len(set(TABLE.spell(token_id))) >= 4
    )
    first, second, _, last = TABLE.spell(token_id).decode()[:4]
    deltas, detokeniser = stream([token_id], (last, second))

    assert first == "".join(deltas)
    assert StopMatch(second) == detokeniser.match


@given(token_ids)
def test_the_kept_tokens_spell_a_beginning_of_the_shown_text(ids: list[int]) -> None:
    """After a stop text the record's ids never say more than was shown."""
    deltas, detokeniser = stream(ids, ("e", "the"))
    kept = ids[: detokeniser.count_spoken_tokens()]

    assert "".join(deltas).startswith(decode_tokens(TABLE, kept))


# Half of a surrogate pair is a stop text that no bytes spell.
@given(token_ids, st.sampled_from([(), ("\ud800",)]))
def test_all_tokens_of_an_answer_that_nothing_stopped_are_kept(
    ids: list[int], stop: tuple[str, ...]
) -> None:
    """Also those that spell nothing, or begin a character that never became whole."""
    assert len(ids) == stream(ids, stop)[1].count_spoken_tokens()


def test_nothing_is_told_after_a_stop_text() -> None:
    """Not by the tokens that the model had made meanwhile, nor by the answer's end."""
    deltas, detokeniser = stream(encode("a stop and more"), ("stop",))

    assert "a " == "".join(deltas)
    assert StopMatch("stop") == detokeniser.match
    assert ("", "", 1) == (
        detokeniser.push(encode("stop")[0]),
        detokeniser.finish(),
        detokeniser.count_spoken_tokens(),
    )


@pytest.mark.parametrize("character", ["é", "€", "🦙"])
def test_half_a_stop_text_is_not_kept(character: str) -> None:
    """Bytes that only begin the stop text's first character are no part of the answer's ids; those
    of a whole character are."""
    spelt = [3 + byte for byte in character.encode()]
    ids = [*encode("a"), *spelt, *encode("b"), *spelt]
    stopped = stream(ids, (character + "c", "b" + character))[1]
    at_once = stream(ids, (character,))[1]

    assert [len(encode("a")) + len(spelt), len(encode("a"))] == [
        stopped.count_spoken_tokens(),
        at_once.count_spoken_tokens(),
    ]


def test_bad_bytes_leave_their_neighbours_alone() -> None:
    """A stray byte becomes U+FFFD; the character beside it stays."""
    euro = [3 + byte for byte in "€".encode()]

    assert "€\ufffd" == "".join(stream([*euro, 3 + 0xFF])[0])


def test_a_space_inside_stays_and_the_first_one_goes() -> None:
    """The mark in front of the first word is no space of the answer."""
    assert "Yes, it is." == "".join(stream(encode("Yes, it is."))[0])


def test_special_tokens_are_silent() -> None:
    """Structure is never shown as text."""
    assert "" == "".join(stream([0, 1, 2, TOKENIZER.token_to_id("<image>")])[0])


def test_ids_without_a_token_spell_nothing() -> None:
    """A model's head may be wider than its tokenizer."""
    assert [b"", b""] == [TABLE.spell(token_id) for token_id in (-1, NUM_TOKENS)]


def test_another_kind_of_tokenizer_is_refused() -> None:
    """Its bytes would be guessed wrongly; the message says what is needed."""
    from tokenizers import models

    with pytest.raises(ValueError, match="Llama-style"):
        TokenTable(Tokenizer(models.BPE()))
