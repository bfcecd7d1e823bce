"""A checkpoint's weights as torch's parameters, by the names that `llava.model`'s modules have.

Like `files.ArrayWeights`, for those who compute with torch.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from llavachat_server.engine.llava.files import WeightsMissing, list_files, rename


class Weights:
    """Weights of one checkpoint, each to be taken by its name.

    Args:
        tensors: by `rename`d names.
        dtype: that they are given out in.
    """

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self._tensors = tensors
        self._dtype = dtype

    def take(self, name: str, *shape: int) -> nn.Parameter:
        """A weight, as it lies in its file where that has the right type.

        Args:
            name: of the module's parameter.
            shape: that it must have.

        Raises:
            WeightsMissing: it is not there, or has another shape.
        """
        tensor = self._tensors.get(name)
        if tensor is None or tensor.shape != shape or not tensor.is_floating_point():
            raise WeightsMissing(name)
        return nn.Parameter(tensor.to(self._dtype), requires_grad=False)

    def has(self, name: str) -> bool:
        """Whether a weight is there."""
        return name in self._tensors


def open_weights(folder: Path, dtype: torch.dtype) -> Weights:
    """Map the weights' files.

    Args:
        folder: of the checkpoint.
        dtype: that weights are given out in.

    Raises:
        WeightsMissing: no file has the name that transformers gives it.
        OSError, ValueError, safetensors.SafetensorError: a file can not be read.
    """
    tensors = {}
    for path in list_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensors[rename(name)] = file.get_tensor(name)
    return Weights(tensors, dtype)


def copy_out(model: nn.Module) -> None:
    """Copy all of a model's weights out of mapped files, so that these can be let go.

    Args:
        model: whose large matrices are packed elsewhere, and given back.
    """
    copies: dict[int, Tensor] = {}
    for parameter in model.parameters():
        if parameter.numel():
            tensor = parameter.data
            # Tied weights stay one.
            parameter.data = copies.setdefault(tensor.data_ptr(), tensor.clone())
