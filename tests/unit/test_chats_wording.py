"""Whose token ids a turn has, and prompts of turns that another tokenizer's ids were kept of."""

from dataclasses import replace

import pytest
from checkpoints import write_other_words
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.chats.context import ContextBuilder
from llavachat_server.chats.errors import OtherTokenizer
from llavachat_server.chats.record import Turn
from llavachat_server.chats.wording import Wording
from llavachat_server.engine.prompt import PromptBuilder, SpecialTokens
from llavachat_server.images.intake import ImageInfo
from llavachat_server.profiles import SHAPES_FOLDER
from llavachat_server.values import Quantization
from scripted_engine import IMAGE_TOKEN_ID, NUM_IMAGE_TOKENS, shapes_prompts
from store_records import MODEL, end, make_turn

OURS = shapes_prompts()
SPECIAL = SpecialTokens(1, 2, IMAGE_TOKEN_ID)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    """A tokenizer with as many words under other ids."""
    folder = tmp_path_factory.mktemp("checkpoints") / "other"
    return PromptBuilder.from_folder(write_other_words(folder), SPECIAL)


def talk(prompts: PromptBuilder, said: list[tuple[str, str, int]]) -> list[Turn]:
    """A chat that a tokenizer's model has answered."""
    turns: list[Turn] = []
    for number, (question, answer, num_images) in enumerate(said):
        images = tuple(
            ImageInfo(f"{number:032x}{place:032x}", 9, 9, "image/png")
            for place in range(num_images)
        )
        if turns:
            ids = prompts.build_next_turn(question, num_images=num_images)
        else:
            ids = prompts.build_first_turn(question, num_images=num_images)
        turns.append(
            replace(
                end(make_turn(question, images), answer),
                parent_id=turns[-1].id if turns else None,
                question_ids=ids,
                answer_ids=prompts.build_answer(answer),
                tokenizer_sha256=prompts.tokenizer_sha256,
            )
        )
    return turns


said = st.tuples(st.text(max_size=20), st.text(max_size=20), st.integers(0, 2))


@settings(max_examples=50, deadline=None)
@given(first=st.lists(said, max_size=4), then=st.lists(said, max_size=3), question=st.text())
def test_a_prompt_is_that_of_the_words(
    theirs: PromptBuilder,
    first: list[tuple[str, str, int]],
    then: list[tuple[str, str, int]],
    question: str,
) -> None:
    """Answered by two models in turn, a chat reads as if one had answered all of it, and counts."""
    ours = talk(OURS, first + then)
    mixed = talk(theirs, first + then)[: len(first)] + ours[len(first) :]
    contexts = ContextBuilder(OURS, 10**6, NUM_IMAGE_TOKENS, MODEL)
    expected = contexts.build(ours, question, ())
    assert expected.token_ids == contexts.build(mixed, question, ()).token_ids
    assert expected.count == contexts.count(mixed, question, 0)
    if then:
        ids = contexts.rebuild_ids(mixed[:-1], mixed[-1], None)
        assert contexts.rebuild_ids(ours[:-1], ours[-1], None) == ids


def test_what_was_answered_with_other_ids_can_not_be_rebuilt(theirs: PromptBuilder) -> None:
    """Today's words for them were never seen; an import's prompt is made of its text anyway."""
    first, second = talk(theirs, [("What?", "A circle.", 1), ("And?", "Red.", 0)])
    contexts = ContextBuilder(OURS, 10**6, NUM_IMAGE_TOKENS, MODEL)
    with pytest.raises(OtherTokenizer) as caught:
        contexts.rebuild_ids([first], second, None)
    assert theirs.tokenizer_sha256[:12] in str(caught.value)
    of_before = replace(second, tokenizer_sha256="", model=replace(MODEL, name="another"))
    with pytest.raises(OtherTokenizer, match="before tokenizers were noted"):
        contexts.rebuild_ids([first], of_before, None)
    taken = replace(second, imported=True)
    expected = contexts.build([first], "And?", ()).token_ids
    assert expected == contexts.rebuild_ids([first], taken, None)


@pytest.mark.parametrize(
    ("changes", "is_own"),
    [
        ({"model": MODEL}, True),
        ({"model": replace(MODEL, weights_sha256="0" * 64)}, False),
        ({"model": replace(MODEL, weights_sha256="")}, True),
        ({"model": replace(MODEL, quantization=Quantization.NONE)}, True),
        ({"model": replace(MODEL, revision="0" * 40)}, False),
        ({"model": replace(MODEL, name="another")}, False),
        ({"model": MODEL, "imported": True}, False),
        ({"model": replace(MODEL, name="another"), "tokenizer_sha256": "ours"}, True),
        ({"model": MODEL, "tokenizer_sha256": "theirs"}, False),
    ],
)
def test_whose_ids_a_turn_has(changes: dict[str, object], is_own: bool) -> None:
    """What is noted decides; of before that was noted, the model, its revision and its weights."""
    if changes.get("tokenizer_sha256") == "ours":
        changes = {**changes, "tokenizer_sha256": OURS.tokenizer_sha256}
    turn = make_turn(**{"tokenizer_sha256": "", **changes})  # type: ignore[arg-type]
    assert is_own is Wording(OURS, MODEL).is_own(turn)


def test_all_that_decides_about_ids_is_in_the_hash() -> None:
    """The file, the structural ids, and the template, which is code; not the object's own copy."""

    class Template(PromptBuilder):
        """One that puts the picture elsewhere."""

        def build_next_turn(self, question: str, *, num_images: int = 0) -> tuple[int, ...]:
            """The question comes first."""
            return (*self.encode_text(question), *[self.special.image] * num_images)

    again = PromptBuilder.from_folder(SHAPES_FOLDER, SPECIAL)
    others = {
        Template.from_folder(SHAPES_FOLDER, SPECIAL).tokenizer_sha256,
        PromptBuilder.from_folder(SHAPES_FOLDER, SpecialTokens(1, 2, 1217)).tokenizer_sha256,
        PromptBuilder.from_folder(SHAPES_FOLDER, SpecialTokens(1, 3, 1216)).tokenizer_sha256,
        OURS.tokenizer_sha256,
    }
    assert 4 == len(others)
    assert OURS.tokenizer_sha256 == again.tokenizer_sha256
