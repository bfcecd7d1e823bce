"""The GPU's benchmark on a processor, at a size that says nothing about speed: that it measures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.engine.placement import Machine, place_model
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.loading import read_weights

from bench.gpu.checkpoint import make_checkpoint
from bench.gpu.contenders import run
from bench.gpu.report import ENGINE, GENERATE, list_rows, write_report
from bench.gpu.sizes import FORMS, SIZES
from bench.gpu.task import Task
from bench.served.workload import count_words

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest one."""
    folder = tmp_path_factory.mktemp("tiny")
    make_checkpoint(TINY, folder, "cpu")
    return folder


def make_task(form: str = "int8", chats: tuple[int, ...] = (1, 2)) -> Task:
    """A little of everything."""
    return Task(
        size="tiny",
        form=form,
        device="cpu",
        seed="a",
        chats=chats,
        answer_tokens=4,
        repeats=1,
    )


async def test_both_contenders_are_measured_on_equal_work(checkpoint: Path) -> None:
    """Each row has its figure, and both were asked as much."""
    ours = await run(ENGINE, checkpoint, make_task())
    theirs = await run(GENERATE, checkpoint, make_task(chats=(1,)))
    for told, chats in ((ours, (1, 2)), (theirs, (1,))):
        # A GPU's memory is told where there is one.
        assert set(list_rows(chats)) - {"memory"} == set(told["figures"]) - {"memory"}
    assert [4] == [count_words(answer) for answer in ours["answers"]]
    assert [4] == [count_words(answer) for answer in theirs["answers"]]
    assert ours["prompt_tokens"] == theirs["prompt_tokens"]
    assert 800 < ours["prompt_tokens"]["follow_up"] < 900
    assert "cpu" == ours["told"]["device"]


@pytest.mark.parametrize("form", FORMS)
def test_a_step_reads_what_is_counted(form: str, checkpoint: Path) -> None:
    """The bytes of the loaded model's matrices, scales and head; norms are not worth counting."""
    settings = EngineSettings(model=str(checkpoint), **make_task(form).settings)
    model = read_weights(checkpoint, settings, place_model(settings, Machine()))
    linears = [m for m in model.model.language_model.modules() if hasattr(m, "in_features")]
    actual = sum(part.nbytes for linear in linears for part in list_parts(linear))
    head = 2 * model.lm_head.weight.numel()
    assert TINY.count_weight_bytes(form) == pytest.approx(actual + head, rel=0.01)


def list_parts(linear: Any) -> Iterator[Any]:
    """The tensors that stand for a layer's weights; of scales those that are as many as they."""
    yield linear.weight.data
    if (scales := getattr(linear.weight, "SCB", None)) is not None:
        yield scales
    if (state := getattr(linear.weight, "quant_state", None)) is not None:
        yield state.absmax
        yield state.state2.absmax


def test_limits_are_those_of_the_literature() -> None:
    """7B in nf4 on an A10G's 600 GB/s: 3.6 GB a step, so 152 tokens a second with a chat's keys."""
    size = SIZES["7b"]
    assert 576 == size.num_image_tokens
    # 6.48e9 numbers in the layers at 4.127 bits, and a head of 131e6 numbers at 16.
    assert size.count_weight_bytes("nf4") == pytest.approx(3.604e9, rel=1e-3)
    assert size.find_limit("nf4", 600, 1) == pytest.approx(152, abs=1)
    # 32 chats read their keys and values, 0.5 MB a token, too.
    assert size.find_limit("nf4", 600, 32) == pytest.approx(1302, abs=1)


def test_a_run_s_report_names_what_failed() -> None:
    """A contender without figures costs its column; ratios and shares are of what is there."""
    figures = {"single": 80.0, "total_1": 60.0, "total_8": 300.0, "loading": 9.0}
    theirs = {"single": 20.0, "total_1": 15.0, "loading": 8.0}
    found = {
        "7b/nf4": {
            ENGINE: [{"figures": figures, "answers": ["a"], "told": {"device": "A10G"}}],
            GENERATE: [{"figures": theirs, "answers": ["b"]}],
        },
        "7b/int8": {ENGINE: [{"failed": "exit status 1: out of memory"}], GENERATE: []},
    }
    text = write_report(
        {
            "date": "2026-11-29",
            "device": {"gpu": "A10G", "torch": "2.13.0"},
            "bandwidth": 600.0,
            "num_rounds": 1,
            "chats": [1, 8],
            "answer_tokens": 64,
            "models": found,
        }
    )
    assert "| one stream, tok/s | 80.0 | 20.0 | 4.00x | 53 % of 152 |" in text
    assert "| 8 chats, all, tok/s | 300 | 15.0 | 20.00x | 40 % of 751 |" in text
    assert "0 of 1 answers word for word generate()'s." in text
    assert "engine failed: exit status 1: out of memory" in text
    assert "p99" not in text
