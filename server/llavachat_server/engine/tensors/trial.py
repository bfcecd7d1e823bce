"""A step before anybody asks: whether the kernels that were chosen work on this machine.

What fails here is found at a start, where there is another way or somebody who reads why.
"""

from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.tensors.attention import PieceAttention
from llavachat_server.engine.tensors.paged import PagedAttention
from llavachat_server.engine.tensors.runner import Decoder, Runner

FEW_ROWS = 2
"""Enough for every kernel of a step to be called."""


def compute_trial(
    decoder: Decoder, attention: PieceAttention | PagedAttention, num_rows: int = FEW_ROWS
) -> None:
    """Compute a single token and, beside it, a piece of a prompt.

    Args:
        decoder: the model.
        attention: its cache, in which nothing is kept yet; in pages the spare block is written.
        num_rows: of the piece, up to the model's context; its keys overwrite each other.

    Raises:
        Exception: whatever the kernels raise.
    """
    block = attention.spare_block if isinstance(attention, PagedAttention) else 0
    blocks = [block] * -(-num_rows // attention.block_tokens)
    single, piece = Input([0], 0, blocks, True), Input([0] * num_rows, 0, blocks, True)
    # A GPU's kernels run behind the host: what they fail of is told to who reads their results.
    Runner(decoder, attention).forward([single, piece]).sum().item()


def describe_error(error: BaseException) -> str:
    """Its type, and the first line that it says."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])
