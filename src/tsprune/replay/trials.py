"""Random streams to try a quicker computation on, before it is trusted to give the same bits.

Two kernels that round differently agree on some values, more often where few are compared. So one clean pass
is little evidence: whoever trusts a computation because the bits agree compares them on random values, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from tsprune.anatomy import Component
from tsprune.hooks.capture import Point, point_of
from tsprune.models.forecaster import Forecaster


def random_like(stream: Tensor, seed: int) -> Tensor:
    """Normal values of the shape of `stream` [..., F] and of its size in every feature."""
    generator = torch.Generator().manual_seed(seed)
    size = stream.detach().abs().amax(dim=tuple(range(stream.ndim - 1)))
    noise = torch.randn(stream.shape, generator=generator)
    return noise.to(stream.device, stream.dtype) * size


@contextmanager
def random_streams(
    model: Forecaster, components: Iterable[Component], times: int = 1, *, seed: int = 0
) -> Iterator[None]:
    """Random values pass wherever `components` are ablated, while the context lasts.

    times : how often the batch holds its windows, one repetition after the other; all get the same values
    """
    points = {point_of(model.anatomy, component) for component in model.anatomy.expand(components)}

    def changed(x: Tensor, point: Point) -> Tensor:
        x = point.windows_first(x)
        one = random_like(x[: x.shape[0] // times], seed)
        return point.windows_first(one.repeat(times, *[1] * (x.ndim - 1)))

    with model.alone(keeps=True), ExitStack() as hooks:
        for point in points:
            module = model.module.get_submodule(point.path)
            if point.side == "input":
                handle = module.register_forward_pre_hook(lambda _m, a, p=point: (changed(a[0], p), *a[1:]))
            else:
                handle = module.register_forward_hook(lambda _m, _a, out, p=point: changed(out, p))
            hooks.callback(handle.remove)
        yield
