"""Ablation: the outputs of components are replaced while a context lasts.

1. Layers are expanded to their sublayers; heads of one sublayer are grouped.
2. Forward hooks replace heads in a copy of the output projection's input, and sublayers in their output. No
   computation is repeated and no weight changes.
3. The hooks are removed when the context ends, also by an exception.
4. The context reserves the model for its thread; other threads' forecasts wait (`tsprune.models.turns`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor

from tsprune.anatomy import Component, Selection
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
    points: dict[Point, dict[int, list[slice]]] = {}  # place of an ablation -> columns that it replaces
    for number, ablation in enumerate(ablations):
        for c in model.anatomy.expand(ablation.components):
            columns = slice(None) if c.head is None else model.anatomy.site(c).columns(c.head)
            points.setdefault(point_of(model.anatomy, c), {}).setdefault(number, []).append(columns)
    with model.alone(keeps=True), ExitStack() as hooks:
        replaced = [c for one in ablations if one.mode != "zero" for c in one.components]
        if reference is None and replaced:
            reference = default_reference(model, replaced)
        for point, edits in points.items():
            change = partial(_edited, point=point, edits=edits, ablations=ablations, reference=reference)
            hooks.callback(hook_at(model.module, point, change).remove)
        yield


def _edited(
    x: Tensor,
    *,
    point: Point,
    edits: Mapping[int, list[slice]],
    ablations: Sequence[Ablation],
    reference: Reference | None,
) -> Tensor:
    """A copy of the tensor `x` at `point`, with the rows of each of the ablations edited."""
    x = point.windows_first(x).clone()
    rows = x.shape[0] // len(ablations)
    for number, columns in edits.items():
        part = x if len(ablations) == 1 else x.narrow(0, number * rows, rows)
        value = _replacement(part, ablations[number], point, reference)
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
