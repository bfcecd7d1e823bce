"""What torch finds on this machine."""

import torch

from llavachat_server.engine.placement import Machine
from llavachat_server.engine.tensors.paged import has_paged_kernel


def look_at_machine() -> Machine:
    """The first GPU, where there is one."""
    has_cuda = torch.cuda.is_available()
    return Machine(
        has_cuda=has_cuda,
        capability=torch.cuda.get_device_capability()[0] if has_cuda else 0,
        has_paged_kernel=has_cuda and has_paged_kernel(),
    )
