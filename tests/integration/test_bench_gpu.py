"""The GPU's benchmark on a processor, at a size that says nothing about speed: that it measures."""

import argparse
import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.engine import opening
from llavachat_server.engine.placement import Machine, place_model
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.loading import read_weights
from paged_reference import attend_by_table

from bench.gpu import fitting
from bench.gpu.__main__ import Bench
from bench.gpu.calls import call, name_exceptions
from bench.gpu.checkpoint import make_checkpoint
from bench.gpu.contenders import run
from bench.gpu.fitting import find_obstacle
from bench.gpu.report import ENGINE, GENERATE, list_rows, write_report
from bench.gpu.sizes import FORMS, SIZES
from bench.gpu.task import Task
from bench.served.peers.peer import ROOT_FOLDER
from bench.served.workload import count_words

TINY = SIZES["tiny"]
EMPTY = {
    "date": "2026-11-29",
    "device": {"gpu": "A10G", "torch": "2.13.0"},
    "bandwidth": 600.0,
    "num_rounds": 1,
    "chats": [1, 8],
    "answer_tokens": 64,
    "models": {},
}
"""A run of nothing."""


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
    assert ("cpu", 8192, []) == tuple(
        ours["told"][name] for name in ("device", "cache_tokens", "troubles")
    )
    assert "attention in pieces of 16 tokens, float32, " in ours["told"]["steps"]["words"]
    assert {"torch", "transformers", "bitsandbytes"} < ours["versions"].keys()
    assert ours["versions"] == theirs["versions"]


async def test_steps_that_were_not_recorded_are_told(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are another way's; who reads them learns of it."""
    place = opening.place_model

    def place_as_on_a_gpu(settings: EngineSettings, machine: Machine) -> Any:
        return dataclasses.replace(
            place(settings, machine), attention="paged", page_tokens=256, records_decoding=True
        )

    monkeypatch.setattr(opening, "place_model", place_as_on_a_gpu)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", attend_by_table)
    told = await run(ENGINE, checkpoint, make_task(chats=(1,)))

    assert told["figures"]["single"] > 0
    (trouble,) = told["told"]["troubles"]
    # What follows are the words of this torch's build, with CUDA or without.
    assert trouble.startswith("steps are not recorded: ")
    text = write_report({**EMPTY, "models": {"tiny/int8": {ENGINE: [told], GENERATE: []}}})
    assert "| tiny, int8 | llavachat, impaired | generate() |" in text
    assert f"llavachat was not at its best: {trouble}" in text
    assert "The engine says: cpu; attention in pages of 256 tokens, float32, " in text
    assert f"torch {told['versions']['torch']}, " in text


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
        "7b/int8": {
            ENGINE: [{"failed": "exit status 1: out of memory\nTraceback ...\nout of memory"}],
            GENERATE: [],
        },
    }
    left_out = {
        "13b, bf16": "the weights alone are 27.0 GB",
        "13b": "no checkpoint: why\nlast line",
    }
    text = write_report({**EMPTY, "models": found, "left_out": left_out})
    assert "| one stream, tok/s | 80.0 | 20.0 | 4.00x | 53 % of 152 |" in text
    assert "| 8 chats, all, tok/s | 300 | 15.0 | 20.00x | 40 % of 751 |" in text
    assert "0 of 1 answers word for word generate()'s." in text
    assert (
        "engine failed: exit status 1: out of memory\n\n    Traceback ...\n    out of memory"
    ) in text
    assert "13b, bf16 was left out: the weights alone are 27.0 GB" in text
    assert "13b was left out: no checkpoint: why\n\n    last line" in text
    assert "p99" not in text


SAID = """ERROR:llavachat_server.engine.batching.core:a step failed with 1 jobs in it
Traceback (most recent call last):
  File "core.py", line 1, in step
    drawn = self._compute(chunks)
torch.AcceleratorError: CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call.

Traceback (most recent call last):
  File "engine.py", line 1, in ask
llavachat_server.values.EngineFailed: the engine failed

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "contenders.py", line 1, in <module>
bench.served.clients.talk.AnswerFailed: the engine failed
Exception ignored in: something that comes later
"""


def test_a_failure_is_told_by_what_it_came_of() -> None:
    """Whoever asked heard that the engine failed; the step's own traceback was logged before."""
    assert (
        ": bench.served.clients.talk.AnswerFailed: the engine failed; first of all "
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"
    ) == name_exceptions(SAID)
    assert ": killed" == name_exceptions("not a traceback\nkilled\n")
    assert "" == name_exceptions("")


def test_a_process_that_fails_leaves_its_log(tmp_path: Path) -> None:
    """Its reason is one line, its end some more, and all that it said lies in a file."""
    log = tmp_path / "run.log"
    log.write_text("of the round before\n")
    failure = call(log, 60, "bench.gpu.checkpoint", str(tmp_path), "no-such", "cpu")
    why, *tail = failure.splitlines()

    assert "exit status 1: KeyError: 'no-such'" == why
    assert "KeyError: 'no-such'" == tail[-1]
    assert "Traceback (most recent call last):" in tail
    assert not any("before" in line for line in tail)
    before, command, *said = log.read_text().splitlines()
    assert ("of the round before", tail) == (before, said[-len(tail) :])
    assert f"python -m bench.gpu.checkpoint {tmp_path} no-such cpu" == command


def test_a_process_that_hangs_is_ended(tmp_path: Path) -> None:
    """With the stacks of its threads; here one that serves for ever."""
    log = tmp_path / "run.log"
    why = call(log, 4, "http.server", "--bind", "127.0.0.1", "0")

    assert "no end within 4 s" == why.splitlines()[0].split(":")[0]
    assert "Fatal Python error: Aborted" in log.read_text()


def test_what_can_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """13B in 16 bits on 24 GB; and a form whose library is missing, with what to install."""
    a10g = {"gpu": "NVIDIA A10G", "gpu_memory_gb": 23.6}
    monkeypatch.setattr(fitting, "is_installed", lambda _: True)
    found = {
        f"{size} {form}": find_obstacle(size, form, a10g)
        for size in ("7b", "13b")
        for form in FORMS
    }
    expected = "the weights alone are 26.6 GB, and the device has 23.6"

    assert {"13b bf16": expected} == {name: why for name, why in found.items() if why}
    monkeypatch.setattr(fitting, "is_installed", lambda name: name != "bitsandbytes")
    assert ["", *["bitsandbytes missing: pip install bitsandbytes"] * 2] == [
        find_obstacle("7b", form, a10g) for form in FORMS
    ]


def test_packages_are_found_without_importing_them() -> None:
    """One that is there, and one that is not."""
    assert [True, False] == [fitting.is_installed(name) for name in ("json", "no_such_package")]


def test_a_size_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its processes know no such size; all that the run leaves lies in the output's folder."""
    monkeypatch.setitem(SIZES, "small", TINY)
    folder, output = tmp_path / "checkpoints", tmp_path / "out" / "run.json"
    folder.mkdir()
    output.parent.mkdir()
    (output.parent / "run.device.log").write_text("of an earlier run\n")
    arguments = argparse.Namespace(
        sizes=["small", "tiny"],
        forms=["bf16"],
        device="cpu",
        rounds=1,
        chats=["1"],
        answer_tokens=4,
        repeats=1,
        output=output,
        call_seconds=300.0,
    )
    Bench(arguments, folder).carry_out()
    text, content = capsys.readouterr().out, json.loads(output.read_text())

    assert ["tiny/bf16"] == list(content["models"])
    assert "small was left out: no checkpoint: exit status 1: KeyError: 'small'" in text
    assert "| tiny, bf16 | llavachat | generate() |" in text
    assert [
        "run.device.log",
        "run.json",
        "run.small-checkpoint.log",
        "run.tiny-bf16-engine.log",
        "run.tiny-bf16-generate.log",
        "run.tiny-checkpoint.log",
    ] == sorted(path.name for path in output.parent.iterdir())
    assert "earlier" not in (output.parent / "run.device.log").read_text()
    assert ["output.json"] == [path.name for path in folder.iterdir()]


def test_a_run_that_is_ended_leaves_no_checkpoint(tmp_path: Path) -> None:
    """Whoever limits its time sends SIGTERM; its folder would stay, with up to 27 GB."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    words = ["--sizes", "tiny", "--device", "cpu", "--folder", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.gpu", *words, "--output", str(tmp_path / "run.json")],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT_FOLDER,
    )
    assert process.stderr is not None
    assert "measuring the device\n" == process.stderr.readline()
    there = len(list(folder.iterdir()))
    process.terminate()
    process.communicate(timeout=60)

    assert (1, 128 + signal.SIGTERM) == (there, process.returncode)
    assert [] == list(folder.iterdir())
