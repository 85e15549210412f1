"""Recording what modules receive and return, and reference activations for mean and resample."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from tsprune.anatomy import Anatomy, Component, Selection
from tsprune.arguments import checked
from tsprune.data.synthetic import series
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.models.turns import alone

REFERENCE_WINDOWS = 32


class Point(NamedTuple):
    """A place in the network: the input or the output of the module at `path`.

    swapped : tensors there are [T, B, F], not [B, T, F]
    """

    path: str
    side: Literal["input", "output"]
    swapped: bool = False

    def windows_first(self, x: Tensor) -> Tensor:
        """`x` as [..., T, F]; applied twice it is the tensor as it was."""
        return x.transpose(0, 1) if self.swapped else x


def point_of(anatomy: Anatomy, component: Component) -> Point:
    """Where `component` is ablated: heads before the output projection, sublayers after it.

    A layer has no point of its own (its sublayers do): TspruneError.
    """
    if component.kind == "mlp":
        return Point(anatomy.mlp(component).output, "output")
    if component.kind == "layer":
        raise TspruneError(f"{component} is a layer; its sublayers are what can be recorded")
    site = anatomy.site(component)
    return Point(site.output, "input" if component.kind == "head" else "output", site.swapped)


@contextmanager
def recording(
    module: nn.Module, points: Iterable[Point], *, gradients: bool = False
) -> Iterator[Mapping[Point, list[Tensor]]]:
    """Records, call by call, the tensors at `points` while the context lasts.

    The recorded tensors are not copied, and detached unless `gradients` are wanted. Hooks are removed on the
    way out. Until then the module is this thread's (`tsprune.models.turns`).
    """
    recorded: dict[Point, list[Tensor]] = {point: [] for point in points}

    def keep(point: Point, x: Tensor) -> None:
        recorded[point].append(x if gradients else x.detach())

    with alone(module, type(module).__name__, keeps=True), ExitStack() as hooks:
        for point in recorded:
            target = module.get_submodule(point.path)
            if point.side == "input":
                handle = target.register_forward_pre_hook(lambda _m, args, p=point: keep(p, args[0]))
            else:
                handle = target.register_forward_hook(lambda _m, _args, out, p=point: keep(p, out))
            hooks.callback(handle.remove)
        yield recorded


@dataclasses.dataclass(frozen=True)
class Reference:
    """Activations of a set of reference windows, by point and number of positions T.

    values : point -> T -> float [M, T, F], M activations recorded there
    """

    values: Mapping[Point, Mapping[int, Tensor]]

    def at(self, point: Point) -> Mapping[int, Tensor]:
        """T -> [M, T, F] at `point`; TspruneError if the reference does not hold it."""
        if point not in self.values:
            raise TspruneError(f"the reference was not recorded at {point.path}; make it with reference()")
        return self.values[point]

    def mean(self, point: Point, positions: int) -> Tensor:
        """Mean over the reference per feature: [T, F] if T = `positions` was seen, else [F]."""
        by_length = self.at(point)
        if positions in by_length:
            return by_length[positions].mean(0)
        rows = torch.cat([values.flatten(0, 1) for values in by_length.values()])
        return rows.mean(0)

    def sample(self, point: Point, positions: int, count: int, seed: int) -> Tensor:
        """Values of `count` reference activations, [count, positions, F].

        The same seed takes the same windows at every point. If no reference has exactly
        `positions`, the last ones of the next longer are taken; TspruneError if all are shorter.
        """
        by_length = self.at(point)
        longer = [length for length in by_length if length >= positions]
        if not longer:
            raise TspruneError(
                f"resampling needs reference windows of at least {positions} positions; "
                f"the longest has {max(by_length)}: pass longer contexts to reference()"
            )
        values = by_length[min(longer)]
        rows = np.random.default_rng(seed).integers(0, len(values), count)
        return values[torch.from_numpy(rows), -positions:]


@checked
def reference(
    model: Forecaster,
    contexts: Sequence[ArrayLike],
    *,
    components: Selection | None = None,
    horizon: int | None = None,
) -> Reference:
    """Activations of `model` on `contexts` (use histories of full length): forecast, and teacher-forced.

    components : addresses, glob patterns or components that the reference serves; None serves all
    horizon : steps to forecast; None takes `model.reference_horizon`
    """
    every = model.anatomy.components() if components is None else model.anatomy.select(components)
    # one by one: expanding several at once drops the heads of sublayers that are there themselves
    points = {point_of(model.anatomy, c) for component in every for c in model.anatomy.expand([component])}
    with recording(model.module, points) as recorded, torch.no_grad():
        model.forecast(contexts, horizon or model.reference_horizon)
        model.teacher_forced(contexts)
    return Reference(
        {point: _by_length([point.windows_first(x) for x in tensors]) for point, tensors in recorded.items()}
    )


def default_reference(model: Forecaster, components: Iterable[Component]) -> Reference:
    """Reference from synthetic series, so that no evaluation data leaks into an ablation."""
    return reference(model, list(reference_contexts(model)), components=components)


def reference_contexts(model: Forecaster) -> NDArray[np.float32]:
    """The synthetic series of `default_reference`, [M, T]: always the same for a context length."""
    return series(REFERENCE_WINDOWS, min(model.context_length, 2048), np.random.default_rng(0))


def _by_length(tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    lengths = sorted({tensor.shape[-2] for tensor in tensors})
    return {
        length: torch.cat([t.flatten(0, -3) for t in tensors if t.shape[-2] == length]) for length in lengths
    }
