"""Whose token ids a recorded turn has, and its ids where they are another tokenizer's. Pure.

A server may be started anew on a model whose tokenizer gives words other ids. Ids that were
recorded before say other words to it, or none: such a turn is read from its text, as an imported
one is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llavachat_server.chats.record import Turn
from llavachat_server.interfaces import TurnTokenizer
from llavachat_server.values import ModelInfo


@dataclass(frozen=True, slots=True)
class Wording:
    """Reads recorded turns for one model.

    Args:
        prompts: its template and tokenizer.
        model: which it is.
    """

    prompts: TurnTokenizer
    model: ModelInfo

    def is_own(self, turn: Turn) -> bool:
        """Whether a turn's ids are this model's.

        Of a turn that was kept before its tokenizer was noted, as far as can be known: those that
        this very model answered are. A name without a revision may stand for a model that was
        trained anew, with a tokenizer of its own: then the weights tell. An import's are those of
        the server that took it in, whichever model is told; its text is all that there was, and
        gives the same ids again.
        """
        if turn.tokenizer_sha256:
            return turn.tokenizer_sha256 == self.prompts.tokenizer_sha256
        then, now = turn.model, self.model
        if turn.imported or (then.name, then.revision) != (now.name, now.revision):
            return False
        weights = {then.weights_sha256, now.weights_sha256}
        return len(weights) == 1 or "" in weights

    def translate(self, turns: Sequence[Turn], system_prompt: str | None) -> Sequence[Turn]:
        """The turns with ids of this model's.

        Args:
            turns: of one chat.
            system_prompt: the chat's; None for the model's own.
        """
        if all(map(self.is_own, turns)):
            return turns
        return [
            turn if self.is_own(turn) else tokenise(turn, self.prompts, system_prompt)
            for turn in turns
        ]


def tokenise(turn: Turn, prompts: TurnTokenizer, system_prompt: str | None) -> Turn:
    """A turn with the ids of its text; `system_prompt` as in `Wording.translate`."""
    num_images = len(turn.images)
    if turn.parent_id is None:
        question = prompts.build_first_turn(
            turn.prompt, num_images=num_images, system_prompt=system_prompt
        )
    else:
        question = prompts.build_next_turn(turn.prompt, num_images=num_images)
    answer = prompts.build_answer(turn.answer)
    return replace(
        turn,
        question_ids=question,
        answer_ids=answer,
        tokenizer_sha256=prompts.tokenizer_sha256,
    )
