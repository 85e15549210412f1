"""Random streams to try a quicker computation on, before it is trusted to give the same bits.

Two kernels that round differently agree on some values, more often where few are compared. So one clean pass
is little evidence: whoever trusts a computation because the bits agree compares them on random values, too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def random_like(stream: Tensor, seed: int) -> Tensor:
    """Normal values of the shape of `stream` [..., F] and of its size in every feature."""
    generator = torch.Generator().manual_seed(seed)
    size = stream.detach().abs().amax(dim=tuple(range(stream.ndim - 1)))
    noise = torch.randn(stream.shape, generator=generator)
    return noise.to(stream.device, stream.dtype) * size
