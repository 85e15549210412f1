"""The residual stream, layer by layer: how it grows, which layers see alike, and what it would forecast.

The lens is the model's own readout applied to every layer: all later layers of the last stack are
switched off (they add nothing to the stream), so that what a layer leaves reaches the readout as it
is. No readout is written per model, and the last layer's lens is the forecast itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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
from tsprune.evaluation.sampling import PER_CONFIGURATION, SAMPLED_BATCH, Owners, batched, sampled
from tsprune.hooks.ablation import Ablation, applied
from tsprune.hooks.stream import replaced, streams
from tsprune.models.forecaster import Forecaster
from tsprune.statistics import Sample

LENS_HORIZON = 8  # steps that are decoded of every layer
PEAK = 0.1  # of the highest probability: what counts as a peak of a distribution over tokens
DRAWS = 100

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Residual:
    """The residual stream at the position that is read (in earlier stacks: the context's last one).

    layers : one row a stack and layer (-1: the embedding): stack, layer; norm : Euclidean norm; update :
        norm of what the layer adds, relative to the norm before; cosine : between what this layer
        and the one before it add (below 0: it takes back); each with `_low`, `_high` (95 % over
        configurations)
    cka : one row a stack and pair of layers a < b: stack, a, b, cka (linear), low, high, and null: the
        same with the windows of one layer shuffled (linear CKA is above 0 for few windows)
    """

    layers: pd.DataFrame
    cka: pd.DataFrame


@checked
def residual(
    model: Forecaster,
    suite: Suite,
    *,
    per_configuration: int = PER_CONFIGURATION,
    batch_size: int = SAMPLED_BATCH,
    seed: int = 0,
) -> Residual:
    """Norms, updates and similarity of layers on windows of a suite.

    Linear CKA: ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F), X and Y [windows, d_model] centred (Kornblith et al.,
    arXiv 1905.00414).
    """
    suite.require_windows()
    chosen = sampled(suite, model, per_configuration)
    layers, pairs = [], []
    for stack in model.anatomy.stacks:
        values, owners = _positions(model, chosen, stack, batch_size)
        layers.append(_layer_rows(stack, values, owners, seed))
        pairs.append(_cka_rows(stack, values, owners, seed))
    return Residual(pd.concat(layers, ignore_index=True), pd.concat(pairs, ignore_index=True))


def layers_of(stack: Stack) -> tuple[int, ...]:
    """Numbers of what leaves a stream to look at: the embedding (-1) and the layers that are there."""
    return (-1, *stack.numbers)


def read_position(model: Forecaster, stack: Stack) -> int:
    """Where the stream of `stack` is looked at, from the end of its sequence."""
    if stack is model.anatomy.stacks[-1]:
        return model.anatomy.readout.position if model.anatomy.readout is not None else -1
    return -1 - (stack.time.marks + stack.time.future if stack.time is not None else 0)


def _positions(model: Forecaster, suite: Suite, stack: Stack, batch_size: int) -> tuple[Floats, Owners]:
    """[layers + 1, windows, d_model] and whose the windows are."""
    parts, owners = [], Owners()
    position = read_position(model, stack)
    for batch in batched(suite, model, batch_size):
        with torch.no_grad(), streams(model, stack) as recorded:
            model.teacher_forced(batch.contexts)
        # a family may run several passes over a window: the first is the window as it is
        rows = [torch.cat([x.flatten(0, -3)[:, position] for x in calls]) for calls in recorded]
        parts.append(torch.stack(rows)[:, : len(batch.contexts)].double().numpy(force=True))
        owners.add(batch)
    return np.concatenate(parts, axis=1), owners


def _layer_rows(stack: Stack, values: Floats, owners: Owners, seed: int) -> pd.DataFrame:
    norms = np.linalg.norm(values, axis=-1)  # [L + 1, W]
    updates = np.diff(values, axis=0)
    sizes = np.linalg.norm(updates, axis=-1)
    empty = np.full((1, values.shape[1]), np.nan)
    with np.errstate(all="ignore"):
        relative = sizes / norms[:-1]
        cosines = (updates[1:] * updates[:-1]).sum(-1) / (sizes[1:] * sizes[:-1])
    measures = {
        "norm": norms,
        "update": np.concatenate([empty, relative]),
        "cosine": np.concatenate([empty, empty, cosines]),
    }
    columns: dict[str, object] = {"stack": stack.name, "layer": layers_of(stack)}
    for what, table in measures.items():
        found = owners.sample(table.T).estimates(seed=seed)
        columns |= {what: found.value, f"{what}_low": found.low, f"{what}_high": found.high}
    return pd.DataFrame(columns)


def linear_cka(a: Floats, b: Floats) -> float:
    """Linear CKA of Gram matrices [W, W] of two layers, in [0, 1]; NaN if one is constant."""
    return float(_pairwise_cka(np.stack([a, b]))[0, 1])


def _pairwise_cka(grams: Floats) -> Floats:
    """Linear CKA of every pair of Gram matrices [L, W, W], [L, L]; NaN where a layer is constant."""
    means = grams.mean(axis=1, keepdims=True)
    centred = grams - means - grams.mean(axis=2, keepdims=True) + means.mean(axis=2, keepdims=True)
    flat = centred.reshape(len(grams), -1)
    sizes = np.linalg.norm(flat, axis=1)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(sizes > 0, 1, np.nan) * (flat @ flat.T) / np.outer(sizes, sizes))


def _cka_rows(stack: Stack, values: Floats, owners: Owners, seed: int) -> pd.DataFrame:
    grams = values @ values.transpose(0, 2, 1)
    found = _pairwise_cka(grams)
    low, high = _cka_limits(grams, found, owners.units, seed)
    shuffle = np.random.default_rng(seed).permutation(grams.shape[1])
    shuffled = grams[:, shuffle[:, None], shuffle]
    null = _pairwise_cka(np.concatenate([grams, shuffled]))[: len(grams), len(grams) :]
    layers = layers_of(stack)
    return pd.DataFrame(
        {"stack": stack.name, "a": layers[a], "b": layers[b], "cka": found[a, b]}
        | {"low": low[a, b], "high": high[a, b], "null": null[a, b]}
        for a in range(len(layers))
        for b in range(a + 1, len(layers))
    )


def _cka_limits(grams: Floats, found: Floats, units: Sequence[str], seed: int) -> tuple[Floats, Floats]:
    """Limits of CKA [layers, layers] over units: it is no mean of windows, so units have pseudo-values.

    A bootstrap of windows would raise CKA: a window that is drawn twice is like itself.
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
    """Switches off every layer of the last stack after `layer` (-1: all)."""
    stack = model.anatomy.stacks[-1]
    return Ablation(tuple(Component(stack.name, number) for number in stack.numbers if number > layer))


@checked
def lens(
    model: Forecaster,
    suite: Suite,
    *,
    horizon: int = LENS_HORIZON,
    per_configuration: int = PER_CONFIGURATION,
    batch_size: int = SAMPLED_BATCH,
    seed: int = 0,
) -> pd.DataFrame:
    """What every layer of the last stack would forecast, one row a layer (-1: the embedding alone).

    Columns, each with a 95 % interval over configurations (`_low`, `_high`): distance (Spearman distance of
    the layer's median forecast over `horizon` steps to the model's); for models of values, spread (of the
    0.1 and 0.9 quantiles, in standard deviations of the context); for models of tokens, over the
    steps that `teacher_forced` predicts, entropy (nats), vocabulary (its exponential, the effective
    number of tokens) and peaks (local maxima of at least a tenth of the highest probability).

    Use `lens_guard` to see that the lens shows anything at all.
    """
    suite.require_windows()
    chosen = sampled(suite, model, per_configuration)
    stack = model.anatomy.stacks[-1]
    layers = layers_of(stack)
    tokens = model.anatomy.tokens
    parts: dict[str, list[list[Floats]]] = {}
    owners = Owners()
    for batch in batched(chosen, model, batch_size):
        clean = None if tokens else model.forecast(batch.contexts, horizon).median
        owners.add(batch)
        for place, layer in enumerate(layers):
            with applied(model, later_layers(model, layer)), torch.no_grad():
                if tokens:
                    found = token_measures(model.teacher_forced(batch.contexts))
                else:
                    assert clean is not None
                    forecast = model.forecast(batch.contexts, horizon)
                    found = {
                        "distance": spearman_distance(forecast.median, clean),
                        "spread": _spread(forecast.quantiles, batch.contexts),
                    }
            for name, values in found.items():
                parts.setdefault(name, [[] for _ in layers])[place].append(values)
    columns: dict[str, object] = {"stack": stack.name, "layer": layers}
    for name, by_layer in parts.items():
        table = np.stack([np.concatenate(values) for values in by_layer], axis=1)
        by_unit = owners.sample(table).estimates(seed=seed)
        columns |= {name: by_unit.value, f"{name}_low": by_unit.low, f"{name}_high": by_unit.high}
    return pd.DataFrame(columns)


def _spread(quantiles: NDArray[np.float32], contexts: Sequence[NDArray[np.float32]]) -> Floats:
    """Mean over the horizon of the outermost quantiles' distance, in the context's deviations, [B]."""
    width = (quantiles[:, -1] - quantiles[:, 0]).mean(-1, dtype=np.float64)
    scale = np.array([np.nanstd(context.astype(np.float64)) for context in contexts])
    return np.asarray(np.divide(width, scale, out=np.full_like(width, np.nan), where=scale > 0))


def token_measures(logits: Tensor) -> dict[str, Floats]:
    """Entropy, effective vocabulary and number of peaks of `logits` [B, steps, tokens], [B] each."""
    probability = logits.double().softmax(-1)
    entropy = torch.special.entr(probability).sum(-1)
    outside = torch.zeros_like(probability[..., :1])
    padded = torch.cat([outside, probability, outside], -1)
    # of neighbours that are equal the last one is the peak
    peak = (probability >= padded[..., :-2]) & (probability > padded[..., 2:])
    high = probability >= PEAK * probability.amax(-1, keepdim=True)
    measures = {"entropy": entropy, "vocabulary": entropy.exp(), "peaks": (peak & high).sum(-1).double()}
    return {name: values.mean(-1).numpy(force=True) for name, values in measures.items()}


GUARDED = 4  # windows that the guard exchanges


def guard_contexts(model: Forecaster, suite: Suite) -> list[NDArray[np.float32]]:
    """Windows for `lens_guard`: at most `GUARDED`, of the greatest length that two or more share.

    Raises TspruneError where no two windows are of one length.
    """
    by_length: dict[int, list[NDArray[np.float32]]] = {}
    for batch in batched(sampled(suite, model, GUARDED), model):
        for context in batch.contexts:
            by_length.setdefault(len(context), []).append(context)
    shared = [length for length, contexts in by_length.items() if len(contexts) > 1]
    if not shared:
        raise TspruneError("no two windows are of one length, so none can be exchanged for another")
    contexts = by_length[max(shared)]
    # of different configurations, where there are some
    return contexts[:: max(1, len(contexts) // GUARDED)][:GUARDED]


def lens_guard(model: Forecaster, contexts: Sequence[ArrayLike]) -> pd.DataFrame:
    """Whether what a layer leaves decides the forecast: it is replaced by itself, and by another window's.

    contexts : two or more windows of one length

    One row a layer of the last stack: layer, itself (largest change of the network's output, relative to
    its largest value; 0 unless the tool is at fault) and other (the same with the next window's stream; 0
    where the lens would show nothing).
    """
    stack = model.anatomy.stacks[-1]
    rows = []
    with torch.no_grad():
        clean = model.teacher_forced(contexts)
        for layer, block in stack.numbered():
            changes = []
            for edit in (lambda x: x.clone(), lambda x: x.roll(1, 0)):
                with replaced(model, block, edit):
                    now = model.teacher_forced(contexts)
                changes.append(float((now - clean).abs().max() / clean.abs().max()))
            rows.append({"stack": stack.name, "layer": layer, "itself": changes[0], "other": changes[1]})
    return pd.DataFrame(rows)
