"""Whether the kernels for a CPU are taken: by what decides, and what is said when they are not."""

import itertools
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import SHAPES_FOLDER
from llavachat_server.assembly import make_batching_engine
from llavachat_server.engine import native, opening, placement
from llavachat_server.engine.batching.exact import ExactScheduler
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.sequence import Job
from llavachat_server.engine.checkpoint import LoadingError
from llavachat_server.engine.llava.config import parse_config
from llavachat_server.engine.native.apart import Kernels
from llavachat_server.engine.native.backend import NativeBackend
from llavachat_server.engine.native.weights import find_misfit
from llavachat_server.engine.opening import open_backend
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.backend import TensorBackend
from llavachat_server.engine.tensors.cache import make_cache
from llavachat_server.engine.tensors.runner import Decoder, Runner
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import Settings, SettingsError, check_extras
from native_models import make_decoder, make_runner, to_tensor
from transformers import LlamaConfig, LlamaForCausalLM

PROBE = """
import ctypes, sys
# 65 is PR_SET_MDWE of Linux 6.3, what MemoryDenyWriteExecute asks for
assert ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0) == 0
from llavachat_server.engine import native
sys.exit(native.find_obstacle())
"""


def make_model(hidden: int = 64, *, is_tied: bool = False, context: int = 64) -> Any:
    """A decoder of one layer, its heads 16 wide."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=hidden // 16,
        vocab_size=50,
        max_position_embeddings=context,
        tie_word_embeddings=is_tied,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def make_settings(folder: Path | None, **changes: Any) -> EngineSettings:
    """The embedded model by the kernels in a folder."""
    given = {"model": str(SHAPES_FOLDER), "num_threads": 1, "compile_steps": True, **changes}
    return EngineSettings(compiled_folder=None if folder is None else str(folder), **given)


def test_memory_that_may_not_be_made_executable_is_an_obstacle() -> None:
    """Told beforehand, before anything is compiled."""
    words = [sys.executable, "-c", PROBE]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)

    expected = "this process may not make memory executable (MemoryDenyWriteExecute)\n"
    assert (1, expected) == (done.returncode, done.stderr)


def test_a_processor_without_vectors_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lacks is named."""
    monkeypatch.setattr(native, "_read_features", lambda: {"sse2", "fma"})

    assert native.find_obstacle() == "the processor has no avx2"


@pytest.mark.usefixtures("kernels")
def test_a_model_that_suits_is_computed_by_the_kernels(kernels_folder: Path) -> None:
    """And says so with every answer."""
    backend = open_backend(make_settings(kernels_folder), lambda *_: None)

    assert isinstance(backend, NativeBackend)
    assert backend.describe(4096).device == "cpu, compiled"


def test_a_model_that_does_not_suit_is_computed_by_torch(caplog: pytest.LogCaptureFixture) -> None:
    """In bf16, with one line that says why."""
    caplog.set_level(logging.INFO)
    backend = open_backend(make_settings(None, dtype="bfloat16"), lambda *_: None)

    assert isinstance(backend, TensorBackend)
    assert ["computing by torch's operations: this model is not plain float32"] == caplog.messages


def test_what_can_not_be_compiled_is_computed_by_torch(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason that the compiling process gave."""
    from llavachat_server.engine.native import apart

    monkeypatch.setattr(apart, "PARTS", ("none",))
    caplog.set_level(logging.INFO)
    backend = open_backend(make_settings(None), lambda *_: None)
    reason = "the kernels could not be compiled: KeyError: 'none'"

    assert isinstance(backend, TensorBackend)
    assert [f"computing by torch's operations: {reason}"] == caplog.messages


@pytest.mark.usefixtures("kernels")
def test_weights_of_other_shapes_are_left_to_transformers(
    kernels_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Named, before transformers says what it makes of them."""
    folder = tmp_path / "wide"
    folder.mkdir()
    for path in SHAPES_FOLDER.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / "config.json").read_text())
    content["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(content))
    caplog.set_level(logging.INFO)

    with pytest.raises(LoadingError, match="can not be loaded"):
        open_backend(make_settings(kernels_folder, model=str(folder)), lambda *_: None)
    name = "language_model.layers.0.mlp.gate_proj.weight"
    reason = f"the checkpoint has no weight {name} of the shape that it should have"
    assert f"computing by torch's operations: {reason}" in caplog.messages


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"text_config": {"intermediate_size": 8}}, "widths that are not multiples of 16"),
        ({"vision_config": {"hidden_size": 40}}, "widths that are not multiples of 16"),
        ({"vision_config": {"num_attention_heads": 16}}, "widths that are not multiples of 16"),
        ({"text_config": {"hidden_act": "gelu"}}, "only transformers computes this model"),
        ({"projector_hidden_act": "gelu_new"}, "only transformers computes this model"),
        ({"vision_feature_layer": [-2]}, "only transformers computes this model"),
        (
            {"vision_config": {"model_type": "siglip_vision_model"}},
            "only transformers computes this model",
        ),
        ({"vision_config": {"hidden_act": "gelu"}}, None),
    ],
)
def test_what_the_kernels_do_not_compute_is_named(
    changes: dict[str, Any], reason: str | None
) -> None:
    """By the configuration alone."""
    content = json.loads((SHAPES_FOLDER / "config.json").read_text())
    for name, change in changes.items():
        content[name] = {**content[name], **change} if isinstance(change, dict) else change
    misfit = find_misfit(parse_config(content))

    assert (reason is None) == (misfit is None)
    assert (reason or "") in (misfit or "")


def test_threads_of_the_kernels_are_as_many_as_asked_for(kernels: Kernels, tmp_path: Path) -> None:
    """Two compute a step, whatever torch would take."""
    decoder = make_decoder(make_model(), kernels, tmp_path, num_threads=2)
    scores = make_runner(decoder, 1).forward([Input([1, 2, 3], 0, [0], True)])

    assert (1, 50) == scores.shape
    assert 2 == decoder.num_running_threads


def test_a_step_leaves_a_core_to_those_who_need_one(kernels: Kernels, tmp_path: Path) -> None:
    """As long as they do; of one thread it leaves none. Its scores are the same."""
    has_all_cores = True

    def run(num_threads: int) -> tuple[int, Any]:
        decoder = make_decoder(make_model(), kernels, tmp_path, num_threads=num_threads)
        decoder.leave_a_core(lambda: has_all_cores)
        scores = make_runner(decoder, 1).forward([Input([1, 2, 3], 0, [0], True)])
        return decoder.num_running_threads, scores

    number, scores = run(3)
    has_all_cores = False
    number_beside, scores_beside = run(3)

    assert [3, 2, 1] == [number, number_beside, run(1)[0]]
    assert np.array_equal(scores, scores_beside)


@pytest.mark.parametrize(("given", "expected"), [("auto", True), ("on", True), ("off", False)])
def test_the_setting_decides(given: Any, *, expected: bool) -> None:
    """And by itself the kernels are taken where numba is installed, as it is here."""
    settings = Settings(compiled=given)
    engine = make_batching_engine(settings, resolve_profile(settings), lambda stage, share: None)

    assert expected == engine._settings.compile_steps


def test_kernels_that_are_asked_for_need_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that says what to install; by itself nothing is asked for."""
    monkeypatch.setattr("llavachat_server.settings.find_spec", lambda name: None)
    check_extras(Settings(compiled="auto"))

    with pytest.raises(SettingsError, match=r"^compiled: needs numba; in a checkout: pip install"):
        check_extras(Settings(compiled="on"))


def test_rows_are_cut_into_products_of_about_one_size() -> None:
    """Together they are all rows, and none of them is one row beside many."""
    from llavachat_server.engine.native.kernels.products import MAX_TILE_ROWS, count_tile_rows
    from numba import njit

    @njit
    def count_rows(num_rows: int) -> int:
        return count_tile_rows(num_rows)

    def cut(num_rows: int) -> list[int]:
        counts = []
        while num_rows:
            counts.append(count_rows(num_rows))
            num_rows -= counts[-1]
        return counts

    assert [MAX_TILE_ROWS] == cut(MAX_TILE_ROWS)
    assert [MAX_TILE_ROWS // 2 + 1, MAX_TILE_ROWS // 2] == cut(MAX_TILE_ROWS + 1)
    assert [MAX_TILE_ROWS, MAX_TILE_ROWS] == cut(2 * MAX_TILE_ROWS)
    assert [MAX_TILE_ROWS, MAX_TILE_ROWS // 2 + 1, MAX_TILE_ROWS // 2] == cut(2 * MAX_TILE_ROWS + 1)


def test_a_product_is_the_same_with_each_number_of_rows() -> None:
    """Of one panel or two, to the last bit, and the true one but for rounding."""
    from llavachat_server.engine.native.kernels.products import MAX_TILE_ROWS, multiply_tile
    from numba import njit

    @njit
    def compute(first: int, count: int, start: int, num_panels: int, tile: Any) -> None:
        multiply_tile(
            flat_rows, first * 48, count, 48, flat_panels, start, num_panels, tile, 0, 0, 0
        )

    generator = np.random.default_rng(0)
    rows = generator.standard_normal((MAX_TILE_ROWS, 48), np.float32)
    panels = generator.standard_normal((2, 48, 16), np.float32)
    flat_rows, flat_panels = rows.ravel(), panels.ravel()

    def multiply(first: int, count: int, panel: int, num_panels: int) -> Any:
        tile = np.full((MAX_TILE_ROWS, 2, 16), np.nan, np.float32)
        compute(first, count, panel * 48 * 16, num_panels, tile.reshape(-1))
        return tile

    alone = [[multiply(row, 1, panel, 1)[0, 0] for panel in (0, 1)] for row in range(len(rows))]
    expected = np.einsum("rk,pkc->rpc", rows, panels)
    np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-5)
    for count in range(1, MAX_TILE_ROWS + 1):
        one, two = multiply(0, count, 1, 1), multiply(0, count, 0, 2)
        np.testing.assert_array_equal(two[:count], alone[:count])
        np.testing.assert_array_equal(one[:count, 0], two[:count, 1])
        assert np.isnan(one[:, 1]).all()
        assert np.isnan(one[count:]).all()
        assert np.isnan(two[count:]).all()


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("num_rows", [1, 30, 500])
def test_matrices_of_an_odd_number_of_panels_are_computed_whole(
    kernels: Kernels, tmp_path: Path, num_rows: int, *, is_tied: bool
) -> None:
    """Three panels wide, nine for query, key and value: as torch's operations compute them.

    With a head of its own, and with the embedding for a head.
    """
    model = make_model(hidden=48, is_tied=is_tied, context=512)
    inputs = [Input([row % 49 + 1 for row in range(num_rows)], 0, list(range(32)), True)]
    decoder = Decoder(model, 512)
    attention, _ = make_cache("pieces", decoder.shape, 32, 16, torch.float32, decoder.device)
    expected = Runner(decoder, attention).forward(inputs)

    native_decoder = make_decoder(model, kernels, tmp_path, num_threads=2)
    actual = make_runner(native_decoder, 32).forward(inputs)

    torch.testing.assert_close(to_tensor(actual), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_allocations", [0, 5])
def test_a_step_that_finds_no_memory_leaves_the_next_one_its_room(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_allocations: int
) -> None:
    """For its rows, or for its threads, which come after five of those: nothing is half larger."""
    decoder = make_decoder(make_model(), kernels, tmp_path)
    runner, make_zeros, numbers = make_runner(decoder, 2), np.zeros, itertools.count()
    many = [Input(list(range(1, 31)), 0, [0, 1], True)]

    def run_out(*arguments: Any) -> Any:
        if next(numbers) == num_allocations:
            raise MemoryError
        return make_zeros(*arguments)

    runner.forward([Input([1], 0, [0], True)])
    with monkeypatch.context() as patch:
        patch.setattr(np, "zeros", run_out)
        with pytest.raises(MemoryError):
            runner.forward(many)
    # Before anything is computed: the kernel would write past arrays that are too small.
    assert 1 == decoder._num_rows
    actual = np.array(runner.forward(many))

    np.testing.assert_array_equal(
        actual, make_runner(make_decoder(make_model(), kernels, tmp_path), 2).forward(many)
    )


@pytest.mark.usefixtures("kernels")
def test_torch_has_the_last_word_on_a_gpu(
    kernels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that torch's build can not use leaves the model to the kernels."""
    monkeypatch.setattr(opening, "has_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert isinstance(open_backend(make_settings(kernels_folder), lambda *_: None), NativeBackend)


def test_answers_in_any_company_are_the_kernels_business_as_well(
    kernels: Kernels, kernels_folder: Path
) -> None:
    """`exact` plans otherwise, and the kernels compute."""
    backend = open_backend(make_settings(kernels_folder, exact=True), lambda *_: None)
    core = backend.make_core()

    assert backend.describe(4096).device == "cpu, compiled, exact"
    assert isinstance(core._scheduler, ExactScheduler)


def test_an_exact_step_is_as_large_as_model_and_machine_allow(
    kernels: Kernels, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt of 40 tokens by 16 at most, where more weights would take too long."""
    backend = open_backend(make_settings(kernels_folder, exact=True), lambda *_: None)
    num_weights = backend.loaded.facts.config.text_config.num_layer_weights
    monkeypatch.setattr(placement, "EXACT_CPU_PRODUCTS", 20 * num_weights)
    core = backend.make_core()
    core.add(Job(0, list(range(3, 43)), 1))
    while core.has_work:
        core.step()

    assert 3 == core.num_steps
