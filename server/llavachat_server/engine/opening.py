"""Who computes a model: kernels of our own without torch, or torch's operations.

Decided before torch is imported, which takes longer than everything else at a start.
"""

import ctypes
import importlib.metadata
import logging
from pathlib import Path

from llavachat_server.engine.backend import Backend
from llavachat_server.engine.checkpoint import (
    Checkpoint,
    CheckpointFacts,
    LoadingError,
    find_checkpoint,
    read_facts,
)
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.llava.files import WeightsMissing
from llavachat_server.engine.placement import (
    Machine,
    Placement,
    lacks_paged_kernel,
    place_model,
)
from llavachat_server.engine.progress import Progress, stage
from llavachat_server.engine.provenance import check_provenance
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.values import Quantization

_log = logging.getLogger(__name__)


def open_backend(
    settings: EngineSettings, progress: Progress, fingerprint: Fingerprint | None = None
) -> Backend:
    """Load a model.

    Args:
        settings: which, and how.
        progress: told about the stages "checkpoint", "libraries", "weights" and "fingerprint",
            and "copy" where one is written; on the calling thread.
        fingerprint: of the checkpoint's folder, where it was begun already.

    Raises:
        LoadingError: the checkpoint or the settings do not work.
    """
    backend = _open(settings, progress, fingerprint)
    loaded, hashes = backend.loaded, settings.hashes_folder
    check_provenance(
        loaded.checkpoint, loaded.weights_sha256, None if hashes is None else Path(hashes)
    )
    return backend


def _open(settings: EngineSettings, progress: Progress, fingerprint: Fingerprint | None) -> Backend:
    with stage("checkpoint", progress):
        checkpoint = find_checkpoint(settings.model, settings.revision)
        facts = read_facts(checkpoint.folder)
        placement = _place(settings)
    if settings.compile_steps:
        backend = _open_native(settings, checkpoint, facts, placement, progress, fingerprint)
        if backend is not None:
            return backend
    with stage("libraries", progress):
        from llavachat_server.engine.tensors import backend as tensors

    return tensors.open_backend(settings, checkpoint, facts, placement, progress, fingerprint)


def _place(settings: EngineSettings) -> Placement:
    if settings.device == "cpu" or (settings.device == "auto" and not has_driver()):
        machine = Machine()
    else:
        # torch knows whether its build and the driver suit each other.
        from llavachat_server.engine.tensors.machine import look_at_machine

        machine = look_at_machine()
    try:
        placement = place_model(settings, machine)
    except ValueError as error:
        raise LoadingError(str(error)) from error
    if lacks_paged_kernel(placement, machine):
        _log.warning(
            "torch is too old for this GPU: %s; steps are computed one operation after the other, "
            "which takes several times as long; torch 2.12 and newer do better",
            importlib.metadata.version("torch"),
        )
    return placement


def has_driver() -> bool:
    """Whether a driver for NVIDIA's GPUs is there, and sees one; without it torch finds none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    # Source: the CUDA driver API; 0 is CUDA_SUCCESS.
    is_ready = cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
    return bool(is_ready and count.value > 0)


def _open_native(
    settings: EngineSettings,
    checkpoint: Checkpoint,
    facts: CheckpointFacts,
    placement: Placement,
    progress: Progress,
    fingerprint: Fingerprint | None,
) -> Backend | None:
    obstacle: str | None
    if placement.device != "cpu":
        # Nobody expects them there.
        return None
    if settings.quantization is not Quantization.NONE or placement.dtype != "float32":
        obstacle = "this model is not plain float32"
    else:
        from llavachat_server.engine.native.apart import NoKernels
        from llavachat_server.engine.native.weights import find_misfit

        obstacle = find_misfit(facts.config)
    if obstacle is None:
        from llavachat_server.engine.native import backend as native

        try:
            return native.open_backend(
                settings, checkpoint, facts, placement, progress, fingerprint
            )
        except NoKernels as error:
            obstacle = str(error)
        except WeightsMissing as error:
            obstacle = f"the checkpoint has no weight {error} of the shape that it should have"
    _log.info("computing by torch's operations: %s", obstacle)
    return None
