"""Ablation: what is switched off in a model, and the context manager that does it.

1. Layers are expanded to their sublayers; heads of one sublayer are gathered.
2. Heads are replaced in the input of the output projection (a copy of it), sublayers and MLPs in
   their output, by forward hooks: nothing is computed twice and no weight changes.
3. The hooks are removed on the way out, also by an exception.
4. While they are there, the model is this thread's: another thread's forecast waits (`tsprune.models.turns`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from tsprune.anatomy import Anatomy, Component, Selection
from tsprune.arguments import RULES, checked, shown
from tsprune.errors import TspruneError
from tsprune.hooks.capture import Point, Reference, default_reference, point_of
from tsprune.models.forecaster import Forecaster, NotFiniteError

Mode = Literal["zero", "mean", "resample"]
MODES: tuple[Mode, ...] = ("zero", "mean", "resample")


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A set of components and what their output is replaced by.

    zero : zeros
    mean : the mean over reference windows, per feature and, where T is fixed, per position
    resample : the values of another (reference) window, drawn with `seed`
    """

    components: tuple[Component, ...]
    mode: Mode = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise TspruneError(f"unknown ablation mode {shown(self.mode)}; one of: {', '.join(MODES)}")
        object.__setattr__(self, "seed", RULES["seed"](self.seed))


@dataclasses.dataclass(frozen=True)
class _Edit:
    """Replacing columns (None: all) of the tensor at a point."""

    point: Point
    columns: tuple[slice, ...] | None


def _edits(anatomy: Anatomy, components: Iterable[Component]) -> list[_Edit]:
    heads: dict[Point, list[slice]] = {}
    edits = []
    for component in anatomy.expand(components):
        point = point_of(anatomy, component)
        if component.kind == "head":
            assert component.head is not None
            heads.setdefault(point, []).append(anatomy.site(component).columns(component.head))
        else:
            edits.append(_Edit(point, None))
    return edits + [_Edit(point, tuple(columns)) for point, columns in heads.items()]


def _replacement(x: Tensor, ablation: Ablation, point: Point, reference: Reference | None) -> Tensor:
    """What goes in place of `x` [..., T, F], of a shape that broadcasts to it."""
    if ablation.mode == "zero":
        return torch.zeros((), dtype=x.dtype, device=x.device)
    assert reference is not None
    positions = x.shape[-2]
    if ablation.mode == "mean":
        return reference.mean(point, positions).to(x)
    rows = x.flatten(0, -3).shape[0]
    return reference.sample(point, positions, rows, ablation.seed).to(x).view(x.shape)


def _replace(x: Tensor, edit: _Edit, value: Tensor) -> None:
    """Writes `value` into `x` [..., T, F], in place."""
    value = value.expand_as(x)
    for columns in edit.columns or (slice(None),):
        x[..., columns] = value[..., columns]


@contextmanager
def applied(model: Forecaster, ablation: Ablation, *, reference: Reference | None = None) -> Iterator[None]:
    """`model` with `ablation` in force while the context lasts.

    reference : for mean and resample; None records one from synthetic series
    """
    with side_by_side(model, [ablation], reference=reference):
        try:
            yield
        except NotFiniteError as error:
            if not ablation.components:
                raise
            raise NotFiniteError(f"{error}, without {_named(ablation)}", error.forecast) from error


def _named(ablation: Ablation) -> str:
    """The first of the components, and how many more there are."""
    addresses = [component.address for component in ablation.components]
    more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    return f"{addresses[0]}{more}"


@contextmanager
def side_by_side(
    model: Forecaster, ablations: Sequence[Ablation], *, reference: Reference | None = None
) -> Iterator[None]:
    """`model` with several ablations in force, each for its own windows of a batch.

    A batch is then taken to hold the same windows once per ablation, first all of the first one's: it
    must have a multiple of `len(ablations)` rows wherever something is ablated.

    reference : for mean and resample; None records one from synthetic series
    """
    edits: dict[Point, list[tuple[int, _Edit]]] = {}
    for number, ablation in enumerate(ablations):
        for edit in _edits(model.anatomy, ablation.components):
            edits.setdefault(edit.point, []).append((number, edit))
    with model.alone(keeps=True), ExitStack() as hooks:
        if reference is None and any(ablation.mode != "zero" for ablation in ablations):
            wanted = [c for one in ablations if one.mode != "zero" for c in one.components]
            reference = default_reference(model, wanted)
        for point, numbered in edits.items():
            module = model.module.get_submodule(point.path)
            hooks.callback(_hook(module, point, numbered, ablations, reference).remove)
        yield


def _hook(
    module: nn.Module,
    point: Point,
    edits: Sequence[tuple[int, _Edit]],
    ablations: Sequence[Ablation],
    reference: Reference | None,
) -> torch.utils.hooks.RemovableHandle:
    """edits : (number of the ablation, what it edits) at `point`"""

    def edited(x: Tensor) -> Tensor:
        x = point.windows_first(x).clone()
        rows = x.shape[0] // len(ablations)
        for number, edit in edits:
            part = x if len(ablations) == 1 else x.narrow(0, number * rows, rows)
            _replace(part, edit, _replacement(part, ablations[number], point, reference))
        return point.windows_first(x)

    if point.side == "input":
        return module.register_forward_pre_hook(lambda _module, args: (edited(args[0]), *args[1:]))
    return module.register_forward_hook(lambda _module, _args, output: edited(output))


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
    """Switches components off while the context lasts; yields the components.

    components : addresses, glob patterns or components (see `Anatomy.select`)
    mode : zero, mean or resample (see `Ablation`)
    reference : activations for mean and resample, from `tsprune.reference`; None records one from
        synthetic series
    seed : which reference windows `resample` draws

    While the context lasts, the model belongs to the thread that opened it. Another thread that forecasts
    with this model waits, so that no ablation changes its forecast; after 10 seconds it gets a TspruneError.
    Load the model once a thread to forecast side by side.

    Raises TspruneError if a pattern matches nothing. The model is left bit for bit as it was.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> with tsprune.ablate(model, "stack.3.self.head.*"):
    ...     forecast = model.forecast([range(100)], horizon=12)
    """
    selected = model.anatomy.select(components)
    with applied(model, Ablation(selected, mode, seed), reference=reference):
        yield selected
