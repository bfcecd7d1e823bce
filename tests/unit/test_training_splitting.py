"""Split words say the same in other pieces, and only where a user typed them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from training.checkpoint import DEFAULT_FOLDER
from training.dialogues import encode_chat, load_prompt_builder, sample_chat
from training.joint_stage import make_chat_batch
from training.network import IMAGE_TOKEN_ID
from training.splitting import WordSplitter
from training.team import Team

TOKENIZER = Tokenizer.from_file(str(DEFAULT_FOLDER / "tokenizer.json"))
BUILDER = load_prompt_builder(DEFAULT_FOLDER)


@given(text=st.text(max_size=60), rate=st.floats(0, 1), seed=st.integers())
def test_the_text_stays(text: str, rate: float, seed: int) -> None:
    """Whatever is split reads as before, and is the same for the same seed."""
    token_ids = BUILDER.encode_text(text)
    splitter = WordSplitter(TOKENIZER, rate)
    split = splitter.split(random.Random(seed), token_ids)
    assert BUILDER.render(token_ids) == BUILDER.render(split)
    assert split == splitter.split(random.Random(seed), token_ids)


def test_how_much_is_split() -> None:
    """Nothing at 0, down to single characters at 1, and as often as was said between."""
    token_ids = BUILDER.encode_text("three circles")
    assert list(token_ids) == WordSplitter(TOKENIZER, 0).split(random.Random(1), token_ids)
    letters = WordSplitter(TOKENIZER, 1).split(random.Random(1), token_ids)
    assert list("▁three▁circles") == [TOKENIZER.id_to_token(token) for token in letters]
    (merged,) = BUILDER.encode_text("is")
    rng = random.Random(2)
    splitter = WordSplitter(TOKENIZER, 0.25)
    share = sum(len(splitter.split(rng, [merged])) > 1 for _ in range(4000)) / 4000
    assert share == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_no_such_chance(rate: float) -> None:
    """What is no probability is refused by name."""
    with pytest.raises(ValueError, match="rate must be between 0 and 1"):
        WordSplitter(TOKENIZER, rate)


def test_only_questions_are_split() -> None:
    """Answers, their labels and what the server types before a picture stay as they are served."""
    splitter = WordSplitter(TOKENIZER, 1)
    for index in range(20):
        rng = random.Random(index)
        chat = sample_chat(rng, 4, draw=False)
        plain = encode_chat(BUILDER, chat)
        split = encode_chat(BUILDER, chat, split=lambda ids, rng=rng: splitter.split(rng, ids))
        assert BUILDER.render(plain.token_ids) == BUILDER.render(split.token_ids)
        assert [x for x in plain.labels if x >= 0] == [x for x in split.labels if x >= 0]
        if IMAGE_TOKEN_ID in plain.token_ids[: plain.answer_starts[0]]:
            place = plain.token_ids.index(IMAGE_TOKEN_ID)
            assert plain.token_ids[:place] == split.token_ids[:place]
        assert len(plain.token_ids) < len(split.token_ids)


def test_half_of_a_batch_is_split() -> None:
    """The other chats stay, id for id, as the server would have them."""
    plain = make_chat_batch(20, BUILDER, WordSplitter(TOKENIZER, 0), 0, Team(0, 1))
    split = make_chat_batch(20, BUILDER, WordSplitter(TOKENIZER, 1), 0, Team(0, 1))
    same = (plain.token_ids == split.token_ids).all(axis=1)
    assert 16 == len(same)
    assert 4 <= same.sum() <= 12
