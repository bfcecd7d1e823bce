"""The machine's GPUs, by NVIDIA's management library (NVML).

Contract: a machine without a GPU, a driver or the library has no GPUs; a figure that a GPU does
not tell is None. It never raises after it was opened, and holds no memory of the GPU.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

log = logging.getLogger("llavachat")

T = TypeVar("T")

FRESH_SECONDS = 0.5
"""One look serves all figures of a scrape."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one moment.

    Args:
        id: NVML's UUID.
        name: of the product.
        utilization: 0 to 1, over NVML's last sampling period.
        used_bytes, total_bytes: memory of all processes together.
        celsius, watts: of the card.
    """

    id: str
    name: str
    utilization: float | None
    used_bytes: int | None
    total_bytes: int | None
    celsius: int | None
    watts: float | None


class GpuReader:
    """Reads all GPUs; from any thread.

    Args:
        nvml: the module ``pynvml``, initialised.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._lock = threading.Lock()
        self._read_at = -FRESH_SECONDS
        self._gpus: tuple[Gpu, ...] = ()
        self._handles = [
            nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())
        ]

    @classmethod
    def open(cls) -> "GpuReader | None":
        """A reader; None on a machine that has no GPU of this kind."""
        try:
            import pynvml

            pynvml.nvmlInit()
            return cls(pynvml)
        except ImportError:
            log.info("no GPU is watched: nvidia-ml-py is not installed")
        except pynvml.NVMLError as error:
            log.info("no GPU is watched", extra={"fields": {"nvml": str(error)}})
        return None

    def read(self) -> tuple[Gpu, ...]:
        """Every GPU now."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= FRESH_SECONDS:
                self._gpus = tuple(self._look(handle) for handle in self._handles)
                self._read_at = now
            return self._gpus

    def _look(self, handle: Any) -> Gpu:
        nvml = self._nvml
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        busy = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        milliwatts = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return Gpu(
            id=self._ask(lambda: nvml.nvmlDeviceGetUUID(handle)) or "",
            name=self._ask(lambda: nvml.nvmlDeviceGetName(handle)) or "",
            utilization=None if busy is None else busy / 100,
            used_bytes=None if memory is None else memory.used,
            total_bytes=None if memory is None else memory.total,
            celsius=self._ask(
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            watts=None if milliwatts is None else milliwatts / 1000,
        )

    def _ask(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._nvml.NVMLError:
            # Not every card tells everything, and one that fell off the bus tells nothing.
            return None
