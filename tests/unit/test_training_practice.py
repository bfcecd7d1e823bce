"""The last stage goes on from a checkpoint, and from where it was cut off."""

import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from training import joint_stage, vision_stage
from training.checkpoint import DEFAULT_FOLDER, load_weights
from training.joint_stage import ChatStage, train_jointly
from training.network import build_model
from training.vision_stage import fit_heads


def test_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a trained model, which answers well at once, and then from its own state."""
    monkeypatch.setattr(joint_stage, "BATCH_SIZE", 4)
    monkeypatch.setattr(vision_stage, "BATCH_SIZE", 16)
    model = build_model(3)
    before = load_weights(DEFAULT_FOLDER)
    model.load_state_dict(before)
    log: list[str] = []
    heads = fit_heads(model, seed=3, num_steps=12, log=log.append)
    (shapes,) = re.findall(r"^patch classifier loss [\d.]+ accuracy ([\d.]+)", log[0])
    assert float(shapes) > 0.5

    def practise(name: str, num_steps: int, rate: float) -> None:
        train_jointly(
            model,
            heads,
            Tokenizer.from_file(str(DEFAULT_FOLDER / "tokenizer.json")),
            ChatStage(name, 3, num_steps, rate=rate, decay_part=1.0),
            run_folder=tmp_path,
            log=log.append,
            export=lambda: None,
            export_every_seconds=1000,
        )

    name = "model.language_model.layers.0.mlp.up_proj.weight"
    practise("still", 1, rate=0.0)
    assert torch.equal(before[name], model.state_dict()[name])
    practise("practice", 1, rate=0.1)
    practise("practice", 2, rate=0.1)
    assert not torch.equal(before[name], model.state_dict()[name])
    lines = [re.match(r"(\w+) step (\d+) loss ([\d.]+)", line) for line in log[1:]]
    found = [line.groups() for line in lines if line]
    assert [("still", "0"), ("practice", "0"), ("practice", "1")] == [line[:2] for line in found]
    # A fifth of the first loss: 1.4 where nothing was learnt.
    assert all(float(loss) < 0.2 for _, _, loss in found)
