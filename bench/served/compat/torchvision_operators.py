"""Lets torchvision be imported beside another build of torch than its wheel was made for.

torchvision's wheels on PyPI are made for torch's CUDA build. Beside torch's CPU build their
compiled half can not be loaded, and the Python half stops at the names of two operators that are
then missing. Nothing that is measured calls them; vLLM wants the Python half. Where the two fit
together, this is not installed; see `peers.vllm`.

Copied into the environment's packages with a ``.pth`` file that imports it at every start.
"""

import sys
from importlib.abc import MetaPathFinder
from types import ModuleType

SCHEMAS = ("nms", "qnms")
_kept: list[object] = []


class DeclareOperators(MetaPathFinder):
    """Declares the operators as soon as somebody imports torchvision, and finds nothing itself."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> None:
        """Called for every import that was not done before."""
        if name == "torchvision" and not _kept:
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in SCHEMAS:
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            _kept.append(library)


if __name__.startswith("bench_"):  # the copy
    sys.meta_path.insert(0, DeclareOperators())
