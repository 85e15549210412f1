"""Weights in a file that is mapped into memory: read as before, held only while they are read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def mapped_weights(module: nn.Module) -> Iterator[None]:
    """Keeps the parameters of `module` in a temporary file while the context lasts.

    Every parameter stays the same object and has the same values; writes to it do not reach the file. It
    gets memory of its own again afterwards. Parameters on an accelerator, parts of larger tensors, and all
    parameters if no file can be written, stay in memory.
    """
    chosen = [one for one in module.parameters() if _alone(one)]
    with tempfile.TemporaryFile(prefix="tsprune-") as file:
        try:
            for one in chosen:
                _bytes(one).tofile(file)
            file.flush()
        except OSError:  # a full disk
            chosen = []
        start = 0
        for one in chosen:
            nbytes = one.nbytes
            held = np.memmap(file, np.uint8, mode="c", offset=start, shape=nbytes)
            one.data = torch.from_numpy(held).view(one.dtype).view(one.shape)
            start += nbytes
        try:
            yield
        finally:
            for one in chosen:
                one.data = one.data.clone()


def _alone(parameter: Tensor) -> bool:
    """Whether a parameter on the CPU has its memory for itself."""
    whole = parameter.is_contiguous() and parameter.untyped_storage().nbytes() == parameter.nbytes
    return parameter.device.type == "cpu" and parameter.numel() > 0 and whole


def _bytes(parameter: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return parameter.detach().reshape(-1).view(torch.uint8).numpy()
