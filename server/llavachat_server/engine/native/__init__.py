"""The decoder's steps as machine code for this processor, compiled by numba.

It knows matrices, rows and a cache's slots; no requests and no scheduler. Importing this
package alone imports neither numba nor LLVM, which nobody needs on a GPU.
"""

import ctypes
import hashlib
import importlib.util
import mmap
import os
from pathlib import Path


def is_installed() -> bool:
    """Whether what compiles is there; it is not imported."""
    return importlib.util.find_spec("numba") is not None


def find_obstacle() -> str | None:
    """Why the kernels would not run well in this process; None when they do."""
    if not is_installed():
        return "numba is not installed"
    if not _can_make_executable():
        # LLVM would end the process.
        return "this process may not make memory executable (MemoryDenyWriteExecute)"
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    missing = [name for name in ("avx2", "fma") if not features.get(name)]
    return f"the processor has no {' and no '.join(missing)}" if missing else None


def _can_make_executable() -> bool:
    # As LLVM does it: written first, and executable afterwards.
    page = mmap.mmap(-1, mmap.PAGESIZE)
    start = ctypes.c_char.from_buffer(page)
    address = ctypes.c_void_p(ctypes.addressof(start))
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    code = ctypes.CDLL(None).mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), protection)
    del start
    page.close()
    return bool(code == 0)


def find_folder(folder: str) -> Path:
    """Where in a folder this version's machine code lies.

    numba asks whether the file of the outermost function has changed, and no other: the code is
    kept under the digest of all of this package's sources.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return Path(folder) / digest[:16]


def keep_compiled(folder: str | None) -> bool:
    """Keep the machine code for the next start; before the first kernel is imported.

    Args:
        folder: of the service alone, since what lies there is run. None, or one that cannot be
            written to: the kernels are compiled at every start.

    Returns:
        Whether it is kept.
    """
    if folder is None or find_obstacle() is not None:
        return False
    import numba

    own = find_folder(folder)
    try:
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    if not os.access(own, os.W_OK):
        return False
    numba.config.CACHE_DIR = str(own)
    return True
