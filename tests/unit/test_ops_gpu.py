"""GPUs as NVIDIA's binding tells them, over a library that knows one card; and without any."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.ops.gpu import GpuReader
from nvml_library import COMPILER, WITHOUT_COMPILER, build_library

LOOK = """
import dataclasses, json
from llavachat_server.ops.gpu import GpuReader
reader = GpuReader.open()
print(json.dumps(None if reader is None else [dataclasses.asdict(gpu) for gpu in reader.read()]))
"""


def look(**environment: str) -> Any:
    """What a process sees: the binding keeps the library that it once found."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(COMPILER is None, reason=WITHOUT_COMPILER)
def test_a_card_is_read(tmp_path: Path) -> None:
    """Shares from 0 to 1, bytes, degrees; what the card does not tell is left out."""
    assert [
        {
            "id": "GPU-4d6f-test",
            "name": "Test Card 24G",
            "utilization": 0.37,
            "used_bytes": 9 * 2**30,
            "total_bytes": 24 * 2**30,
            "celsius": 61,
            "watts": None,
        }
    ] == look(**build_library(tmp_path))


def test_a_machine_without_a_gpu_has_none(tmp_path: Path) -> None:
    """No library, no error."""
    assert look(LD_LIBRARY_PATH=str(tmp_path)) is None


class Nvml:
    """A binding whose card has fallen off the bus."""

    NVML_TEMPERATURE_GPU = 0
    NVMLError = OSError

    def __getattr__(self, name: str) -> Any:
        def answer(*_: Any) -> int:
            if name in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
                return 1
            raise self.NVMLError("GPU is lost")

        return answer


def test_a_lost_card_tells_nothing() -> None:
    """And raises nothing."""
    (gpu,) = GpuReader(Nvml()).read()
    assert (None, None, None, None) == (gpu.utilization, gpu.used_bytes, gpu.celsius, gpu.watts)
