"""Ablation: the outputs of components are replaced while a context lasts.

1. Layers are expanded to their sublayers; heads of one sublayer are grouped.
2. Forward hooks replace heads in a copy of the output projection's input, and sublayers in their output. No
   computation is repeated and no weight changes.
3. The hooks are removed when the context ends, also by an exception.
4. The context reserves the model for its thread; other threads' forecasts wait (`tsprune.models.turns`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor

from tsprune.anatomy import Anatomy, Component, Selection
from tsprune.arguments import RULES, checked, shown
from tsprune.choices import MODES, Mode
from tsprune.errors import TspruneError
from tsprune.hooks.capture import Point, Reference, default_reference, hook_at, point_of
from tsprune.models.forecaster import Forecaster, NotFiniteError


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A set of components and the replacement of their output.

    mode : zero replaces it by zeros; mean by the mean over reference windows, per feature and, if the
        reference has the same number of positions, per position; resample by the values of a reference window
    seed : draws the windows of resample

    Raises TspruneError for an unknown mode or an invalid seed.
    """

    components: tuple[Component, ...]
    mode: Mode = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise TspruneError(f"unknown ablation mode {shown(self.mode)}; one of: {', '.join(MODES)}")
        object.__setattr__(self, "seed", RULES["seed"](self.seed))


_Edit = tuple[int, Ablation, list[slice]]  # the place of an ablation, and the columns that it replaces


def _columns(anatomy: Anatomy, components: Iterable[Component]) -> dict[Point, list[slice]]:
    """Columns to replace in the tensor [..., T, F] at each point."""
    columns: dict[Point, list[slice]] = {}
    for component in anatomy.expand(components):
        of_head = None if component.head is None else anatomy.site(component).columns(component.head)
        columns.setdefault(point_of(anatomy, component), []).append(of_head or slice(None))
    return columns


def _replacement(x: Tensor, ablation: Ablation, point: Point, reference: Reference | None) -> Tensor:
    """The values that replace `x` [..., T, F], of the same shape."""
    if ablation.mode == "zero":
        return torch.zeros((), dtype=x.dtype, device=x.device).expand_as(x)
    assert reference is not None
    positions = x.shape[-2]
    if ablation.mode == "mean":
        return reference.mean(point, positions).to(x).expand_as(x)
    rows = x.flatten(0, -3).shape[0]
    return reference.sample(point, positions, rows, ablation.seed).to(x).view(x.shape)


@contextmanager
def applied(model: Forecaster, ablation: Ablation, *, reference: Reference | None = None) -> Iterator[None]:
    """Applies `ablation` to `model` while the context lasts.

    reference : for mean and resample; None records one from synthetic series

    Raises NotFiniteError, with the components in its message, if a forecast is not finite.
    """
    with side_by_side(model, [ablation], reference=reference):
        try:
            yield
        except NotFiniteError as error:
            if not ablation.components:
                raise
            first, *others = ablation.components
            more = f" and {len(others)} more" if others else ""
            raise NotFiniteError(f"{error}, without {first.address}{more}", error.forecast) from error


@contextmanager
def side_by_side(
    model: Forecaster, ablations: Sequence[Ablation], *, reference: Reference | None = None
) -> Iterator[None]:
    """Applies several ablations to `model` while the context lasts, each to its own rows of a batch.

    The batch repeats the same windows once per ablation, in the order of `ablations`, so every ablated tensor
    has a multiple of `len(ablations)` rows.

    reference : for mean and resample; None records one from synthetic series
    """
    points: dict[Point, list[_Edit]] = {}
    for number, ablation in enumerate(ablations):
        for point, columns in _columns(model.anatomy, ablation.components).items():
            points.setdefault(point, []).append((number, ablation, columns))
    with model.alone(keeps=True), ExitStack() as hooks:
        replaced = [c for one in ablations if one.mode != "zero" for c in one.components]
        if reference is None and replaced:
            reference = default_reference(model, replaced)
        for point, edits in points.items():
            change = partial(_edited, point=point, edits=edits, count=len(ablations), reference=reference)
            hooks.callback(hook_at(model.module, point, change).remove)
        yield


def _edited(
    x: Tensor, *, point: Point, edits: Sequence[_Edit], count: int, reference: Reference | None
) -> Tensor:
    """A copy of the tensor `x` at `point`, with the rows of each of `count` ablations edited."""
    x = point.windows_first(x).clone()
    rows = x.shape[0] // count
    for number, ablation, columns in edits:
        part = x if count == 1 else x.narrow(0, number * rows, rows)
        value = _replacement(part, ablation, point, reference)
        for chosen in columns:
            part[..., chosen] = value[..., chosen]
    return point.windows_first(x)


@checked
@contextmanager
def ablate(
    model: Forecaster,
    components: Selection,
    *,
    mode: Mode = "zero",
    reference: Reference | None = None,
    seed: int = 0,
) -> Iterator[tuple[Component, ...]]:
    """Ablates components while the context lasts; yields the components.

    components : addresses, glob patterns or components (see `Anatomy.select`)
    mode : zero, mean or resample (see `Ablation`)
    reference : activations for mean and resample, from `tsprune.reference`; None records synthetic series
    seed : draws the reference windows of resample

    The context reserves the model for its thread. A forecast of another thread waits, so that no ablation
    changes it, and raises TspruneError after 10 seconds. Load the model once per thread to forecast in
    parallel. The model is bit-identical afterwards.

    Raises TspruneError if a pattern matches nothing, and for an unknown mode or an invalid seed.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> with tsprune.ablate(model, "stack.3.self.head.*"):
    ...     forecast = model.forecast([range(100)], horizon=12)
    """
    selected = model.anatomy.select(components)
    with applied(model, Ablation(selected, mode, seed), reference=reference):
        yield selected
