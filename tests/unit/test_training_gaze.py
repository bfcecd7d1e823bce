"""Every word of an answer is tied to the item it speaks of, and to the patches that show it."""

import random

import numpy as np
import torch

from training.checkpoint import DEFAULT_FOLDER
from training.dialogues import encode_chat, load_prompt_builder, sample_chat
from training.gaze import find_gaze, find_spans, score_gaze
from training.network import IMAGE_TOKEN_ID
from training.rendering import label_patches
from training.scenes import Item, Scene

RED_CIRCLE = Item("circle", "red", "big", 0, 0, 0.2, 0.2, 0.18, (255, 0, 0))
BLUE_STAR = Item("star", "blue", "small", 1, 2, 0.8, 0.5, 0.1, (0, 0, 255))
SCENE = Scene((RED_CIRCLE, BLUE_STAR), "white", (255, 255, 255), 1.0, 1.0)


def test_each_clause_has_its_item() -> None:
    """Two items in one answer share it between them; the verdict belongs to neither."""
    answer = "The blue star is on the right and the red circle is on the left, so no."
    spans = [(answer[first:last], items) for first, last, items in find_spans(answer, SCENE, None)]
    expected = [
        ("The blue star is on the right", (BLUE_STAR,)),
        (" and the red circle is on the left", (RED_CIRCLE,)),
    ]
    assert expected == spans


def test_besides_is_a_clause() -> None:
    """What was talked about comes first, what there is besides comes after the comma."""
    answer = "Besides the red circle, there is a small blue star on the right."
    spans = [(answer[first:last], items) for first, last, items in find_spans(answer, SCENE, None)]
    expected = [
        ("Besides the red circle", (RED_CIRCLE,)),
        (", there is a small blue star on the right.", (BLUE_STAR,)),
    ]
    assert expected == spans


def test_it_is_the_focus() -> None:
    """An answer without a name speaks of what 'it' means, or of nothing."""
    assert [(0, 11, (BLUE_STAR,))] == find_spans("It is blue.", SCENE, BLUE_STAR)
    assert [] == find_spans("You are welcome.", SCENE, None)


def test_listed_items_have_a_part_each() -> None:
    """A list by one trait alone has a part for each item, a count one part for all."""
    both = (RED_CIRCLE, BLUE_STAR)
    answer = "The shapes are red and blue."
    spans = [
        (answer[first:last], items) for first, last, items in find_spans(answer, SCENE, None, both)
    ]
    assert [("The shapes are red", (RED_CIRCLE,)), (" and blue.", (BLUE_STAR,))] == spans
    assert [(0, 21, both)] == find_spans("There are two shapes.", SCENE, None, both)


def test_gaze_points_at_pictures() -> None:
    """States before answers look at image tokens, and at nothing else."""
    builder = load_prompt_builder(DEFAULT_FOLDER)
    num_places = 0
    for index in range(6):
        chat = sample_chat(random.Random(index), 4, draw=False)
        encoded = encode_chat(builder, chat)
        labels = [label_patches(scene) for scene in chat.scenes]
        tokens, patches = find_gaze(builder, chat, encoded, labels)
        num_places += len(tokens)
        for chosen in patches:
            assert len(chosen) > 0
            assert {IMAGE_TOKEN_ID} == {encoded.token_ids[place] for place in chosen}
    assert num_places > 0


def test_score_is_zero_for_the_right_place() -> None:
    """Attention that all arrives costs nothing; attention that does not, costs."""
    attention = torch.zeros(1, 2, 3, 3)
    attention[..., 1] = 1.0
    assert score_gaze(attention, [(0, 2)], [np.array([1])]).item() == 0
    assert score_gaze(attention, [(0, 2)], [np.array([0])]).item() > 5
