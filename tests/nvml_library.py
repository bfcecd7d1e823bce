"""A machine with one GPU, as far as NVIDIA's management library tells: see nvml/nvml.c."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "nvml" / "nvml.c"


def build_library(folder: Path) -> dict[str, str]:
    """Build the library; the variables under which a process finds it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (apt-get install gcc)")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return {"LD_LIBRARY_PATH": str(folder)}
