"""What a run ran on, and how busy that was."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_tile")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory and system; nothing that names the machine or its owner."""
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    found = set(flags.group(1).split()) if flags else set()
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "processor": name.group(1) if name else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "instruction_sets": [flag for flag in INSTRUCTION_SETS if flag in found],
        "memory_gb": round(int(memory.group(1)) * 1024 / 1e9, 1) if memory else None,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def read_load() -> float:
    """The mean number of processes that wanted to run in the last minute."""
    return os.getloadavg()[0]


def read_date() -> str:
    """Today, by universal time."""
    return datetime.now(UTC).date().isoformat()
