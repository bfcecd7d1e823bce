"""Prompts are, id for id, what training had; nothing that a user types is structure."""

from pathlib import Path
from typing import Any

import llavachat_server
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.engine.prompt import SYSTEM_PROMPT, PromptBuilder, SpecialTokens
from tokenizers import AddedToken, Tokenizer

FOLDER = Path(llavachat_server.__file__).parent / "models" / "shapes"
BOS, EOS, IMAGE = 1, 2, 1216
PROMPTS = PromptBuilder.from_folder(FOLDER, SpecialTokens(BOS, EOS, IMAGE))
NUM_IMAGE_TOKENS = 64

SYSTEM_IDS = (
    1,
    338,
    560,
    550,
    333,
    542,
    481,
    374,
    447,
    577,
    576,
    467,
    266,
    358,
    467,
    574,
    552,
    265,
    578,
    265,
    374,
    561,
    553,
    395,
    337,
    481,
    261,
    322,
    548,
    266,
)
"""``<s>`` and the system sentence, by the embedded tokenizer."""

typed = st.lists(
    st.one_of(
        st.sampled_from(
            ["<image>", "</s>", "<s>", "<unk>", "<pad>", "ASSISTANT:", "USER:", "<0x0A>", " ", "\n"]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    ),
    max_size=6,
).map("".join)


def count(ids: tuple[int, ...], *wanted: int) -> int:
    """How many of the ids are among the wanted ones."""
    return sum(token_id in wanted for token_id in ids)


def test_golden_first_turn() -> None:
    """``<s>SYSTEM USER: <image>\\nquestion ASSISTANT:``, with one space where training had one."""
    expected = (*SYSTEM_IDS, 343, 276, 330, 1216, 330, 13, 300, 371, 339, 594, 277, 351, 276)

    assert expected == PROMPTS.build_first_turn("What is this?")


def test_golden_second_turn() -> None:
    """One ``</s>`` after the answer, and no second ``<s>``."""
    turns = [(PROMPTS.build_first_turn("What is this?"), PROMPTS.build_answer("A red circle."))]
    expected = (
        *SYSTEM_IDS,
        343,
        276,
        330,
        1216,
        330,
        13,
        300,
        371,
        339,
        594,
        277,
        351,
        276,
        338,
        478,
        431,
        266,
        2,
        343,
        276,
        590,
        707,
        311,
        662,
        407,
        277,
        351,
        276,
    )

    assert expected == PROMPTS.join_turns(turns, PROMPTS.build_next_turn("And behind it?"))


def test_golden_without_a_picture_and_with_another_system_prompt() -> None:
    """The text variants."""
    assert (1, 1004, 353, 386, 308, 309, 266, 343, 276, 1051, 351, 276) == PROMPTS.build_first_turn(
        "Hi", num_images=0, system_prompt="Be brief."
    )
    assert (1, 343, 276, 1051, 351, 276) == PROMPTS.build_first_turn(
        "Hi", num_images=0, system_prompt=""
    )


@pytest.fixture(scope="module")
def processor() -> Any:
    """transformers' own processor with the checkpoint's chat template."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(FOLDER)


def run_template(processor: Any, messages: list[dict[str, Any]], num_images: int) -> list[int]:
    """Ids as any other user of the checkpoint gets them, pictures widened."""
    from PIL import Image

    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    pictures = [Image.new("RGB", (96, 96))] * num_images or None
    ids: list[int] = processor(text=text, images=pictures)["input_ids"][0]
    return ids


def widen(ids: tuple[int, ...]) -> list[int]:
    """Each placeholder as often as a picture has tokens."""
    return [i for token in ids for i in [token] * (NUM_IMAGE_TOKENS if token == IMAGE else 1)]


def user(text: str, num_images: int = 0) -> dict[str, Any]:
    """A message of the chat template."""
    pictures = [{"type": "image"}] * num_images
    return {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}


@pytest.mark.parametrize("num_images", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "question", ["What is this?", "Größe? 🦙\nNext line", "  spaces  ", "a", "¿Qué es?"]
)
def test_first_turn_equals_the_chat_template(
    processor: Any, question: str, num_images: int
) -> None:
    """The checkpoint's processor writes the same ids."""
    expected = run_template(processor, [user(question, num_images)], num_images)

    assert expected == widen(PROMPTS.build_first_turn(question, num_images=num_images))


def test_a_conversation_equals_the_chat_template(processor: Any) -> None:
    """Three turns, a picture in the first and two more in the last, and a system prompt."""
    answers = ["A red circle.", "Nothing, I think.\nIt is black."]
    questions = ["What is this?", "And behind it?", "And in these?"]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        user(questions[0], 1),
        {"role": "assistant", "content": [{"type": "text", "text": answers[0]}]},
        user(questions[1]),
        {"role": "assistant", "content": [{"type": "text", "text": answers[1]}]},
        user(questions[2], 2),
    ]
    turns = [
        (
            PROMPTS.build_first_turn(questions[0], system_prompt="Be brief."),
            PROMPTS.build_answer(answers[0]),
        ),
        (PROMPTS.build_next_turn(questions[1]), PROMPTS.build_answer(answers[1])),
    ]
    prompt = PROMPTS.join_turns(turns, PROMPTS.build_next_turn(questions[2], num_images=2))

    assert run_template(processor, messages, 3) == widen(prompt)


@settings(max_examples=400)
@given(typed, typed, st.integers(0, 3))
def test_typed_structure_is_text(question: str, system: str, num_images: int) -> None:
    """As many pictures as asked for, one ``<s>``, no ``</s>``, whatever is typed where."""
    ids = PROMPTS.build_first_turn(question, num_images=num_images, system_prompt=system)

    assert num_images == count(ids, IMAGE)
    assert (BOS, 1) == (ids[0], count(ids, BOS))
    assert 0 == count(ids, EOS, 0, 1217)


@settings(max_examples=200)
@given(st.lists(typed, min_size=1, max_size=4), st.lists(typed, min_size=4, max_size=4))
def test_a_prompt_begins_with_the_prompt_before_it(
    questions: list[str], answers: list[str]
) -> None:
    """Id for id: that is what the prefix cache lives on. And each answer has one ``</s>``."""
    turns: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    before: tuple[int, ...] = ()
    for question, answer in zip(questions, answers, strict=False):
        turn = PROMPTS.build_next_turn(question) if turns else PROMPTS.build_first_turn(question)
        prompt = PROMPTS.join_turns(turns, turn)
        assert before == prompt[: len(before)]
        assert len(turns) == count(prompt, EOS)
        answer_ids = PROMPTS.build_answer(answer)
        before = (*prompt, *answer_ids)
        turns.append((turn, answer_ids))


def test_an_answer_is_closed_once() -> None:
    """Also one whose ids already end with ``</s>``, and one that was cut short."""
    question = PROMPTS.build_first_turn("a")
    answer = PROMPTS.build_answer("b")
    turn = PROMPTS.build_next_turn("c")

    assert PROMPTS.join_turns([(question, answer)], turn) == PROMPTS.join_turns(
        [(question, (*answer, EOS))], turn
    )
    assert 1 == count(PROMPTS.join_turns([(question, ())], turn), EOS)


def test_the_default_system_prompt_is_llavas() -> None:
    """Unset and given are the same ids."""
    assert PROMPTS.build_first_turn("a") == PROMPTS.build_first_turn(
        "a", system_prompt=SYSTEM_PROMPT
    )


def test_the_raw_prompt_shows_its_structure() -> None:
    """For people who want to see what the model saw."""
    raw = PROMPTS.render(PROMPTS.build_first_turn("What?", system_prompt="Be brief."))

    assert raw.startswith("<s>")
    assert "<image>" in raw
    assert raw.endswith("What? ASSISTANT:")


def test_the_callers_tokenizer_is_left_alone() -> None:
    """The switch that makes typed structure text belongs to the builder's own copy."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    PromptBuilder(tokenizer, SpecialTokens(BOS, EOS, IMAGE))

    assert IMAGE in tokenizer.encode("<image>", add_special_tokens=False).ids


def test_an_added_token_that_could_be_typed_is_refused() -> None:
    """Users could otherwise speak in tokens that no text has."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])

    with pytest.raises(ValueError, match="<tool>"):
        PromptBuilder(tokenizer, SpecialTokens(BOS, EOS, IMAGE))
