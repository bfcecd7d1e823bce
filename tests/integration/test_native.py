"""Whether the kernels for a CPU are taken: by what decides, and what is said when they are not."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kept_kernels import compile_in_a_process
from llavachat_server.assembly import make_batching_engine
from llavachat_server.engine.batching.cache import make_cache
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.runner import Decoder, Runner
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import Settings, SettingsError, check_extras
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = pytest.mark.usefixtures("kernels")

PROBE = """
import ctypes, sys
# 65 is PR_SET_MDWE of Linux 6.3, what MemoryDenyWriteExecute asks for
assert ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0) == 0
from llavachat_server.engine import native
sys.exit(native.find_obstacle())
"""


def make_model(dtype: torch.dtype = torch.float32, hidden: int = 64) -> Any:
    """A decoder of one layer, its heads 16 wide."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=hidden // 16,
        vocab_size=50,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False).to(dtype)


def test_memory_that_may_not_be_made_executable_is_an_obstacle() -> None:
    """Told beforehand, since LLVM would end the process."""
    words = [sys.executable, "-c", PROBE]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)

    expected = "this process may not make memory executable (MemoryDenyWriteExecute)\n"
    assert (1, expected) == (done.returncode, done.stderr)


def test_a_model_that_does_not_suit_is_decoded_by_torch(caplog: pytest.LogCaptureFixture) -> None:
    """In bf16, with one line that says why."""
    caplog.set_level(logging.INFO)

    assert Decoder(make_model(torch.bfloat16), 64, compile_steps=True).native is None
    assert ["decoding by torch's operations: this model is not plain float32"] == caplog.messages


def test_what_can_not_be_compiled_is_decoded_by_torch(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all of the model's weights still there."""
    from llavachat_server.engine.native import steps

    def fail(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(steps, "run_step", fail)
    caplog.set_level(logging.INFO)
    decoder = Decoder(make_model(), 64, compile_steps=True, release_weights=True)
    reason = "the kernels could not be compiled: OSError: no space left"

    assert decoder.native is None
    assert [f"decoding by torch's operations: {reason}"] == caplog.messages
    assert 1 == len(decoder.layers)


def test_threads_of_the_kernels_are_not_torchs() -> None:
    """Two compute a step where torch's operations take one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        decoder = Decoder(make_model(), 64, compile_steps=True, num_threads=2)
        attention, _ = make_cache("pieces", decoder.shape, 1, 16, torch.float32, decoder.device)
        scores = Runner(decoder, attention).forward([Input([1, 2, 3], 0, [0], True)])
    finally:
        torch.set_num_threads(before)

    assert decoder.native is not None
    assert (1, 50) == scores.shape
    assert 2 == decoder.native.num_running_threads


def test_a_model_whose_weights_could_be_trained_is_computed_as_well() -> None:
    """torch hands such weights out in one way alone."""
    model = make_model().requires_grad_(True)
    decoder = Decoder(model, 64, compile_steps=True)
    attention, _ = make_cache("pieces", decoder.shape, 1, 16, torch.float32, decoder.device)

    assert decoder.native is not None
    scores = Runner(decoder, attention).forward([Input([1, 2, 3], 0, [0], True)])
    with torch.inference_mode():
        expected = model(torch.tensor([[1, 2, 3]])).logits[0, -1:]
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)


def test_a_step_leaves_a_core_to_those_who_need_one() -> None:
    """As long as they do; of one thread it leaves none. Its scores are the same."""
    has_all_cores = True

    def run(num_threads: int) -> tuple[int, Any]:
        decoder = Decoder(make_model(), 64, compile_steps=True, num_threads=num_threads)
        assert decoder.native is not None
        decoder.native.leave_a_core(lambda: has_all_cores)
        attention, _ = make_cache("pieces", decoder.shape, 1, 16, torch.float32, decoder.device)
        scores = Runner(decoder, attention).forward([Input([1, 2, 3], 0, [0], True)])
        return decoder.native.num_running_threads, scores

    torch.manual_seed(0)
    number, scores = run(3)
    has_all_cores = False
    torch.manual_seed(0)
    number_beside, scores_beside = run(3)

    assert [3, 2, 1] == [number, number_beside, run(1)[0]]
    assert torch.equal(scores, scores_beside)


def test_kernels_are_kept_for_the_next_process(kernels: Path) -> None:
    """Compiled by the first, read by the second."""

    def look() -> list[tuple[Path, int]]:
        return [(file, file.stat().st_mtime_ns) for file in sorted(kernels.rglob("*.nbc"))]

    before = look()
    compile_in_a_process(kernels)

    assert before
    assert before == look()


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

    with pytest.raises(SettingsError, match=r"^compiled: needs numba; pip install"):
        check_extras(Settings(compiled="on"))


def test_rows_are_cut_into_products_of_about_one_size() -> None:
    """Together they are all rows, and none of them is one row beside many."""
    from llavachat_server.engine.native.products import MAX_TILE_ROWS, count_tile_rows

    def cut(num_rows: int) -> list[int]:
        counts = []
        while num_rows:
            counts.append(count_tile_rows(num_rows))
            num_rows -= counts[-1]
        return counts

    assert [MAX_TILE_ROWS] == cut(MAX_TILE_ROWS)
    assert [MAX_TILE_ROWS // 2 + 1, MAX_TILE_ROWS // 2] == cut(MAX_TILE_ROWS + 1)
    assert [MAX_TILE_ROWS, MAX_TILE_ROWS] == cut(2 * MAX_TILE_ROWS)
    assert [MAX_TILE_ROWS, MAX_TILE_ROWS // 2 + 1, MAX_TILE_ROWS // 2] == cut(2 * MAX_TILE_ROWS + 1)


def test_a_product_is_the_same_with_each_number_of_rows() -> None:
    """Of one panel or two, to the last bit, and the true one but for rounding."""
    from llavachat_server.engine.native.products import MAX_TILE_ROWS, multiply_tile

    generator = np.random.default_rng(0)
    rows = generator.standard_normal((MAX_TILE_ROWS, 48), np.float32)
    panels = generator.standard_normal((2, 48, 16), np.float32)

    def multiply(first: int, count: int, panel: int, num_panels: int) -> Any:
        tile = np.full((MAX_TILE_ROWS, 2, 16), np.nan, np.float32)
        start = panel * 48 * 16
        multiply_tile(
            rows.ravel(), first * 48, count, 48, panels.ravel(), start, num_panels,
            tile.reshape(-1), 0, 0, 0,
        )  # fmt: skip
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


@pytest.mark.parametrize("num_rows", [1, 30])
def test_matrices_of_an_odd_number_of_panels_are_computed_whole(num_rows: int) -> None:
    """Three panels wide, nine for query, key and value: as torch's operations compute them."""
    model = make_model(hidden=48)

    def compute(*, compiled: bool) -> Any:
        decoder = Decoder(model, 64, compile_steps=compiled)
        assert compiled == (decoder.native is not None)
        attention, _ = make_cache("pieces", decoder.shape, 2, 16, torch.float32, decoder.device)
        return Runner(decoder, attention).forward(
            [Input(list(range(1, num_rows + 1)), 0, [0, 1], True)]
        )

    expected = compute(compiled=False)
    torch.testing.assert_close(compute(compiled=True), expected, rtol=1e-4, atol=1e-6)
