"""The vision tower by the kernels for a CPU: transformers' features, however many compute them."""

import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from engine_reference import SHAPES_FOLDER
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.native.apart import Kernels
from llavachat_server.engine.native.backend import NativeBackend
from llavachat_server.engine.native.calls import Words
from llavachat_server.engine.opening import open_backend
from llavachat_server.engine.settings import EngineSettings
from native_models import make_runner, make_tower, to_tensor
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

SIDE_PIXELS = 72


def make_model(
    activation: str = "quick_gelu",
    layer: int = -2,
    strategy: str = "default",
    has_bias: bool = True,
) -> Any:
    """A tower of three layers and 26 rows, whose weights are large enough to tell.

    Its matrices are odd numbers of panels wide, 9, 3 and 5, and its patches leave two pixels over.
    """
    vision = CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=SIDE_PIXELS,
        patch_size=14,
        hidden_act=activation,
    )
    text = LlamaConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=64,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
        multimodal_projector_bias=has_bias,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    for name, weight in model.model.vision_tower.named_parameters():
        if "embeddings" not in name:
            weight.copy_(0.2 * torch.randn_like(weight) + (weight == 1))
    return model


def draw_pixels() -> torch.Tensor:
    """As the tower takes them, (channels, side, side)."""
    return torch.randn(3, SIDE_PIXELS, SIDE_PIXELS)


def encode(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """By transformers."""
    features: torch.Tensor = model.get_image_features(pixel_values=pixels[None]).pooler_output[0]
    return features


@pytest.mark.parametrize(
    ("layer", "strategy", "has_bias", "activation"),
    [
        (-2, "default", True, "quick_gelu"),
        (-1, "full", False, "quick_gelu"),
        (1, "default", False, "gelu"),
        (3, "full", True, "quick_gelu"),
    ],
)
def test_features_are_those_of_transformers(
    kernels: Kernels, tmp_path: Path, layer: int, strategy: str, has_bias: bool, activation: str
) -> None:
    """Up to rounding, whichever layer is read, and on one thread as on three to the last bit."""
    model = make_model(activation, layer, strategy, has_bias)
    pictures = [draw_pixels() for _ in range(3)]
    expected = [encode(model, pixels) for pixels in pictures]
    tower, is_alone = make_tower(model, kernels, tmp_path, num_threads=3), False
    tower.leave_cores(lambda: is_alone)

    actual = [to_tensor(tower.run(pixels.numpy())) for pixels in pictures]
    is_alone = True
    together = [to_tensor(tower.run(pixels.numpy())) for pixels in pictures]

    torch.testing.assert_close(expected, actual, rtol=1e-4, atol=1e-5)
    # Transformers' own words for the features, and not for something near them.
    assert [one.shape for one in expected] == [one.shape for one in actual]
    assert all(torch.equal(one, other) for one, other in zip(actual, together, strict=True))


def test_other_threads_help_where_nobody_is_being_answered(
    kernels: Kernels, tmp_path: Path
) -> None:
    """And there alone."""
    tower = make_tower(make_model(), kernels, tmp_path, num_threads=3)
    pixels, helped, is_alone = draw_pixels().numpy(), SimpleQueue[str](), False
    tower.leave_cores(lambda: is_alone)

    def run_and_note(words: Words, *kept: object) -> None:
        kernels.tower(words, *kept)
        if threading.current_thread() is not threading.main_thread():
            helped.put(threading.current_thread().name)

    tower._kernel = run_and_note  # type: ignore[assignment]
    tower.run(pixels)
    is_alone = True
    tower.run(pixels)

    names = sorted(helped.get(timeout=10) for _ in range(2))
    assert ["llavachat-tower_0", "llavachat-tower_1"] == names
    assert helped.empty()


def test_it_is_told_while_a_picture_is_encoded(kernels: Kernels, tmp_path: Path) -> None:
    """No longer than it takes, and not after one that fails either."""
    tower = make_tower(make_model(), kernels, tmp_path)
    told = [tower.is_running]

    def fail(*arguments: Any) -> None:
        told.append(tower.is_running)
        raise MemoryError

    tower._kernel = fail  # type: ignore[assignment]
    with pytest.raises(MemoryError):
        tower.run(draw_pixels().numpy())
    told.append(tower.is_running)

    assert [False, True, False] == told


@pytest.mark.usefixtures("kernels")
def test_a_step_beside_a_picture_takes_one_thread_less(kernels_folder: Path) -> None:
    """Of the embedded model as the server loads it, and no longer than the picture takes."""
    settings = EngineSettings(
        model=str(SHAPES_FOLDER),
        num_threads=2,
        compile_steps=True,
        compiled_folder=str(kernels_folder),
    )
    backend = open_backend(settings, lambda *_: None)
    assert isinstance(backend, NativeBackend)
    decoder, tower = backend.model.decoder, backend.model.tower
    runner, run_tower, counts = make_runner(decoder, 1), tower._kernel, []

    def step() -> None:
        runner.forward([Input([1, 2, 3], 0, [0], True)])
        counts.append(decoder.num_running_threads)

    def step_first(words: Words, *kept: object) -> None:
        # By the one thread that begins the picture; another may help with it.
        if not words[-1]:
            step()
        run_tower(words, *kept)

    step()
    tower._kernel = step_first  # type: ignore[assignment]
    backend.fill_slot(0, Image.new("RGB", (64, 64)))
    step()

    assert [2, 1, 2] == counts


def test_gelu_is_as_near_as_torchs() -> None:
    """To what doubles make of it, from where it is nothing to where it is the value itself."""
    from llavachat_server.engine.native.kernels.vectors import gelu, load, store
    from llavachat_server.engine.native.plan import LANES
    from numba import njit

    @njit
    def bend(source: Any, target: Any) -> None:
        for index in range(0, len(source), LANES):
            store(target, index, gelu(load(source, index)))

    values, actual = torch.linspace(-14, 14, 1600), torch.zeros(1600)
    bend(values.numpy(), actual.numpy())

    exact = torch.nn.functional.gelu(values.double()).float()
    torch.testing.assert_close(actual, exact, rtol=2e-7, atol=3e-7)
