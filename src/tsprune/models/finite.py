"""NaN and infinity inside a network: found where they enter a distribution, and carried to the forecast.

A distribution's parameters are checked by torch, which raises for a whole batch, and tokens or draws can be
finite although the numbers they are drawn with are not. The parameters of distributions are therefore
checked first (`watched`). The family then puts NaN into the draws, and `Forecaster.forecast` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


@contextmanager
def watched(modules: Iterable[nn.Module], broken: Broken, *, clean: bool = True) -> Iterator[None]:
    """While it lasts, `broken` checks the outputs of `modules`, a tensor each or several.

    clean : they then return 1 in place of NaN and infinity, which every parameter of a distribution may be
    """

    def look(x: Tensor) -> Tensor:
        broken.note(x.detach())
        return x.nan_to_num(1.0, 1.0, 1.0) if clean else x

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(lambda _m, _args, out: tree_map(look, out)).remove)
        yield


class Broken:
    """Where NaN or infinity was seen.

    dims : leading dimensions that tell places apart, [N] or [N, time, ...]; all others belong to one place
    """

    def __init__(self, dims: int = 1) -> None:
        self._dims = dims
        self._places: Tensor | None = None

    def note(self, x: Tensor) -> None:
        """Looks at `x` [*places, ...]; every call must have the same places."""
        bad = ~x.isfinite()
        if x.ndim > self._dims:  # the extremes of [..., n]: quicker than to ask each
            flat = x.flatten(self._dims)
            bad = ~(flat.amax(-1).isfinite() & flat.amin(-1).isfinite())
        self._places = bad if self._places is None else self._places | bad

    @property
    def places(self) -> Tensor:
        """Bool [*places]."""
        assert self._places is not None, "nothing was looked at"
        return self._places

    def marked(self, x: Tensor) -> Tensor:
        """`x` [*places, ...] with NaN at those places."""
        places = self.places.view(*self.places.shape, *(1,) * (x.ndim - self.places.ndim))
        return x.masked_fill(places.to(x.device), torch.nan)
