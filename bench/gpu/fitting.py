"""What can not be measured on a machine, known before anything is written for it."""

import importlib.util
from typing import Any

from bench.gpu.sizes import SIZES

_NEEDED = {
    "bf16": ("transformers", "accelerate"),
    "int8": ("transformers", "accelerate", "bitsandbytes"),
    "nf4": ("transformers", "accelerate", "bitsandbytes"),
}
"""Packages that load a form."""


def find_obstacle(size: str, form: str, device: dict[str, Any]) -> str:
    """Why a form of a size is left out, in words; or "".

    Args:
        size: of `SIZES`.
        form: of `FORMS`.
        device: see `bandwidth.describe_device`.
    """
    missing = [name for name in _NEEDED[form] if not is_installed(name)]
    if missing:
        return f"{' and '.join(missing)} missing: pip install {' '.join(missing)}"
    has_gb = device.get("gpu_memory_gb", device.get("memory_gb"))
    needs_gb = SIZES[size].count_loaded_bytes(form) / 1e9
    if has_gb is not None and needs_gb > has_gb:
        return f"the weights alone are {needs_gb:.1f} GB, and the device has {has_gb:.1f}"
    return ""


def is_installed(name: str) -> bool:
    """Whether a package can be found; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
