"""Prompts are, id for id, what training had; nothing that a user types is structure."""

import resource
from pathlib import Path
from typing import Any

import llavachat_server
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llavachat_server.engine.prompt import SYSTEM_PROMPT, PromptBuilder, SpecialTokens
from tokenizers import AddedToken, Tokenizer, models, normalizers

FOLDER = Path(llavachat_server.__file__).parent / "models" / "shapes"
BOS, EOS = 1, 2
IMAGE = Tokenizer.from_file(str(FOLDER / "tokenizer.json")).token_to_id("<image>")
PROMPTS = PromptBuilder.from_folder(FOLDER, SpecialTokens(BOS, EOS, IMAGE))
NUM_IMAGE_TOKENS = 64

ALPHABET = "▁ABEHINRSTU.:?abcdefghilnorstuvw"


def build_letter_tokenizer() -> Tokenizer:
    """Llama's layout without merges: every letter is a token, so that goldens last.

    0-2 are ``<unk>``, ``<s>``, ``</s>``; 3-258 the bytes; from 259 on `ALPHABET`; then the image.
    """
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *ALPHABET]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<image>"])
    return tokenizer


LETTER_IMAGE = 259 + len(ALPHABET)
LETTERS = PromptBuilder(build_letter_tokenizer(), SpecialTokens(BOS, EOS, LETTER_IMAGE))


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
    ids = LETTERS.build_first_turn("What is this?", system_prompt="Be brief.")
    expected = (
        1, 259, 261, 277, 259, 274, 285, 281, 277, 278, 270, 259, 269, 267, 262, 266,
        271, 259, 291, 259, 13, 90, 280, 273, 287, 259, 281, 286, 259, 287, 280, 281,
        286, 272, 259, 260, 267, 267, 264, 267, 268, 260, 265, 268, 271,
    )  # fmt: skip

    assert expected == ids


def test_golden_second_turn() -> None:
    """One ``</s>`` after the answer, and no second ``<s>``."""
    first = LETTERS.build_first_turn("Is it a bus?", num_images=0, system_prompt="")
    turns = [(first, LETTERS.build_answer("No."))]
    expected = (
        1, 259, 269, 267, 262, 266, 271, 259, 264, 286, 259, 281, 287, 259, 273, 259,
        274, 288, 286, 272, 259, 260, 267, 267, 264, 267, 268, 260, 265, 268, 271, 259,
        265, 284, 270, 2, 259, 269, 267, 262, 266, 271, 259, 260, 259, 275, 273, 287,
        272, 259, 260, 267, 267, 264, 267, 268, 260, 265, 268, 271,
    )  # fmt: skip

    assert expected == LETTERS.join_turns(turns, LETTERS.build_next_turn("A cat?"))


def test_golden_two_pictures() -> None:
    """A line break after each, and a space before each from the tokenizer's own habit."""
    expected = (
        1, 259, 269, 267, 262, 266, 271, 259, 291, 259, 13, 291, 259, 13, 263, 281,
        259, 260, 267, 267, 264, 267, 268, 260, 265, 268, 271,
    )  # fmt: skip

    assert expected == LETTERS.build_first_turn("Hi", num_images=2, system_prompt="")


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
    assert 0 == count(ids, EOS, 0, IMAGE + 1)


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


def test_nothing_that_was_asked_is_kept() -> None:
    """A tokenizer's cache would grow by 8 KiB with each of these questions."""

    def read_memory() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    prompts = PromptBuilder.from_folder(FOLDER, SpecialTokens(BOS, EOS, IMAGE))
    before = read_memory()
    for number in range(8000):
        # Short enough to be kept, with few words, whose spaces count three bytes each.
        prompts.build_first_turn(f"{number}{'?' * 180}", num_images=0, system_prompt="")
    assert read_memory() - before < 16 * 1024**2
