"""Screening: the effect of every single ablation, estimated from one forward and two backward passes.

Zeroing a component removes its activation a (at the component's `Point`). To second order the loss of
window i changes by

    change_i = - g_i . a_i  +  1/2 a_i' H_i a_i

1. First order (Taylor pruning: Molchanov et al., ICLR 2017, arXiv 1611.06440; attribution patching:
   Syed et al., arXiv 2310.10348, after Nanda, 2023): the loss is the window's quantile loss, as in
   CRPS; one backward pass gives its gradient g at every component.
2. Curvature: a trained model is near the minimum of its loss, so first-order terms of many windows
   cancel and what remains is the curvature (LeCun et al., Optimal Brain Damage, 1989). The mean
   quantile loss over future values with density p has the second derivative 2 p(q) in a quantile q,
   so in the Gauss-Newton approximation the term is the mean over levels of sum p(q) (J a)^2, with J the
   Jacobian of the forecast. p is estimated from the model's own quantiles: the step of the level over the
   step of the value between neighbours. With random signs v, (sum v sqrt(p) J a)^2 has that
   expectation, so one more backward pass gives an unbiased estimate for every component.
3. The change on a configuration is the sum over its windows divided by the sum of their clean losses; the
   estimate is the mean over configurations, and the score is its absolute value.

On the bundled Chronos-Bolt the first-order term alone has a Spearman correlation of 0.73 with the exact
effects of single ablations, both terms together 0.95 (`benchmarks/screening.py`).

Models that sample have no differentiable forecast. Their score is the expected squared change of the
network's output (`Forecaster.teacher_forced`), each entry scaled by its deviation over the windows: how far
the ablation moves the output, for better or worse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import KINDS, Anatomy, Component, Selection, described
from tsprune.arguments import checked
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.batching import Batch, reading_of, shared_batches
from tsprune.evaluation.metrics import CRPS_LEVELS, level_index
from tsprune.hooks.capture import Point, point_of, recording
from tsprune.memory import in_parts
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.progress import showing
from tsprune.run_options import Options, RunOptions
from tsprune.scores.score import Needs, Score, ScoringTask, Values

# least distance of neighbouring quantiles, as a share of the window's mean |quantile|
_CLOSEST = 1e-3

_Array = NDArray[np.float64]
_Recorded = Mapping[Point, Sequence[Tensor]]


@checked
def screen(
    model: Forecaster, suite: Suite, *, components: Selection | None = None, **options: Unpack[Options]
) -> pd.DataFrame:
    """Estimated effect of zeroing each component alone, one row per component.

    components : addresses or patterns; None selects every head, MLP, attention sublayer and layer
    options : keywords of `tsprune.run_options.RunOptions`. `batch_size` is the number of windows in one
        forward and backward pass, which needs more memory than a forecast; `seed` is of the random signs

    Columns: address, kind, stack, layer, attention, head, first_order and curvature (the two terms of
    the relative change of CRPS), crps_change (their sum), score (its absolute value), rank (1 is the
    lowest score: the most redundant). For models that sample, first_order and crps_change are NaN, and
    curvature and score are the squared change of the network's output. All are NaN, and rank last, for
    components that are the whole input of a norm, such as TimesFM's MLPs: the norm undoes a change of their
    scale, so the derivatives vanish however much the component matters.

    Horizons beyond `model.readout_horizon` are screened up to that step. The targets of the suite are
    used, so judge a choice made by this score on other series. The estimate holds for small changes;
    verify the top of the list with `sweep`.

    Raises TspruneError for a suite without forecastable windows, or a pattern without match.
    """
    return _screened(model, suite, components, RunOptions(**options))


def _screened(
    model: Forecaster, suite: Suite, components: Selection | None, options: RunOptions
) -> pd.DataFrame:
    suite.require_windows()
    chosen = model.anatomy.components() if components is None else model.anatomy.select(components)
    parts = {c: model.anatomy.expand([c]) for c in chosen}
    points = {part: point_of(model.anatomy, part) for group in parts.values() for part in group}
    measure = _LossMeasure(model, torch.Generator().manual_seed(options.seed))
    found: list[tuple[_Array, _Array]] = []
    done = 0
    with showing(options.progress) as progress:
        for configuration in suite.configurations:
            total = _Total(parts)
            for batch in shared_batches(
                [configuration],
                context_length=model.context_length,
                batch_size=options.batch_size,
                reading=reading_of(model),
            ):
                attempt = partial(_measured, model, measure, points, configuration, batch)
                for _, (terms, losses) in in_parts(attempt, batch.together):
                    total.add(terms, losses)
                done += len(batch.rows)
                progress("screening", done, len(suite))
            if total.clean > 0:
                found.append(total.terms())
    if not found:
        raise TspruneError(f"no window of {suite.name} could be screened; none has a finite loss above 0")
    first, curvature = (np.mean([terms[i] for terms in found], axis=0) for i in range(2))
    unseen = [any(_renormalised(model.anatomy, part) for part in group) for group in parts.values()]
    first[unseen] = curvature[unseen] = np.nan
    return _frame(chosen, first, curvature)


def _measured(
    model: Forecaster,
    measure: _LossMeasure,
    points: Mapping[Component, Point],
    configuration: Configuration,
    batch: Batch,
    places: Sequence[NDArray[np.int64]],
) -> tuple[dict[Component, tuple[_Array, _Array]], BatchLosses]:
    """`_terms` and losses of some windows of a batch."""
    with recording(model.module, set(points.values()), gradients=True) as calls:
        losses = measure.losses(configuration, batch.select(np.concatenate(places))).by_context(len(places))
    return _terms(model.anatomy, points, calls, losses), losses


def _renormalised(anatomy: Anatomy, part: Component) -> bool:
    """Whether `part` is the whole input of a norm, which undoes any change of its scale.

    The derivative along the activation is then zero, and a computed one is rounding.
    """
    if part.kind == "mlp":
        return anatomy.mlp(part).norm is not None
    site = anatomy.site(part)
    return site.norm is not None and (part.head is None or site.heads == 1)


# --- the losses of a batch -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BatchLosses:
    """The quantities that are differentiated for a batch of B windows.

    loss : float [B], whose gradient gives the first-order term; None for models that sample
    probe : float [B], whose squared directional derivative is the curvature term
    clean : sum over the windows of the clean loss, which changes are relative to
    """

    loss: Tensor | None
    probe: Tensor
    clean: float

    def by_context(self, contexts: int) -> BatchLosses:
        """Losses of variates that are read together as one, since each depends on what is computed of all.

        (The random signs make the expected square of a sum the sum of the squares.)
        """
        loss = None if self.loss is None else self.loss.unflatten(0, (contexts, -1)).sum(1)
        return BatchLosses(loss, self.probe.unflatten(0, (contexts, -1)).sum(1), self.clean)


class _LossMeasure:
    """Runs a model on batches and returns the quantities to differentiate."""

    def __init__(self, model: Forecaster, generator: torch.Generator) -> None:
        self._model = model
        self._generator = generator
        self._rows: list[int] | None = None  # places of the nine quantiles that CRPS uses
        if not isinstance(model, SamplingForecaster):
            levels = model.forecast([np.arange(2.0)], 1).levels
            self._rows = [level_index(levels, level) for level in CRPS_LEVELS]

    def losses(self, configuration: Configuration, batch: Batch) -> BatchLosses:
        if self._rows is None:
            return output_losses(self._model.differentiable_output(batch.contexts), self._generator)
        horizon = min(configuration.horizon, self._model.readout_horizon)
        nine = self._model.readout(batch.contexts, horizon)[:, self._rows]
        targets = torch.from_numpy(configuration.targets[batch.rows, :horizon]).to(nine)
        return quantile_losses(nine, targets, self._generator)


def quantile_losses(nine: Tensor, targets: Tensor, generator: torch.Generator) -> BatchLosses:
    """Losses from quantiles [B, 9, H] at CRPS's levels and targets [B, H], NaN where unknown.

    A window with a quantile that is not finite does not count.
    """
    usable = torch.isfinite(nine.detach()).all(2).all(1)
    known = torch.isfinite(targets) & usable[:, None]
    levels = torch.tensor(CRPS_LEVELS).to(nine)[:, None]
    gap = torch.where(known, targets, 0.0)[:, None] - nine
    pinball = 2 * torch.maximum(levels * gap, (levels - 1) * gap).mean(1)
    loss = torch.where(known, pinball, 0.0).sum(1)
    weights = (quantile_density(nine.detach()) / len(CRPS_LEVELS)).sqrt() * _signs(nine, generator)
    probe = torch.where(known[:, None], nine * weights, 0.0).sum((1, 2))
    return BatchLosses(loss, probe, float(loss.detach().double().sum()))


def quantile_density(nine: Tensor) -> Tensor:
    """Density at each quantile, [B, 9, H]: step of the level over the step of the value around it."""
    levels = torch.tensor(CRPS_LEVELS).to(nine)
    above = [min(i + 1, len(levels) - 1) for i in range(len(levels))]
    below = [max(i - 1, 0) for i in range(len(levels))]
    steps = (levels[above] - levels[below])[:, None]
    closest = _CLOSEST * nine.abs().mean((1, 2), keepdim=True).clamp_min(torch.finfo(nine.dtype).tiny)
    return 1 / torch.maximum((nine[:, above] - nine[:, below]) / steps, closest)


def output_losses(output: Tensor, generator: torch.Generator) -> BatchLosses:
    """Losses from a network's output [B, ...]: the curvature term is the squared change of the output."""
    flat = output.flatten(1)
    deviation = flat.detach().std(0, correction=0)
    weights = torch.where(deviation > 0, 1 / deviation, 0.0) / flat.shape[1] ** 0.5
    return BatchLosses(None, (flat * weights * _signs(flat, generator)).sum(1), float(len(flat)))


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


# --- gradient x activation -----------------------------------------------------------------------


def _terms(
    anatomy: Anatomy, points: Mapping[Component, Point], calls: _Recorded, losses: BatchLosses
) -> dict[Component, tuple[_Array, _Array]]:
    """component -> (- g . a of the loss, - g . a of the probe), float64 [B] each."""
    tensors = [x for seen in calls.values() for x in seen]
    count = len(losses.probe)
    by_loss = []
    for loss, last in ((losses.loss, False), (losses.probe, True)):
        if loss is None:
            by_loss.append({point: torch.zeros(count, 1) for point in calls})
            continue
        gradients = iter(torch.autograd.grad(loss.sum(), tensors, retain_graph=not last, allow_unused=True))
        by_loss.append(
            {p: _products(p, [(x, next(gradients)) for x in seen], count) for p, seen in calls.items()}
        )
    return {
        component: tuple(_of(anatomy, component, products[point]) for products in by_loss)  # type: ignore[misc]
        for component, point in points.items()
    }


def _products(point: Point, calls: Sequence[tuple[Tensor, Tensor | None]], count: int) -> Tensor:
    """Gradient x activation per window and feature, summed over calls and positions: [B, F].

    A call holds all windows (rows of one window follow each other), or the calls share the windows.
    """
    parts = []
    for activation, gradient in calls:
        if gradient is not None:
            product = point.windows_first((activation * gradient).detach()).double().cpu()
            parts.append(product.flatten(1, -2).sum(1))
    if not parts:
        return torch.zeros(count, 1, dtype=torch.float64)
    if all(len(part) % count == 0 for part in parts):
        return torch.stack([part.unflatten(0, (count, -1)).sum(1) for part in parts]).sum(0)
    rows = torch.cat(parts)
    if len(rows) == count:
        return rows  # in any order: only sums over windows follow, and the order is the same at all points
    # windows cannot be told apart; the square of their sum has the right expectation as well
    return torch.cat([rows.sum(0, keepdim=True), torch.zeros(count - 1, rows.shape[1], dtype=rows.dtype)])


def _of(anatomy: Anatomy, component: Component, products: Tensor) -> _Array:
    if component.kind == "head" and products.shape[1] > 1:
        assert component.head is not None
        products = products[:, anatomy.site(component).columns(component.head)]
    return -np.asarray(products.sum(1).numpy(), dtype=np.float64)


# --- over windows and configurations -------------------------------------------------------------


class _Total:
    """Sums over the windows of one configuration."""

    def __init__(self, parts: Mapping[Component, Sequence[Component]]) -> None:
        self._parts = parts
        self._first = np.zeros(len(parts))
        self._curvature = np.zeros(len(parts))
        self.clean = 0.0

    def add(self, terms: Mapping[Component, tuple[_Array, _Array]], losses: BatchLosses) -> None:
        for row, parts in enumerate(self._parts.values()):
            # a layer is all its sublayers at once: changes are added before they are squared
            first, probe = (np.sum([terms[part][i] for part in parts], axis=0) for i in range(2))
            self._first[row] += first.sum() if losses.loss is not None else np.nan
            self._curvature[row] += (probe**2).sum()
        self.clean += losses.clean

    def terms(self) -> tuple[_Array, _Array]:
        return self._first / self.clean, self._curvature / self.clean


def _frame(components: Sequence[Component], first: _Array, curvature: _Array) -> pd.DataFrame:
    change = first + curvature
    frame = pd.DataFrame(
        {
            **described(components),
            "first_order": first,
            "curvature": curvature,
            "crps_change": change,
            "score": np.where(np.isnan(change), curvature, np.abs(change)),
        }
    )
    frame["rank"] = frame["score"].rank(method="min", na_option="bottom").astype(int)
    return frame


# --- the scores ----------------------------------------------------------------------------------


def measure_gradients(task: ScoringTask) -> Mapping[str, Values]:
    """`GRADIENT_SCORES` from one forward and two backward passes."""
    components = [c.address for c in task.scored_by(FIRST_ORDER, SCREENING)]
    options = task.options.replace(batch_size=max(1, task.options.batch_size // 4))
    frame = _screened(task.model, task.windows, components, options)
    found = [Component.parse(address) for address in frame["address"]]
    columns = {FIRST_ORDER: frame["first_order"].abs(), SCREENING: frame["score"]}
    return {name: dict(zip(found, values.tolist(), strict=True)) for name, values in columns.items()}


def _score(name: str, needs: Needs, about: str) -> Score:
    return Score(name, KINDS, "low-to-high", needs, about, measure_gradients)


FIRST_ORDER, SCREENING = "first_order", "screening"
GRADIENT_SCORES = (
    _score(
        FIRST_ORDER,
        "gradient",
        "|gradient x activation|: first-order change of CRPS without the component (Molchanov et al., "
        "arXiv 1611.06440)",
    ),
    _score(
        SCREENING,
        "windows",
        "|first order + Gauss-Newton curvature| of CRPS; of models that sample, the squared change of the "
        "network's output (see tsprune.scores.screen)",
    ),
)
