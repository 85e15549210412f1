"""Screening: what every ablation would do, estimated from one forward and two backward passes.

Zeroing a component takes its activation a (at the component's `Point`) away. To second order the
loss of window i changes by

    change_i = - g_i . a_i  +  1/2 a_i' H_i a_i

1. First order (Taylor pruning: Molchanov et al., ICLR 2017, arXiv 1611.06440; attribution patching:
   Syed et al., arXiv 2310.10348, after Nanda, 2023): the loss is the window's quantile loss, as CRPS
   sums it, and one backward pass gives its gradient g at every component at once.
2. Curvature: a trained model is near the minimum of its loss, so first-order terms of many windows
   cancel and what remains is the curvature (LeCun et al., Optimal Brain Damage, 1989). The mean
   quantile loss over future values with density p has the second derivative 2 p(q) in a quantile q,
   so in the Gauss-Newton approximation the term is the mean over levels of sum p(q) (J a)^2, with J the
   Jacobian of the forecast. The model's own quantiles say what p is: the step of the level over the
   step of the value between neighbours. With random signs v, (sum v sqrt(p) J a)^2 has that
   expectation, so one more backward pass gives an unbiased estimate of it for every component at once.
3. A configuration's change is the sum over its windows by the sum of their clean losses; the
   estimate is the mean over configurations, and the score its absolute value.

On the bundled Chronos-Bolt first order alone ranks single ablations with a Spearman correlation of
0.73 to their exact effects, both terms together with 0.95 (`benchmarks/screening.py`).

Models that sample have a network output but no differentiable forecast. Theirs is the expected
squared change of that output (`Forecaster.teacher_forced`), each entry scaled by its deviation over
the windows: by how much the ablation moves the output, not whether for the better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import Anatomy, Component, Selection
from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.batching import Batch, batches
from tsprune.evaluation.metrics import CRPS_LEVELS, level_index
from tsprune.hooks.capture import Point, point_of, recording
from tsprune.models.forecaster import Forecaster, SamplingForecaster

BATCH_SIZE = 64
# neighbouring quantiles closer than this share of the window's mean |quantile| count as that far apart
_CLOSEST = 1e-3

Array = NDArray[np.float64]
Calls = Mapping[Point, Sequence[Tensor]]
Progress = Callable[[int, int], None]  # (windows done, of all)


def screen(
    model: Forecaster,
    suite: Suite,
    *,
    only: Selection | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Estimates what zeroing each component alone would do, one row a component.

    only : addresses or patterns; None takes every head, MLP, attention sublayer and layer
    batch_size : windows in one forward and backward; gradients need more memory than forecasts
    seed : of the random signs

    Columns: address, kind, stack, layer, attention, head, first_order and curvature (the two terms of
    the relative change of CRPS), crps_change (their sum), score (its absolute value), rank (1 is the
    lowest score: the first to go). Of models that sample, first_order and crps_change are NaN and
    curvature and score are the squared change of the network's output.

    Horizons beyond `model.readout_horizon` are screened over that many steps. The suite's targets are
    used: screen on a calibration split what is to be judged on another. An estimate for small changes;
    verify the top of the list with `sweep`.

    Raises TspruneError for a suite without forecastable windows, or a pattern without match.
    """
    suite.require_windows()
    chosen = model.anatomy.components() if only is None else model.anatomy.select(only)
    parts = {c: model.anatomy.expand([c]) for c in chosen}
    points = {part: point_of(model.anatomy, part) for components in parts.values() for part in components}
    measure = _Measure(model, torch.Generator().manual_seed(seed))
    found: list[tuple[Array, Array]] = []
    done = 0
    for configuration in suite.configurations:
        total = _Total(parts)
        for batch in batches(configuration, context_length=model.context_length, batch_size=batch_size):
            with recording(model.module, set(points.values()), gradients=True) as calls:
                losses = measure.losses(configuration, batch)
            total.add(_terms(model.anatomy, points, calls, losses), losses)
            done += len(batch.rows)
            if progress is not None:
                progress(done, len(suite))
        if total.clean > 0:
            found.append(total.terms())
    if not found:
        raise TspruneError(f"no window of {suite.name} could be screened; none has a finite loss above 0")
    first, curvature = (np.mean([terms[i] for terms in found], axis=0) for i in range(2))
    return _frame(chosen, first, curvature)


# --- the losses of a batch -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Losses:
    """What is differentiated for a batch of B windows.

    loss : float [B], or None if there is none; its gradient is the first-order term
    probe : float [B], whose squared directional derivative is the curvature term
    clean : what changes are relative to, summed over the windows
    """

    loss: Tensor | None
    probe: Tensor
    clean: float


class _Measure:
    """Runs a model on batches, to what is differentiated."""

    def __init__(self, model: Forecaster, generator: torch.Generator) -> None:
        self._model = model
        self._generator = generator
        self._rows: list[int] | None = None  # of the nine quantiles that CRPS reads
        if not isinstance(model, SamplingForecaster):
            levels = model.forecast([np.arange(2.0)], 1).levels
            self._rows = [level_index(levels, level) for level in CRPS_LEVELS]

    def losses(self, configuration: Configuration, batch: Batch) -> Losses:
        if self._rows is None:
            return output_losses(self._model.differentiable_output(batch.contexts), self._generator)
        horizon = min(configuration.horizon, self._model.readout_horizon)
        nine = self._model.readout(batch.contexts, horizon)[:, self._rows]
        targets = torch.from_numpy(configuration.targets[batch.rows, :horizon]).to(nine)
        return quantile_losses(nine, targets, self._generator)


def quantile_losses(nine: Tensor, targets: Tensor, generator: torch.Generator) -> Losses:
    """From quantiles [B, 9, H] at CRPS's levels and targets [B, H], NaN where unknown.

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
    return Losses(loss, probe, float(loss.detach().double().sum()))


def quantile_density(nine: Tensor) -> Tensor:
    """Density at each quantile, [B, 9, H]: step of the level over step of the value around it."""
    levels = torch.tensor(CRPS_LEVELS).to(nine)
    above = [min(i + 1, len(levels) - 1) for i in range(len(levels))]
    below = [max(i - 1, 0) for i in range(len(levels))]
    steps = (levels[above] - levels[below])[:, None]
    closest = _CLOSEST * nine.abs().mean((1, 2), keepdim=True).clamp_min(torch.finfo(nine.dtype).tiny)
    return 1 / torch.maximum((nine[:, above] - nine[:, below]) / steps, closest)


def output_losses(output: Tensor, generator: torch.Generator) -> Losses:
    """From a network's own output [B, ...]; its curvature is the squared change, not a loss."""
    flat = output.flatten(1)
    deviation = flat.detach().std(0, correction=0)
    weights = torch.where(deviation > 0, 1 / deviation, 0.0) / flat.shape[1] ** 0.5
    return Losses(None, (flat * weights * _signs(flat, generator)).sum(1), float(len(flat)))


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


# --- gradient x activation -----------------------------------------------------------------------


def _terms(
    anatomy: Anatomy, points: Mapping[Component, Point], calls: Calls, losses: Losses
) -> dict[Component, tuple[Array, Array]]:
    """Of each component: (- g . a of the loss, the same of the probe), float64 [B] each."""
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

    A call is of all windows (several rows of a window follow each other), or calls share them out.
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
        return rows  # in whatever order: what follows are sums over windows, the same at all points
    # windows cannot be told apart; the square of their sum has the right expectation, too
    return torch.cat([rows.sum(0, keepdim=True), torch.zeros(count - 1, rows.shape[1], dtype=rows.dtype)])


def _of(anatomy: Anatomy, component: Component, products: Tensor) -> Array:
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

    def add(self, terms: Mapping[Component, tuple[Array, Array]], losses: Losses) -> None:
        for row, parts in enumerate(self._parts.values()):
            # a layer is its sublayers, all gone at once: changes add up before they are squared
            first, probe = (np.sum([terms[part][i] for part in parts], axis=0) for i in range(2))
            self._first[row] += first.sum() if losses.loss is not None else np.nan
            self._curvature[row] += (probe**2).sum()
        self.clean += losses.clean

    def terms(self) -> tuple[Array, Array]:
        return self._first / self.clean, self._curvature / self.clean


def _frame(components: Sequence[Component], first: Array, curvature: Array) -> pd.DataFrame:
    change = first + curvature
    frame = pd.DataFrame(
        {
            "address": [c.address for c in components],
            "kind": [c.kind for c in components],
            "stack": [c.stack for c in components],
            "layer": [c.layer for c in components],
            "attention": [c.attention for c in components],
            "head": [c.head for c in components],
            "first_order": first,
            "curvature": curvature,
            "crps_change": change,
            "score": np.where(np.isnan(change), curvature, np.abs(change)),
        }
    )
    frame["rank"] = frame["score"].rank(method="min").astype(int)
    return frame
