"""Where the language model should look while it answers.

Which item an answer speaks of is known for every word of it, and so are the patches that show it.
Two heads are told to look there. Without that, a small model takes most of its training to find
out that a name in the question and a patch in the picture can be matched at all.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llavachat_server.engine.prompt import PromptBuilder
from numpy.typing import NDArray
from torch import Tensor

from training.answers import name_item
from training.dialogues import Chat, EncodedChat
from training.network import IMAGE_TOKEN_ID, NUM_IMAGE_TOKENS
from training.scenes import Item, Scene

GAZE_LAYER = 2
NUM_GAZE_HEADS = 2
_MIN_MASS = 1e-4
_KINDS_WITHOUT_GAZE = frozenset({"background", "are_you_sure"})
_BETWEEN_LISTED = re.compile(r", | and ")


Span = tuple[int, int, tuple[Item, ...]]
"""First character, character after the last, and the items that this part speaks of."""


def find_spans(
    answer: str, scene: Scene, focus: Item | None, listed: Sequence[Item] = ()
) -> list[Span]:
    """Which part of an answer speaks of which items.

    Args:
        answer: the true answer.
        scene: what it is about.
        focus: what 'it' means after the answer; None if nothing does.
        listed: see `Draft`.

    Returns:
        The parts in order; a verdict such as ', so yes.' belongs to none.
    """
    if listed:
        return _find_listed(answer, listed)
    end = answer.find(", so ")
    end = len(answer) if end < 0 else end
    mentions = sorted(
        (start, item)
        for item in scene.items
        if (start := answer.find(name_item(item), 0, end)) >= 0
    )
    if not mentions:
        return [(0, end, (focus,))] if focus is not None else []
    spans: list[Span] = []
    begin = 0
    for index, (_, item) in enumerate(mentions):
        stop = end
        if index + 1 < len(mentions):
            next_start = mentions[index + 1][0]
            stop = max(answer.rfind(" and ", 0, next_start), answer.rfind(", ", 0, next_start))
        spans.append((begin, stop, (item,)))
        begin = stop
    return spans


def _find_listed(answer: str, listed: Sequence[Item]) -> list[Span]:
    # 'The circles are red and blue.' has a part for each; a count has one for all.
    starts = [0, *(match.start() for match in _BETWEEN_LISTED.finditer(answer))]
    if len(starts) != len(listed):
        return [(0, len(answer), tuple(listed))]
    ends = [*starts[1:], len(answer)]
    return [(start, end, (item,)) for start, end, item in zip(starts, ends, listed, strict=True)]


def find_gaze(
    builder: PromptBuilder, chat: Chat, encoded: EncodedChat, patch_labels: Sequence[NDArray[Any]]
) -> tuple[list[int], list[NDArray[np.int64]]]:
    """Which states of a chat should look at which tokens.

    Args:
        builder: the server's prompt builder.
        chat: the chat.
        encoded: the same chat's ids.
        patch_labels: one (5, patches) for each of its pictures.

    Returns:
        The tokens whose states should look somewhere, and for each the tokens to look at.
    """
    image_places = np.flatnonzero(np.array(encoded.token_ids) == IMAGE_TOKEN_ID)
    tokens: list[int] = []
    patches: list[NDArray[np.int64]] = []
    for turn, start in zip(chat.turns, encoded.answer_starts, strict=False):
        if turn.scene_index is None or turn.kind in _KINDS_WITHOUT_GAZE:
            continue
        begin = NUM_IMAGE_TOKENS * turn.scene_index
        places = image_places[begin : begin + NUM_IMAGE_TOKENS]
        scene = chat.scenes[turn.scene_index]
        for first, last, items in find_spans(turn.answer, scene, turn.focus, turn.listed):
            labels = patch_labels[turn.scene_index]
            looked_at = places[np.concatenate([find_item_patches(labels, item) for item in items])]
            # The state before a token is the one that chooses it.
            begin_token = start + len(builder.encode_text(turn.answer[:first])) if first else start
            end_token = start + len(builder.encode_text(turn.answer[:last]))
            for token in range(begin_token - 1, end_token - 1):
                tokens.append(token)
                patches.append(looked_at)
    return tokens, patches


def find_item_patches(labels: NDArray[np.int64], item: Item) -> NDArray[np.int64]:
    """Indices of the patches that show an item; see `training.rendering.label_patches`."""
    shapes, _, _, rows, columns = labels
    there = (shapes > 0) & (rows == item.row) & (columns == item.column)
    return np.flatnonzero(there)


def score_gaze(
    attention: Tensor, places: Sequence[tuple[int, int]], patches: Sequence[NDArray[np.int64]]
) -> Tensor:
    """How far the told heads look past the items.

    Args:
        attention: (batch, told heads, tokens, tokens), rows sum to 1.
        places: (row of the batch, token), of states that should look somewhere.
        patches: for each place, the tokens it should look at.

    Returns:
        The mean of -log of the attention that arrives.
    """
    if not places:
        return attention.new_zeros((), dtype=torch.float32)
    rows = torch.tensor([row for row, _ in places])
    tokens = torch.tensor([token for _, token in places])
    wanted = torch.zeros(len(places), attention.shape[-1], dtype=attention.dtype)
    for index, chosen in enumerate(patches):
        wanted[index, chosen] = 1
    looked = attention[rows, :, tokens]  # (places, heads, tokens)
    mass = (looked * wanted[:, None]).sum(-1).float()
    return -mass.clamp(min=_MIN_MASS).log().mean()
