"""Scenes and pictures are a function of the seed, and facts agree with what is drawn."""

import random

import numpy as np
import pytest

from training.batches import normalise_pixels, shrink_picture
from training.checkpoint import DEFAULT_FOLDER
from training.rendering import Style, draw_scene, label_patches
from training.scenes import (
    BACKGROUND_COLOURS,
    BIG_RADIUS,
    COLOURS,
    SHAPES,
    SMALL_RADIUS,
    rgb_distance,
    sample_scene,
)


def test_same_seed_same_picture() -> None:
    """One seed makes one scene and one picture, to the byte."""
    first, second = random.Random("seed"), random.Random("seed")
    one, two = sample_scene(first), sample_scene(second)
    assert one == two
    assert draw_scene(one, first).tobytes() == draw_scene(two, second).tobytes()


def test_facts_are_unambiguous() -> None:
    """Sizes leave a gap, cells match positions, and nothing has the background's colour."""
    for index in range(200):
        scene = sample_scene(random.Random(index))
        for item in scene.items:
            assert item.column == int(item.x / scene.width * 3)
            assert item.row == int(item.y / scene.height * 3)
            low, high = SMALL_RADIUS if item.size == "small" else BIG_RADIUS
            assert low <= item.radius <= high
            assert item.colour != scene.background
            assert rgb_distance(item.rgb, scene.background_rgb) > 90
        kinds = [(item.shape, item.colour) for item in scene.items]
        assert len(kinds) == len(set(kinds))


def test_every_item_has_a_patch() -> None:
    """The patch labels show every item of a scene, and only those."""
    for index in range(100):
        scene = sample_scene(random.Random(index))
        shapes, colours, _, rows, columns = label_patches(scene)
        seen = {
            (SHAPES[shape - 1], BACKGROUND_COLOURS[colour], row, column)
            for shape, colour, row, column in zip(shapes, colours, rows, columns, strict=True)
            if shape > 0
        }
        expected = {(item.shape, item.colour, item.row, item.column) for item in scene.items}
        assert expected == seen


@pytest.mark.parametrize("side_pixels", [48, 96, 300])
def test_style_sets_the_size(side_pixels: int) -> None:
    """An evaluation can fix how large pictures are."""
    rng = random.Random(3)
    picture = draw_scene(sample_scene(rng), rng, Style(side_pixels=side_pixels))
    assert side_pixels == max(picture.size)


def test_item_colour_shows_in_the_picture() -> None:
    """An item's colour is found where the item is."""
    assert len(COLOURS) == 10
    for index in range(40):
        rng = random.Random(index)
        scene = sample_scene(rng, 1)
        style = Style(textured=False, outlined=False, side_pixels=200)
        pixels = np.asarray(draw_scene(scene, rng, style), dtype=np.float32)
        distances = np.abs(pixels - np.array(scene.items[0].rgb)).sum(2)
        assert distances.min() < 90


def test_pixels_match_the_processor() -> None:
    """Training normalises pictures as the checkpoint's own image processor does."""
    from transformers import CLIPImageProcessorPil

    rng = random.Random(11)
    picture = draw_scene(sample_scene(rng), rng, Style(side_pixels=200))
    picture = picture.resize((200, 200))
    processor = CLIPImageProcessorPil.from_pretrained(DEFAULT_FOLDER)
    expected = processor(images=picture, return_tensors="np")["pixel_values"]
    actual = normalise_pixels(shrink_picture(picture)[None]).numpy()
    assert np.abs(expected - actual).max() < 1e-4
