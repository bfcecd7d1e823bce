"""How fast this machine reads memory, in GB/s; the weights of each step are read at most so fast.

python -m bench.served.local.bandwidth OUTPUT
"""

import json
import sys
import time
from pathlib import Path

import torch

NUM_BYTES = 512_000_000
"""Far more than any cache holds."""
REPEATS = 9


def main(output: Path) -> None:
    """The best of several sums: whoever else ran in between can only have slowed them."""
    numbers = torch.ones(NUM_BYTES // 4)
    rates = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        numbers.sum()
        rates.append(NUM_BYTES / (time.perf_counter() - began) / 1e9)
    output.write_text(json.dumps({"figures": {"bandwidth": max(rates)}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
