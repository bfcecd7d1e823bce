"""The vision tower by the kernels for a CPU: transformers' features, however many compute them."""

import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from engine_reference import SHAPES_FOLDER
from llavachat_server.engine.backend import Backend
from llavachat_server.engine.batching.cache import make_cache
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.runner import Runner
from llavachat_server.engine.pixels import PixelForm
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.vision import VisionEncoder
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    SiglipVisionConfig,
)

SIDE_PIXELS = 72


def make_model(
    activation: str = "quick_gelu",
    layer: int = -2,
    strategy: str = "default",
    tower: type[PreTrainedConfig] = CLIPVisionConfig,
    has_bias: bool = True,
) -> Any:
    """A tower of three layers and 26 rows, whose weights are large enough to tell.

    Its matrices are odd numbers of panels wide, 9, 3 and 5, and its patches leave two pixels over.
    """
    vision = tower(
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


def make_encoder(model: Any) -> VisionEncoder:
    """As the engine makes it."""
    side = model.config.vision_config.image_size
    return VisionEncoder(model, PixelForm(shortest_edge=side, crop=(side, side)))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("layer", "strategy", "has_bias"),
    [(-2, "default", True), (-1, "full", False), (1, "default", False), (3, "full", True)],
)
def test_features_are_those_of_transformers(layer: int, strategy: str, has_bias: bool) -> None:
    """Up to rounding, whichever layer is read, and on one thread as on three to the last bit."""
    model = make_model(layer=layer, strategy=strategy, has_bias=has_bias)
    pixels = torch.randn(3, 1, 3, SIDE_PIXELS, SIDE_PIXELS)
    encoder = make_encoder(model)
    expected = [encoder.encode(one) for one in pixels]

    is_alone = False
    encoder.use_kernels(3, lambda: is_alone, release=False)
    actual = [encoder.encode(one) for one in pixels]
    is_alone = True
    together = [encoder.encode(one) for one in pixels]

    torch.testing.assert_close(expected, actual, rtol=1e-4, atol=1e-5)
    # Transformers' own words for the features, and not for something near them.
    assert [one.shape for one in expected] == [one.shape for one in actual]
    assert all(torch.equal(one, other) for one, other in zip(actual, together, strict=True))


@pytest.mark.usefixtures("kernels")
def test_other_threads_help_where_nobody_is_being_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And there alone."""
    from llavachat_server.engine.native import tower

    encoder, pixels = make_encoder(make_model()), torch.randn(1, 3, SIDE_PIXELS, SIDE_PIXELS)
    run_tower, helped = tower.run_tower, SimpleQueue[str]()

    def run_and_note(*arguments: Any) -> None:
        run_tower(*arguments)
        if threading.current_thread() is not threading.main_thread():
            helped.put(threading.current_thread().name)

    is_alone = False
    encoder.use_kernels(3, lambda: is_alone, release=False)
    monkeypatch.setattr(tower, "run_tower", run_and_note)
    encoder.encode(pixels)
    is_alone = True
    encoder.encode(pixels)

    names = sorted(helped.get(timeout=10) for _ in range(2))
    assert ["llavachat-tower_0", "llavachat-tower_1"] == names
    assert helped.empty()


@pytest.mark.usefixtures("kernels")
def test_it_is_told_while_a_picture_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No longer than it takes, and not after one that fails either."""
    from llavachat_server.engine.native import tower

    encoder, pixels = make_encoder(make_model()), torch.randn(1, 3, SIDE_PIXELS, SIDE_PIXELS)
    told = [encoder.is_on_a_core]
    encoder.use_kernels(1, lambda: True, release=False)

    def fail(*arguments: Any) -> None:
        told.append(encoder.is_on_a_core)
        raise MemoryError

    monkeypatch.setattr(tower, "run_tower", fail)
    told.append(encoder.is_on_a_core)
    with pytest.raises(MemoryError):
        encoder.encode(pixels)
    told.append(encoder.is_on_a_core)

    assert [False, False, True, False] == told


def test_a_step_beside_a_picture_takes_one_thread_less(
    kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the embedded model as the server loads it, and no longer than the picture takes."""
    from llavachat_server.engine.native import tower

    settings = EngineSettings(
        model=str(SHAPES_FOLDER), num_threads=2, compile_steps=True, compiled_folder=str(kernels)
    )
    backend = Backend(settings, lambda *_: None)
    decoder = backend.decoder
    attention, _ = make_cache("pieces", decoder.shape, 1, 16, torch.float32, decoder.device)
    run_tower, counts = tower.run_tower, []

    def step() -> None:
        assert decoder.native is not None
        Runner(decoder, attention).forward([Input([1, 2, 3], 0, [0], True)])
        counts.append(decoder.native.num_running_threads)

    def step_first(*arguments: Any) -> None:
        # By the one thread that begins the picture; another may help with it.
        if not arguments[-1]:
            step()
        run_tower(*arguments)

    step()
    monkeypatch.setattr(tower, "run_tower", step_first)
    backend.fill_slot(0, Image.new("RGB", (64, 64)))
    step()

    assert [2, 1, 2] == counts


@pytest.mark.usefixtures("kernels")
def test_weights_of_an_encoded_tower_are_given_back() -> None:
    """Those of the layer that nothing reads as well, and the features stay what they were."""
    model = make_model()
    encoder, pixels = make_encoder(model), torch.randn(1, 3, SIDE_PIXELS, SIDE_PIXELS)
    expected = encoder.encode(pixels)
    layers = [*model.model.vision_tower.encoder.layers, model.model.multi_modal_projector]

    encoder.use_kernels(1, lambda: True, release=True)

    linears = [m for layer in layers for m in layer.modules() if hasattr(m, "in_features")]
    assert 0 == sum(linear.weight.numel() for linear in linears)
    torch.testing.assert_close(expected, encoder.encode(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gelu", "bfloat16", "several layers", "SigLIP", "projector"])
def test_a_tower_that_does_not_suit_is_encoded_by_torch(kind: str) -> None:
    """Another activation, dtype or tower, features of several layers: as without kernels."""
    model = make_model(
        "gelu" if kind == "gelu" else "quick_gelu",
        tower=SiglipVisionConfig if kind == "SigLIP" else CLIPVisionConfig,
    )
    if kind == "bfloat16":
        model = model.to(torch.bfloat16)
    if kind == "projector":
        model.config.projector_hidden_act = "gelu_new"
    encoder, pixels = make_encoder(model), torch.randn(1, 3, SIDE_PIXELS, SIDE_PIXELS)
    expected = encoder.encode(pixels)
    if kind == "several layers":
        model.config.vision_feature_layer = [-2]

    encoder.use_kernels(2, lambda: True, release=True)

    assert torch.equal(expected, encoder.encode(pixels))


@pytest.mark.usefixtures("kernels")
def test_gelu_is_as_near_as_torchs() -> None:
    """To what doubles make of it, from where it is nothing to where it is the value itself."""
    from llavachat_server.engine.native.vectors import LANES, gelu, load, store
    from numba import njit

    @njit
    def bend(source: Any, target: Any) -> None:
        for index in range(0, len(source), LANES):
            store(target, index, gelu(load(source, index)))

    values, actual = torch.linspace(-14, 14, 1600), torch.zeros(1600)
    bend(values.numpy(), actual.numpy())

    exact = torch.nn.functional.gelu(values.double()).float()
    torch.testing.assert_close(actual, exact, rtol=2e-7, atol=3e-7)
