"""A run that was cut off within a stage goes on as if nothing had been."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from training import joint_stage, network, vision_stage
from training.checkpoint import DEFAULT_FOLDER
from training.gaze import GAZE_LAYER
from training.joint_stage import ChatStage, train_jointly
from training.network import build_model
from training.vision_stage import train_vision

TOKENIZER = Tokenizer.from_file(str(DEFAULT_FOLDER / "tokenizer.json"))


class CutOffError(Exception):
    """Stands for whatever ends a run."""


def _cut_off(line: str) -> None:
    raise CutOffError(line)


def _train(
    model: LlavaForConditionalGeneration,
    folder: Path,
    log: Callable[[str], None],
    num_steps: int,
) -> dict[str, Tensor]:
    """Both stages, as `training.train` runs them; the weights that they leave."""
    heads = train_vision(model, seed=3, num_steps=num_steps, run_folder=folder, log=log)
    train_jointly(
        model,
        heads,
        TOKENIZER,
        ChatStage("joint", 3, num_steps),
        run_folder=folder,
        log=log,
        export=lambda: None,
        export_every_seconds=1000,
    )
    return dict(model.state_dict())


@pytest.fixture
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a fraction of a second, each saved: small batches through few layers."""
    config = network.build_config()
    config.vision_config.num_hidden_layers = 2
    config.text_config.num_hidden_layers = GAZE_LAYER + 1
    monkeypatch.setattr(network, "build_config", lambda: config)
    monkeypatch.setattr(joint_stage, "BATCH_SIZE", 2)
    monkeypatch.setattr(vision_stage, "BATCH_SIZE", 4)
    for stage in (joint_stage, vision_stage):
        monkeypatch.setattr(stage, "_SAVE_EVERY_SECONDS", 0)


@pytest.mark.usefixtures("quick_steps")
def test_goes_on_after_a_cut(tmp_path: Path) -> None:
    """A run that is ended within a stage, and begun again, ends with the very weights."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    lines: list[str] = []
    expected = _train(build_model(3), whole, lines.append, 3)
    assert ["vision step 0", "vision step 2", "joint step 0", "joint step 2"] == [
        " ".join(line.split()[:3]) for line in lines
    ]

    def cut_at(place: str) -> Callable[[str], None]:
        return lambda line: _cut_off(line) if line.startswith(place) else None

    # The last step of either stage is logged before it is saved.
    for place in ("vision step 2", "joint step 2"):
        with pytest.raises(CutOffError):
            _train(build_model(3), cut, cut_at(place), 3)
    lines.clear()
    actual = _train(build_model(3), cut, lines.append, 3)
    assert ["joint step 2"] == [" ".join(line.split()[:3]) for line in lines]
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(build_model(3).state_dict()[name], actual[name])
