"""Which machine gets which kernels, formats and sizes."""

from typing import Any

import pytest
from llavachat_server.engine import opening
from llavachat_server.engine.placement import Machine, count_exact_tokens, place_model
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.values import Quantization

AMPERE = Machine(has_cuda=True, capability=8, has_paged_kernel=True)


def settings(**values: object) -> EngineSettings:
    """Settings of any model."""
    return EngineSettings(model="m", **values)  # type: ignore[arg-type]


def test_a_cpu_gets_pieces_in_32_bits() -> None:
    """And neither graphs nor 256-token blocks."""
    placement = place_model(settings(), Machine())

    assert ("cpu", "float32", "pieces") == (
        placement.device,
        placement.dtype,
        placement.attention,
    )
    assert not placement.records_decoding
    assert 16 == placement.page_tokens
    assert 8_192 == placement.cache_tokens
    assert 0.01 == placement.gap_seconds


@pytest.mark.parametrize(
    ("quantization", "threshold", "dtype", "records"),
    [
        (Quantization.NONE, 0.0, "float16", True),
        (Quantization.INT8, None, "float16", True),
        (Quantization.INT8, 0.0, "float16", True),
        (Quantization.INT8, 6.0, "float16", False),
        (Quantization.NF4, 6.0, "bfloat16", True),
    ],
)
def test_a_gpu_with_flash_attention(
    quantization: Quantization, threshold: float | None, dtype: str, records: bool
) -> None:
    """Graphs are recorded unless LLM.int8() asks the host about outliers in every layer."""
    placement = place_model(settings(quantization=quantization, int8_threshold=threshold), AMPERE)

    assert ("cuda", dtype, "paged") == (placement.device, placement.dtype, placement.attention)
    assert records is placement.records_decoding
    assert 256 == placement.page_tokens
    assert placement.cache_tokens is None
    assert 0.1 == placement.gap_seconds


@pytest.mark.parametrize(
    ("machine", "dtype"),
    [
        (Machine(has_cuda=True, capability=7, has_paged_kernel=True), "auto"),
        (Machine(has_cuda=True, capability=8, has_paged_kernel=False), "auto"),
        (AMPERE, "float32"),
    ],
    ids=["older GPU", "older torch", "32 bits"],
)
def test_a_gpu_without_flash_attention_still_works(machine: Machine, dtype: str) -> None:
    """In pieces, and without graphs."""
    placement = place_model(settings(dtype=dtype), machine)

    assert ("cuda", "pieces", False) == (
        placement.device,
        placement.attention,
        placement.records_decoding,
    )


@pytest.mark.parametrize(
    ("capability", "asked", "expected"),
    [
        (8, "auto", "bfloat16"),
        (7, "auto", "float16"),
        (7, "bfloat16", "bfloat16"),
        (8, "float16", "float16"),
    ],
)
def test_nf4_is_multiplied_in_what_the_gpu_is_quick_at(
    capability: int, asked: str, expected: str
) -> None:
    """A T4 has no tensor cores for bfloat16; who asks for a format gets it."""
    machine = Machine(has_cuda=True, capability=capability, has_paged_kernel=True)
    placement = place_model(settings(quantization=Quantization.NF4, dtype=asked), machine)

    assert (expected, expected) == (placement.dtype, placement.nf4_dtype)


@pytest.mark.parametrize(
    ("machine", "dtype", "is_said"),
    [
        (Machine(has_cuda=True, capability=8, has_paged_kernel=False), "auto", True),
        (Machine(has_cuda=True, capability=8, has_paged_kernel=False), "float32", False),
        (Machine(has_cuda=True, capability=7, has_paged_kernel=False), "auto", False),
        (AMPERE, "auto", False),
    ],
    ids=["older torch", "32 bits", "older GPU", "all there"],
)
def test_an_old_torch_on_a_new_gpu_is_said(
    machine: Machine,
    dtype: str,
    is_said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where a newer one would be quicker: nothing else tells why it is slow."""
    monkeypatch.setattr("llavachat_server.engine.tensors.machine.look_at_machine", lambda: machine)
    opening._place(settings(device="cuda", dtype=dtype))

    assert is_said is any("torch is too old for this GPU" in text for text in caplog.messages)


def test_nf4_on_a_cpu_is_multiplied_in_bfloat16() -> None:
    """As it was measured; all else is in float32."""
    placement = place_model(settings(quantization=Quantization.NF4), Machine())

    assert ("float32", "bfloat16") == (placement.dtype, placement.nf4_dtype)


def test_a_gpu_can_be_left_alone() -> None:
    """device "cpu" is an order."""
    placement = place_model(settings(device="cpu"), AMPERE)

    assert ("cpu", "pieces") == (placement.device, placement.attention)


def test_a_missing_gpu_is_said() -> None:
    """Rather than a slow start on the CPU."""
    with pytest.raises(ValueError, match="no GPU"):
        place_model(settings(device="cuda"), Machine())


def test_explicit_sizes_are_kept() -> None:
    """A profile knows its machine."""
    placement = place_model(
        settings(kv_cache_tokens=4096, max_batch_tokens=64, dtype="bfloat16"), Machine()
    )

    assert (4096, 64, "bfloat16") == (
        placement.cache_tokens,
        placement.max_batch_tokens,
        placement.dtype,
    )


@pytest.mark.parametrize(
    ("machine", "max_batch_tokens", "num_weights", "expected"),
    [
        pytest.param(Machine(), None, 15_000_000, 256, id="small"),
        pytest.param(Machine(), None, 6_476_005_376, 32, id="7B"),
        pytest.param(Machine(), None, 12_687_769_600, 16, id="13B"),
        pytest.param(Machine(), None, 500_000_000_000, 8, id="huge"),
        pytest.param(Machine(), 4, 6_476_005_376, 4, id="asked for less"),
        pytest.param(AMPERE, None, 12_687_769_600, 1024, id="GPU"),
    ],
)
def test_an_exact_step_is_sized_by_the_model(
    machine: Machine, max_batch_tokens: int | None, num_weights: int, expected: int
) -> None:
    """A processor is through with 256 tokens of 7B after 13 s, and a watchdog waits for 7."""
    asked = settings(max_batch_tokens=max_batch_tokens, max_running=1, exact=True)

    assert expected == count_exact_tokens(place_model(asked, machine), num_weights)


@pytest.mark.parametrize(
    "values",
    [
        {"max_running": 0},
        {"max_queued": -1},
        {"int8_threshold": -1.0},
        {"dtype": "int8"},
        {"device": "tpu"},
        {"kv_memory_fraction": 1.0},
        {"num_bank_images": 0},
        {"num_threads": 0},
        {"kv_cache_tokens": 1},
        {"max_tokens": 0},
        {"max_running": 16, "max_batch_tokens": 8},
    ],
)
def test_senseless_settings_are_refused(values: dict[str, object]) -> None:
    """By the name of the setting."""
    with pytest.raises(ValueError, match=next(iter(values))):
        settings(**values)


class FakeDriver:
    """As much of the CUDA driver's library as is asked for.

    Args:
        code: what `cuInit` returns; 0 is CUDA_SUCCESS, 100 CUDA_ERROR_NO_DEVICE.
        num_devices: that it sees.
    """

    def __init__(self, code: int, num_devices: int) -> None:
        self._code = code
        self._num_devices = num_devices

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the library's name
        """0 where it can be used."""
        assert flags == 0
        return self._code

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802 - the library's name
        """Write how many."""
        count._obj.value = self._num_devices
        return self._code


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (None, False),
        (FakeDriver(100, 0), False),
        (FakeDriver(0, 0), False),
        (FakeDriver(0, 1), True),
    ],
)
def test_a_gpu_is_looked_for_without_torch(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver | None, *, expected: bool
) -> None:
    """By the driver's library: there may be none, it may not work, or see nothing."""

    def load(name: str) -> FakeDriver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError
        return driver

    monkeypatch.setattr(opening.ctypes, "CDLL", load)

    assert expected == opening.has_driver()
