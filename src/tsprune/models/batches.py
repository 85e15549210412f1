"""Series of as many patches forecast together (padding in front changes last bits); outputs on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsprune.models.variates import places_by, variates_in

_ROWS = 256  # at a time: some attention over variates has a mask of rows x rows for each patch


def by_patches(
    series: Sequence[NDArray[np.float32]], patch: int, work: Callable[[list[int]], Tensor]
) -> Tensor:
    """`work` on the places of series of as many patches; its results, a row a series, in order.

    series : arrays [T] or [V, T]
    """
    most = max(1, _ROWS // variates_in(series[0]))
    alike = places_by(-(-values.shape[-1] // patch) for values in series).values()
    parts = [places[i : i + most] for places in alike for i in range(0, len(places), most)]
    found = torch.cat([work(places) for places in parts])
    return found[torch.from_numpy(np.argsort(np.concatenate(parts)))]


def first_output(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """The first output of `module` in `run`."""
    recorded: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: recorded.append(output))
    try:
        run()
    finally:
        hook.remove()
    return recorded[0]
