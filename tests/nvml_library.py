"""A machine with one GPU, as far as NVIDIA's management library tells: see nvml/nvml.c."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "nvml" / "nvml.c"


COMPILER = shutil.which("cc")
WITHOUT_COMPILER = "no C compiler (apt-get install gcc)"


def build_library(folder: Path) -> dict[str, str]:
    """Build the library; the variables under which a process finds it. None without a compiler."""
    if COMPILER is None:
        return {}
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return {"LD_LIBRARY_PATH": str(folder)}
