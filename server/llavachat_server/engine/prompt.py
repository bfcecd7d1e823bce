"""Chats as token ids, in the one template that LLaVA-1.5 was trained on.

Pure: a tokenizer goes in, tuples of ids come out. It must not know torch, pictures' pixels
or who asks.

A prompt is a flat tuple of ids in which *one* ``image_token_id`` stands for one whole picture;
the engine widens it to the picture's features. Turns are tokenised one by one and their ids
are kept, so that the prompt of turn n is, id for id, the beginning of the prompt of turn n + 1:
that is what the prefix cache lives on.

Text is tokenised segment by segment with special tokens switched off: a user who types
``<image>`` or ``</s>`` has typed text.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

# Read by tokenizers at each call: it would begin a thread for each core to share one text among.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SYSTEM_PROMPT = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
"""Source: ``conv_vicuna_v1`` in the LLaVA-1.5 release, ``llava/conversation.py``."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids that carry structure. For Llama's tokenizer: bos 1, eos 2; image 32000 in
    ``llava-hf/llava-1.5-7b-hf``."""

    bos: int
    eos: int
    image: int


class PromptBuilder:
    """Builds prompts in Vicuna v1's template, exactly as in LLaVA-1.5's training.

    ``<s>SYSTEM USER: <image>\\nquestion ASSISTANT: answer</s>USER: question ASSISTANT:``

    Source: ``conv_vicuna_v1`` (separators ``" "`` and ``"</s>"``) in the LLaVA-1.5 release,
    ``llava/conversation.py``; pictures come before the question as in ``llava/eval``.
    """

    def __init__(
        self, tokenizer: Tokenizer, special: SpecialTokens, *, file: bytes | None = None
    ) -> None:
        """Take a tokenizer over for this builder alone.

        Args:
            tokenizer: a Llama-style tokenizer; a private copy is made, because the switch
                that turns typed special tokens into text belongs to the object.
            special: the structural ids of the same tokenizer.
            file: what the tokenizer was read from. None: what its library writes of it, which
                another release may write otherwise.

        Raises:
            ValueError: an added token is not marked special; it could then be typed.
        """
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True
        # It would keep the last 10,000 texts, 80 MiB of what people said, for the sake of words
        # that come again; but without a pre-tokeniser a whole question is one word.
        self._tokenizer.model._resize_cache(0)
        self.special = special
        added = self._tokenizer.get_added_tokens_decoder()
        typable = [token.content for token in added.values() if not token.special]
        if typable:
            raise ValueError(f"added tokens must be special, or users could type them: {typable}")
        self._added_ids = frozenset(added) | {special.bos, special.eos, special.image}
        self._sha256 = self._hash(tokenizer.to_str().encode() if file is None else file)

    @classmethod
    def from_folder(cls, folder: Path, special: SpecialTokens) -> "PromptBuilder":
        """Read ``tokenizer.json`` from a checkpoint's folder."""
        file = (folder / "tokenizer.json").read_bytes()
        return cls(Tokenizer.from_buffer(file), special, file=file)

    @property
    def tokenizer_sha256(self) -> str:
        """Over all that decides which ids words get: the tokenizer's file, the structural ids and
        the template. Ids that were made under another one say other words here.

        How wide a picture is in the context is not in it: in the ids each is one placeholder.
        """
        return self._sha256

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokenise one segment as plain text, whatever it looks like.

        Python's lock is free meanwhile, for which `encode` keeps it, and it takes a third of that
        one's time: 15 to 18 ms for 48, of 16,384 emoji.
        """
        (found,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids = tuple(found.ids)
        if not self._added_ids.isdisjoint(ids):
            raise ValueError("the tokenizer turned plain text into a special token")
        return ids

    def build_first_turn(
        self, question: str, *, num_images: int = 1, system_prompt: str | None = None
    ) -> tuple[int, ...]:
        """Token ids from ``<s>`` up to and with ``ASSISTANT:``.

        Args:
            question: the user's text.
            num_images: how many pictures stand before the question, 0 or more.
            system_prompt: replaces `SYSTEM_PROMPT`; "" leaves the sentence out.
        """
        system = SYSTEM_PROMPT if system_prompt is None else system_prompt
        opening = f"{system} USER: " if system else "USER: "
        return (self.special.bos, *self._user_message(opening, question, num_images))

    def build_next_turn(self, question: str, *, num_images: int = 0) -> tuple[int, ...]:
        """Token ids of a later turn, from ``USER:`` up to and with ``ASSISTANT:``."""
        return self._user_message("USER: ", question, num_images)

    def build_answer(self, answer: str) -> tuple[int, ...]:
        """Token ids of an answer as the model would have written it, without ``</s>``.

        For answers whose own ids are not known: imported chats and training dialogues.
        """
        return self.encode_text(answer)

    def join_turns(
        self, turns: Iterable[tuple[tuple[int, ...], tuple[int, ...]]], next_turn: tuple[int, ...]
    ) -> tuple[int, ...]:
        """The whole prompt: earlier (question, answer) ids, then the new turn.

        Every answer is closed by exactly one ``</s>``, also one that was cut short.
        """
        ids: list[int] = []
        for question, answer in turns:
            ids += question
            ids += answer[:-1] if answer and answer[-1] == self.special.eos else answer
            ids.append(self.special.eos)
        return (*ids, *next_turn)

    def count_turn(self, question: tuple[int, ...], answer: tuple[int, ...]) -> int:
        """How many ids `join_turns` makes of an earlier turn."""
        is_closed = bool(answer) and answer[-1] == self.special.eos
        return len(question) + len(answer) + (not is_closed)

    def render(self, token_ids: Iterable[int]) -> str:
        """The raw prompt text of ids, special tokens shown; for people, not for models."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def _hash(self, file: bytes) -> str:
        # The template is code. What it makes of samples tells one release's from another's.
        next_turn = self.build_next_turn("?", num_images=1)
        samples = (
            self.build_first_turn("?", num_images=0),
            self.build_first_turn("?", num_images=2, system_prompt=""),
            self.join_turns([(next_turn, self.build_answer("!"))], next_turn),
        )
        special = (self.special.bos, self.special.eos, self.special.image)
        shape = repr((hashlib.sha256(file).hexdigest(), special, samples))
        return hashlib.sha256(shape.encode()).hexdigest()

    def _user_message(self, opening: str, question: str, num_images: int) -> tuple[int, ...]:
        # One segment per stretch between pictures, as training had it: the wrapper and the
        # question share a segment, so that their tokens merge as they merged there.
        if num_images == 0:
            return self.encode_text(f"{opening}{question} ASSISTANT:")
        ids = list(self.encode_text(opening))
        for index in range(num_images):
            ids.append(self.special.image)
            last = index == num_images - 1
            ids += self.encode_text(f"\n{question} ASSISTANT:" if last else "\n")
        return tuple(ids)
