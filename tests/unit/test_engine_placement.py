"""Which machine gets which kernels, formats and sizes."""

import pytest
from llavachat_server.engine.placement import place_model
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.values import Quantization


def settings(**values: object) -> EngineSettings:
    """Settings of any model."""
    return EngineSettings(model="m", **values)  # type: ignore[arg-type]


def test_a_cpu_gets_masked_attention_in_32_bits() -> None:
    """And neither graphs nor 256-token pages."""
    placement = place_model(settings(), has_cuda=False, has_flash_attention=False)

    assert ("cpu", "float32", "sdpa") == (
        placement.device,
        placement.dtype,
        placement.attention,
    )
    assert (False, False) == placement.cuda_graphs
    assert 16 == placement.page_tokens
    assert 16_384 == placement.cache_tokens


@pytest.mark.parametrize(
    ("quantization", "dtype", "graphs"),
    [
        (Quantization.NONE, "float16", True),
        (Quantization.INT8, "float16", False),
        (Quantization.NF4, "bfloat16", True),
    ],
)
def test_a_gpu_with_flash_attention(quantization: Quantization, dtype: str, graphs: bool) -> None:
    """Graphs are recorded unless the int8 kernels look at the host in every layer."""
    placement = place_model(
        settings(quantization=quantization), has_cuda=True, has_flash_attention=True
    )

    assert ("cuda", dtype, "flash_attention_2") == (
        placement.device,
        placement.dtype,
        placement.attention,
    )
    assert (graphs, graphs) == placement.cuda_graphs
    assert 256 == placement.page_tokens
    assert placement.cache_tokens is None


def test_a_gpu_without_flash_attention_still_works() -> None:
    """Masked attention, and no graphs, whose padding it would pay for."""
    placement = place_model(settings(), has_cuda=True, has_flash_attention=False)

    assert ("cuda", "sdpa", (False, False)) == (
        placement.device,
        placement.attention,
        placement.cuda_graphs,
    )


def test_a_gpu_can_be_left_alone() -> None:
    """device "cpu" is an order."""
    placement = place_model(settings(device="cpu"), has_cuda=True, has_flash_attention=True)

    assert ("cpu", "sdpa") == (placement.device, placement.attention)


def test_a_missing_gpu_is_said() -> None:
    """Rather than a slow start on the CPU."""
    with pytest.raises(ValueError, match="no GPU"):
        place_model(settings(device="cuda"), has_cuda=False, has_flash_attention=False)


def test_flash_attention_refuses_32_bits() -> None:
    """Its kernels have none."""
    with pytest.raises(ValueError, match="float32"):
        place_model(settings(dtype="float32"), has_cuda=True, has_flash_attention=True)


def test_explicit_sizes_are_kept() -> None:
    """A profile knows its machine."""
    placement = place_model(
        settings(kv_cache_tokens=4096, max_batch_tokens=64, dtype="bfloat16"),
        has_cuda=False,
        has_flash_attention=False,
    )

    assert (4096, 64, "bfloat16") == (
        placement.cache_tokens,
        placement.max_batch_tokens,
        placement.dtype,
    )


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
