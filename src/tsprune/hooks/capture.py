"""Recorded inputs and outputs of modules, and reference activations for mean and resample ablation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsprune.anatomy import Anatomy, AttentionSite, Block, Component, Selection
from tsprune.arguments import checked
from tsprune.data.synthetic import series
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.models.turns import alone

_REFERENCE_WINDOWS = 32
_REFERENCE_LENGTH = 2048  # at most


class Point(NamedTuple):
    """A place in the network: the input or the output of the module at `path`.

    swapped : tensors there are [T, B, F], not [B, T, F]
    across : if they are [B * T, series, F], not [B * series, T, F]: T
    block : path of the block, with an input [B, V, T, F], if tensors there are [B * T, V, F], which `hook_at`
        passes as [B * V, T, F]; "": they are not
    """

    path: str
    side: Literal["input", "output"]
    swapped: bool = False
    across: int = 0
    block: str = ""

    def windows_first(self, x: Tensor) -> Tensor:
        """`x` as [..., T, F]; applying it twice gives `x`."""
        return time_last(x.transpose(0, 1) if self.swapped else x, self.across)


def time_last(x: Tensor, across: int) -> Tensor:
    """[B * T, series, F] as [B, series, T, F] and back, where `across` is T; any `x` itself if it is 0."""
    if not across:
        return x
    return x.transpose(1, 2).flatten(0, 1) if x.dim() == 4 else x.unflatten(0, (-1, across)).transpose(1, 2)


def point_in(block: Block, path: str, side: Literal["input", "output"], *, swapped: bool = False) -> Point:
    """The input or the output of a module of `block`."""
    return Point(path, side, swapped, block.across)


def projection_point(block: Block, site: AttentionSite, side: Literal["input", "output"]) -> Point:
    """The input or the output of the output projection of a site of `block`."""
    return Point(site.output, side, site.swapped, block.across, block.module if site.folded else "")


def point_of(anatomy: Anatomy, component: Component) -> Point:
    """Where `component` is ablated: heads before the output projection, sublayers after it.

    Raises TspruneError for a layer, which has no point of its own.
    """
    if component.kind == "mlp":
        return point_in(anatomy.block(component), anatomy.mlp(component).output, "output")
    if component.kind == "layer":
        raise TspruneError(f"{component} is a layer; record its sublayers instead")
    site, side = anatomy.site(component), "input" if component.kind == "head" else "output"
    return projection_point(anatomy.block(component), site, side)  # type: ignore[arg-type]


class Handle(ExitStack):
    """Of a hook, which `remove` takes away."""

    remove = ExitStack.close


def hook_at(
    root: nn.Module, point: Point, change: Callable[[Tensor], Tensor | None], *, first: bool = False
) -> Handle:
    """Calls `change` with every tensor at `point`; the tensor it returns, if any, replaces that one.

    first : before the hooks that are there already, not after them
    """
    hooks = Handle()
    if point.block:
        change, note = _unfolding(change)
        hooks.callback(root.get_submodule(point.block).register_forward_pre_hook(note).remove)
    hooks.callback(_hook(root.get_submodule(point.path), point, change, first).remove)
    return hooks


def _unfolding(
    change: Callable[[Tensor], Tensor | None],
) -> tuple[Callable[[Tensor], Tensor | None], Callable[..., None]]:
    """`change` for tensors [B * T, V, F], and a hook of the block, which notes their shape."""
    shape: list[int] = []

    def note(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        shape[:] = args[0].shape

    def unfolded(x: Tensor) -> Tensor | None:
        windows, variates, steps, _ = shape
        turned = x.unflatten(0, (windows, steps)).transpose(1, 2).flatten(0, 1)
        changed = change(turned)
        if changed is None:
            return None
        folded: Tensor = changed.unflatten(0, (windows, variates)).transpose(1, 2).flatten(0, 1)
        return folded

    return unfolded, note


def _hook(
    module: nn.Module, point: Point, change: Callable[[Tensor], Tensor | None], first: bool
) -> RemovableHandle:
    if point.side == "output":
        return module.register_forward_hook(lambda _module, _args, output: change(output), prepend=first)

    def before(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        changed = change(args[0])
        return None if changed is None else (changed, *args[1:])

    return module.register_forward_pre_hook(before, prepend=first)


@contextmanager
def recording(
    module: nn.Module, points: Iterable[Point], *, gradients: bool = False, first: bool = False
) -> Iterator[Mapping[Point, list[Tensor]]]:
    """Records, call by call, the tensors at `points` while the context lasts.

    first : as they are computed, before an ablation whose context is open replaces them

    The tensors are not copied, and are detached unless `gradients` is set. The context reserves the module
    for this thread (`tsprune.models.turns`).
    """
    recorded: dict[Point, list[Tensor]] = {point: [] for point in points}

    def keep(point: Point, x: Tensor) -> Tensor | None:
        recorded[point].append(x if gradients else x.detach())
        return x if gradients and point.block else None  # what is recorded must be on the way to the output

    with alone(module, type(module).__name__, keeps=True), ExitStack() as hooks:
        for point in recorded:
            hooks.callback(hook_at(module, point, partial(keep, point), first=first).remove)
        yield recorded


@dataclasses.dataclass(frozen=True)
class Reference:
    """Activations of reference windows.

    values : point -> number of positions T -> float [M, T, F], the M activations recorded there
    """

    values: Mapping[Point, Mapping[int, Tensor]]

    def at(self, point: Point) -> Mapping[int, Tensor]:
        """T -> float [M, T, F] at `point`; raises TspruneError if `point` was not recorded."""
        if point not in self.values:
            raise TspruneError(
                f"the reference was not recorded at {point.path}; pass its components to reference()"
            )
        return self.values[point]

    def mean(self, point: Point, positions: int) -> Tensor:
        """Mean over the windows: [T, F] if T = `positions` was recorded, else over all positions, [F]."""
        by_length = self.at(point)
        if positions in by_length:
            return by_length[positions].mean(0)
        return torch.cat([values.flatten(0, 1) for values in by_length.values()]).mean(0)

    def sample(self, point: Point, positions: int, count: int, seed: int) -> Tensor:
        """`count` activations, drawn with replacement: float [count, positions, F].

        The same seed draws the same windows at every point. If no activation has exactly `positions`, the
        last positions of the next longer ones are used.

        Raises TspruneError if all activations are shorter.
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
    """Activations of `model` on `contexts`, from a forecast and a teacher-forced pass.

    contexts : histories [M, T], as long as those that ablations are evaluated on
    components : addresses, glob patterns or components that the reference serves; None serves all
    horizon : steps to forecast; None takes `model.reference_horizon`

    Raises TspruneError if a pattern matches nothing.
    """
    every = model.anatomy.components() if components is None else model.anatomy.select(components)
    # one by one, because expanding several drops the heads of sublayers among them
    points = {point_of(model.anatomy, c) for component in every for c in model.anatomy.expand([component])}
    with recording(model.module, points) as recorded, torch.no_grad():
        model.forecast(contexts, horizon or model.reference_horizon)
        model.teacher_forced(contexts)
    found: dict[Point, dict[int, Tensor]] = {}
    for point, tensors in recorded.items():
        by_length: dict[int, list[Tensor]] = {}
        for tensor in map(point.windows_first, tensors):
            by_length.setdefault(tensor.shape[-2], []).append(tensor.flatten(0, -3))
        found[point] = {length: torch.cat(by_length[length]) for length in sorted(by_length)}
    return Reference(found)


def default_reference(model: Forecaster, components: Iterable[Component]) -> Reference:
    """A reference from synthetic series, so that no evaluation data leaks into an ablation."""
    return reference(model, list(reference_contexts(model)), components=components)


def reference_contexts(model: Forecaster) -> NDArray[np.float32]:
    """The synthetic series of `default_reference`, float32 [M, T]; they depend only on the context length."""
    length = min(model.context_length, _REFERENCE_LENGTH)
    return series(_REFERENCE_WINDOWS, length, np.random.default_rng(0))
