"""How fast the device reads its memory, in GB/s, and its name.

python -m bench.gpu.bandwidth OUTPUT cuda|cpu
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench.served.machine import describe_machine

NUM_BYTES = 4 * 1024**3
"""Far more than any cache holds."""
CPU_BYTES = 512 * 1024**2
REPEATS = 9


def measure(device: str) -> float:
    """The best of several sums and copies; of a copy, what it reads and what it writes count."""
    numbers = torch.randn((NUM_BYTES if device == "cuda" else CPU_BYTES) // 4, device=device)
    place = torch.empty_like(numbers)
    rates = []
    for _ in range(REPEATS):
        rates.append(numbers.nbytes / _time(numbers.sum))
        rates.append(2 * numbers.nbytes / _time(lambda: place.copy_(numbers)))
    return max(rates) / 1e9


def _time(work: Any) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def describe_device(device: str) -> dict[str, Any]:
    """The GPU's name, memory and driver's CUDA; of a CPU, what `bench.served` tells."""
    told: dict[str, Any] = {"torch": torch.__version__}
    if device == "cpu":
        return {**told, **describe_machine()}
    facts = torch.cuda.get_device_properties(0)
    memory = round(facts.total_memory / 1e9, 1)
    return {**told, "gpu": facts.name, "gpu_memory_gb": memory, "cuda": torch.version.cuda}


if __name__ == "__main__":
    content = {"device": describe_device(sys.argv[2]), "bandwidth": measure(sys.argv[2])}
    Path(sys.argv[1]).write_text(json.dumps(content))
