"""The residual stream, layer by layer: its growth, the similarity of layers, and their forecasts.

The lens applies the model's own readout to every layer: all later layers of the last stack are ablated (they
add nothing to the stream), so the stream of a layer reaches the readout unchanged. No readout is written per
model, and the lens of the last layer is the forecast itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tsprune.anatomy import Component, Stack
from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import spearman_distance
from tsprune.evaluation.sampling import PER_CONFIGURATION, Owners, SampledWindows, batched, sampled
from tsprune.explain.attribution.writers import first_pass
from tsprune.explain.window_means import of_batches
from tsprune.hooks.ablation import Ablation, applied
from tsprune.hooks.mixing import kept_factors
from tsprune.hooks.stream import replaced, streams
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress, showing
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, estimated
from tsprune.statistics import Sample
from tsprune.statistics.estimate import Array

GUARDED = 4  # windows of the guard
_LENS_HORIZON = 8  # steps decoded from every layer
_PEAK = 0.1  # of the highest probability: the threshold of a peak in a distribution over tokens

_LAYER = (Column("stack", "name", dtype="text"), Column("layer", "number; -1: the embedding", dtype="count"))
RESIDUAL = Schema(
    "residual",
    *_LAYER,
    *estimated("norm", "Euclidean norm of the stream"),
    *estimated("update", "norm of the layer's addition, relative to the norm before"),
    *estimated("cosine", "between this layer's addition and the previous layer's; below 0: it takes back"),
)
CKA = Schema(
    "cka",
    _LAYER[0],
    Column("a", "layer; -1: the embedding", dtype="count"),
    Column("b", "later layer", dtype="count"),
    *estimated("cka", "linear CKA of both layers' streams over windows", limits=""),
    Column("null", "cka with the windows of one layer shuffled: few windows raise linear CKA above 0"),
)
LENS = Schema(
    "lens",
    *_LAYER,
    *estimated("distance", "Spearman distance of the median forecast to the model's", optional=True),
    *estimated("spread", "between quantiles 0.1 and 0.9", "context deviations", optional=True),
    *estimated("entropy", "of the distribution over tokens", "nats", optional=True),
    *estimated("vocabulary", "exp(entropy): effective number of tokens", "tokens", optional=True),
    *estimated("peaks", "local maxima, of a tenth of the highest probability or more", optional=True),
)
GUARD = Schema(
    "guard",
    *_LAYER,
    Column("itself", "largest relative change of the output with the layer's own stream; should be 0"),
    Column("other", "the same with the stream of another window; 0 if the lens shows nothing"),
)


@dataclasses.dataclass(frozen=True)
class Residual:
    """The residual stream at the position that is read (in earlier stacks: the context's last position).

    layers : one row per stack and layer; columns in `RESIDUAL`
    cka : one row per stack and pair of layers a < b; columns in `CKA`
    """

    layers: pd.DataFrame
    cka: pd.DataFrame


@checked
def residual(
    model: Forecaster, suite: Suite, *, per_configuration: int = PER_CONFIGURATION, **options: Unpack[Options]
) -> Residual:
    """Norms, updates and similarity of layers on windows of a suite; arguments as of `attention`.

    Linear CKA: ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F), X and Y [windows, d_model] centred (Kornblith et al.,
    arXiv 1905.00414).

    Raises TspruneError for a suite without windows.
    """
    chosen, stacks, owners = RunOptions(**options), model.anatomy.stacks, Owners()
    positions = [-1 - (s.time.marks + s.time.future if s.time is not None else 0) for s in stacks]
    positions[-1] = -1 if model.anatomy.readout is None else model.anatomy.readout.position

    def recorded(batch: SampledWindows) -> list[Array]:
        """The streams [L + 1, B, d_model] of every stack."""
        with torch.no_grad(), ExitStack() as recording:
            calls = [recording.enter_context(streams(model, stack)) for stack in stacks]
            model.teacher_forced(batch.contexts)
        found = []
        for position, layers in zip(positions, calls, strict=True):
            rows = torch.stack([first_pass(x, position, len(batch.contexts)) for x in layers])
            found.append(rows.double().numpy(force=True))
        return found

    parts = list(of_batches(recorded, model, suite, per_configuration, chosen, owners, "residual"))
    layers, pairs = [], []
    for stack, part in zip(stacks, zip(*parts, strict=True), strict=True):
        values = np.concatenate(part, axis=1)  # [L + 1, W, d_model]
        left = torch.stack(kept_factors(model, stack)).double().numpy(force=True)
        layers.append(_layer_rows(stack, values, left, owners, chosen.seed))
        pairs += _cka_rows(stack, values, owners, chosen.seed)
    return Residual(RESIDUAL.checked(pd.concat(layers, ignore_index=True)), CKA.frame(pairs))


def layers_of(stack: Stack) -> tuple[int, ...]:
    """Numbers of the streams: the embedding (-1) and the layers present."""
    return (-1, *stack.numbers)


def _layer_rows(stack: Stack, values: Array, left: Array, owners: Owners, seed: int) -> pd.DataFrame:
    """One row per stream [L + 1, W, d_model]; `left` [L] are the factors of each layer's input."""
    norms = np.linalg.norm(values, axis=-1)  # [L + 1, W]
    updates = values[1:] - left[:, None, None] * values[:-1]
    sizes = np.linalg.norm(updates, axis=-1)
    with np.errstate(all="ignore"):
        relative = sizes / norms[:-1]
        cosines = (updates[1:] * updates[:-1]).sum(-1) / (sizes[1:] * sizes[:-1])
    columns: dict[str, object] = {"stack": stack.name, "layer": layers_of(stack)}
    for name, known in {"norm": norms, "update": relative, "cosine": cosines}.items():
        table = np.full(norms.shape, np.nan)  # the first layers have no update, or none before it
        table[len(norms) - len(known) :] = known
        columns |= owners.sample(table.T).estimates(seed=seed).columns(name)
    return pd.DataFrame(columns)


def linear_cka(a: Array, b: Array) -> float:
    """Linear CKA of Gram matrices [W, W] of two layers, in [0, 1]; NaN if one is constant."""
    return float(_pairwise_cka(np.stack([a, b]))[0, 1])


def _pairwise_cka(grams: Array) -> Array:
    """Linear CKA of every pair of Gram matrices [L, W, W], [L, L]; NaN where a layer is constant."""
    means = grams.mean(axis=1, keepdims=True)
    centred = grams - means - grams.mean(axis=2, keepdims=True) + means.mean(axis=2, keepdims=True)
    flat = centred.reshape(len(grams), -1)
    sizes = np.linalg.norm(flat, axis=1)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(sizes > 0, 1, np.nan) * (flat @ flat.T) / np.outer(sizes, sizes))


def _cka_rows(stack: Stack, values: Array, owners: Owners, seed: int) -> list[dict[str, object]]:
    grams = values @ values.transpose(0, 2, 1)
    found = _pairwise_cka(grams)
    low, high = _cka_limits(grams, found, owners.units, seed)
    shuffle = np.random.default_rng(seed).permutation(grams.shape[1])
    shuffled = grams[:, shuffle[:, None], shuffle]
    null = _pairwise_cka(np.concatenate([grams, shuffled]))[: len(grams), len(grams) :]
    layers = layers_of(stack)
    return [
        {"stack": stack.name, "a": layers[a], "b": layers[b], "cka": found[a, b]}
        | {"low": low[a, b], "high": high[a, b], "null": null[a, b]}
        for a, b in zip(*np.triu_indices(len(layers), 1), strict=True)
    ]


def _cka_limits(grams: Array, found: Array, units: Sequence[str], seed: int) -> tuple[Array, Array]:
    """Limits of CKA [layers, layers] over units, by jackknife pseudo-values: CKA is not a mean of windows.

    A bootstrap of windows would raise CKA, because a window drawn twice is similar to itself.
    """
    names = sorted(set(units))
    if len(names) < 2:
        return np.full_like(found, np.nan), np.full_like(found, np.nan)
    kept = [np.flatnonzero([unit != name for unit in units]) for name in names]
    without = np.array([_pairwise_cka(grams[:, windows[:, None], windows]) for windows in kept])
    with np.errstate(invalid="ignore"):
        spread = found - (len(names) - 1) * (without - without.mean(axis=0))
    estimates = Sample.of(spread.reshape(len(names), -1), names).estimates(seed=seed)
    low, high = (limit.reshape(found.shape).clip(0, 1) for limit in (estimates.low, estimates.high))
    return low, high


# --- the lens ------------------------------------------------------------------------------------


def later_layers(model: Forecaster, layer: int) -> Ablation:
    """The ablation of every layer of the last stack after `layer` (-1: all)."""
    stack = model.anatomy.stacks[-1]
    return Ablation(tuple(Component(stack.name, number) for number in stack.numbers if number > layer))


@checked
def lens(
    model: Forecaster,
    suite: Suite,
    *,
    horizon: int = _LENS_HORIZON,
    per_configuration: int = PER_CONFIGURATION,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Forecasts read from every layer of the last stack: one row per layer (-1: the embedding alone).

    horizon : steps decoded per layer; other arguments as of `attention`

    Columns in `LENS`: distance and spread for models of values; for models of tokens entropy, vocabulary and
    peaks over the steps that `teacher_forced` predicts. `lens_guard` tests whether the lens shows anything.

    Raises TspruneError for a suite without windows.
    """
    chosen, stack, owners = RunOptions(**options), model.anatomy.stacks[-1], Owners()
    parts: dict[str, list[Array]] = {}

    def decoded(batch: SampledWindows) -> list[dict[str, Array]]:
        return _decoded(model, batch.contexts, horizon)

    for found in of_batches(decoded, model, suite, per_configuration, chosen, owners, "lens"):
        for name in found[0]:
            parts.setdefault(name, []).append(np.stack([layer[name] for layer in found], axis=1))
    columns: dict[str, object] = {"stack": stack.name, "layer": layers_of(stack)}
    for name, values in parts.items():
        columns |= owners.sample(np.concatenate(values)).estimates(seed=chosen.seed).columns(name)
    return LENS.checked(pd.DataFrame(columns))


def _decoded(model: Forecaster, contexts: Sequence[ArrayLike], horizon: int) -> list[dict[str, Array]]:
    """Measures [B] of each layer's forecast of B windows."""
    clean = None if model.anatomy.tokens else model.forecast(contexts, horizon).median
    deviations = np.array([np.nanstd(np.asarray(context, dtype=np.float64)) for context in contexts])
    found: list[dict[str, Array]] = []
    for layer in layers_of(model.anatomy.stacks[-1]):
        with applied(model, later_layers(model, layer)), torch.no_grad():
            if clean is None:
                found.append(token_measures(model.teacher_forced(contexts)))
                continue
            forecast = model.forecast(contexts, horizon)
            distance = spearman_distance(forecast.median, clean)
            outer = (forecast.quantiles[:, -1] - forecast.quantiles[:, 0]).mean(-1, dtype=np.float64)
            spread = np.divide(outer, deviations, out=np.full_like(outer, np.nan), where=deviations > 0)
            found.append({"distance": distance, "spread": spread})
    return found


def token_measures(logits: Tensor) -> dict[str, Array]:
    """Entropy, effective vocabulary and number of peaks of `logits` [B, steps, tokens], [B] each."""
    probability = logits.double().softmax(-1)
    entropy = torch.special.entr(probability).sum(-1)
    outside = torch.zeros_like(probability[..., :1])
    padded = torch.cat([outside, probability, outside], -1)
    # of equal neighbours the last one is the peak
    peak = (probability >= padded[..., :-2]) & (probability > padded[..., 2:])
    high = probability >= _PEAK * probability.amax(-1, keepdim=True)
    measures = {"entropy": entropy, "vocabulary": entropy.exp(), "peaks": (peak & high).sum(-1).double()}
    return {name: values.mean(-1).numpy(force=True) for name, values in measures.items()}


def guard_contexts(model: Forecaster, suite: Suite) -> list[NDArray[np.float32]]:
    """Windows for `lens_guard`: at most `GUARDED`, of the greatest length that two or more share.

    Raises TspruneError if no two windows have the same length.
    """
    by_length: dict[int, list[NDArray[np.float32]]] = {}
    for batch in batched(sampled(suite, model, GUARDED), model):
        for context in map(np.asarray, batch.contexts):
            by_length.setdefault(len(context), []).append(context)
    shared = [length for length, contexts in by_length.items() if len(contexts) > 1]
    if not shared:
        raise TspruneError("no two windows have the same length, so streams cannot be exchanged")
    contexts = by_length[max(shared)]
    # from different configurations where possible
    return contexts[:: max(1, len(contexts) // GUARDED)][:GUARDED]


def lens_guard(
    model: Forecaster, contexts: Sequence[ArrayLike], *, progress: Progress | bool | None = None
) -> pd.DataFrame:
    """Whether the stream of a layer decides the forecast: it is replaced by itself, and by another window's.

    contexts : two or more windows of one length
    progress : as in `tsprune.run_options.RunOptions`; its stage is "guard"

    One row per layer of the last stack; columns in `GUARD`. Changes are relative to the largest output.
    """
    stack = model.anatomy.stacks[-1]
    rows: list[dict[str, object]] = []
    edits = {"itself": lambda x: x.clone(), "other": lambda x: x.roll(1, 0)}
    with torch.no_grad(), showing(progress) as report:
        passes = 1 + len(edits) * len(stack.numbers)
        report("guard", 0, passes)
        clean = model.teacher_forced(contexts)
        for layer, block in stack.numbered():
            rows.append({"stack": stack.name, "layer": layer})
            for place, (name, edit) in enumerate(edits.items()):
                report("guard", 1 + len(edits) * (len(rows) - 1) + place, passes)
                with replaced(model, block, edit):
                    now = model.teacher_forced(contexts)
                rows[-1][name] = float((now - clean).abs().max() / clean.abs().max())
    return GUARD.frame(rows)
