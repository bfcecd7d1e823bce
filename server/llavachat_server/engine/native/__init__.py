"""The decoder's steps as machine code for this processor, compiled by numba.

It knows matrices, rows and a cache's slots; no requests and no scheduler. Importing this
package alone imports neither numba nor LLVM, which nobody needs on a GPU.
"""

import hashlib
import importlib.util
import os
from pathlib import Path


def find_obstacle() -> str | None:
    """Why the kernels would not run well on this machine; None when they do."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    missing = [name for name in ("avx2", "fma") if not features.get(name)]
    return f"the processor has no {' and no '.join(missing)}" if missing else None


def keep_compiled(folder: str | None) -> None:
    """Keep the machine code for the next start; before the first kernel is imported.

    numba asks whether the file of the outermost function has changed, and no other: the code is
    kept under the digest of all of this package's sources.

    Args:
        folder: of the service alone, since what lies there is run. None, or one that cannot be
            written to: the kernels are compiled at every start.
    """
    if folder is None or find_obstacle() is not None:
        return
    import numba

    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    own = Path(folder) / digest[:16]
    try:
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return
    if os.access(own, os.W_OK):
        numba.config.CACHE_DIR = str(own)
