"""Induction: attention to earlier copies of the same values, in random sequences that repeat.

A block of random values is repeated. From the second repetition on, a query may attend to the position
that held the same values before (`occurrence`), or to the position after it (`followed`: the value that an
induction head copies). A head may attend there because of the distance alone. The control is therefore the
same attention in random sequences that do not repeat: an induction head reacts to the repetition, a
positional head to the distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import Component
from tsprune.arguments import checked
from tsprune.errors import TspruneError
from tsprune.explain.window_means import RowMeans, span_of
from tsprune.hooks.attention import AttentionMap, require_heads, watching
from tsprune.memory import in_parts
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress, showing
from tsprune.schema import Column, Schema, estimated
from tsprune.statistics import Sample
from tsprune.statistics.estimate import Array

_BLOCKS = (3, 5, 8)  # positions
_REPEATS = (2, 3, 4)
_SEQUENCES = 16
TARGETS = ("occurrence", "followed")

INDUCTION = Schema(
    "induction",
    Column("address", "of the head", dtype="text"),
    Column("block", "positions in the repeated block", dtype="count"),
    Column("steps", "time steps in the repeated block", dtype="count"),
    Column("repeats", "of the block", dtype="count"),
    *(
        column
        for target in TARGETS
        for column in (
            Column(target, "mean attention to all visible targets, where the sequence repeats", "share"),
            Column(f"{target}_control", "mean attention to the same positions without repetition", "share"),
            Column(f"{target}_uniform", "of a head that attends evenly", "share"),
            *estimated(f"{target}_score", f"{target} minus control; interval over sequences", "share"),
        )
    ),
)


@checked
def induction(
    model: Forecaster,
    *,
    blocks: Sequence[int] = _BLOCKS,
    repeats: Sequence[int] = _REPEATS,
    sequences: int = _SEQUENCES,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Attention to earlier occurrences of the same values, by head, block length and repeat count.

    blocks : lengths of the repeated block, in positions (patches or tokens) of the first stack
    repeats : how often a block occurs; combinations longer than the context length are left out
    sequences : random sequences per combination
    seed : of the sequences and the bootstrap
    progress : as in `tsprune.run_options.RunOptions`; its stage is "induction"

    One row per head and combination; columns in `INDUCTION`. NaN for a head none of whose queries sees a
    target. With several repeats, all earlier occurrences are targets.

    Raises TspruneError if the anatomy has no time axis, if no combination fits the context length, or for a
    model without attention heads.
    """
    require_heads(model)
    axis = model.anatomy.stacks[0].time
    if axis is None:
        raise TspruneError(f"{model.name}: its anatomy does not describe where positions lie in time")
    fitting = [(b, r) for b in blocks for r in repeats if b * r * axis.span <= model.context_length]
    if not fitting:
        raise TspruneError(
            f"{model.name}: a block of {min(blocks)} positions, repeated {min(repeats)} times, exceeds the "
            f"context length of {model.context_length} steps"
        )
    parts = []
    with showing(progress) as report:
        for done, (block, times) in enumerate(fitting, start=1):
            steps = block * axis.span
            rng = np.random.default_rng([seed, block, times])
            once = rng.standard_normal((sequences, steps))
            repeated = np.tile(once, times)
            control = rng.standard_normal((sequences, steps * times))
            on, off = (_attention(model, [*x.astype(np.float32)], steps) for x in (repeated, control))
            tables = _tables(model, on, off, seed)
            parts += [x.assign(block=block, steps=steps, repeats=times) for x in tables]
            report("induction", done, len(fitting))
    return INDUCTION.checked(pd.concat(parts, ignore_index=True))


def _attention(model: Forecaster, contexts: Sequence[NDArray[np.float32]], steps: int) -> list[RowMeans]:
    """Means of attention to each target, and of an even head (`_uniform`), by sequence and head.

    Those of one part of the sequences after the other, if memory runs out for all together.
    """
    return [means for _, means in in_parts(partial(_attention_of_part, model, steps), contexts)]


def _attention_of_part(model: Forecaster, steps: int, contexts: Sequence[NDArray[np.float32]]) -> RowMeans:
    means = RowMeans(model.anatomy, len(contexts))

    def add(found: AttentionMap) -> None:
        if model.anatomy.site(found.component).axis != "time":
            return
        shares = shares_of_rows(found, steps, span_of(model.anatomy.key_stack(found.component)))
        numbers: dict[str, tuple[Tensor, Tensor]] = {}
        for name, (share, uniform, counted) in shares.items():
            numbers |= {name: (share, counted), f"{name}_uniform": (uniform, counted)}
        means.add(found, numbers)

    with torch.no_grad(), watching(model, add):
        model.teacher_forced(list(contexts))
    return means


def shares_of_rows(found: AttentionMap, steps: int, span: int) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Target -> (attention to it, attention of an even head, rows that count), each [N, heads, Q].

    steps : time steps in the repeated block; span : time steps per key. Rows count if they see a target.
    """
    lag = found.lags
    allowed = found.allowed.expand_as(found.weights)
    result = {}
    for name, offset in (("occurrence", 0), ("followed", span)):
        # a block of one position is followed by itself; the query's own position is never a target
        at = ((lag + offset) % steps == 0) & (lag + offset >= steps) & (lag > 0)
        visible = (allowed & at).sum(-1)
        uniform = visible / allowed.sum(-1).clamp_min(1)
        result[name] = (found.weights * at).sum(-1), uniform, found.counted & (visible > 0)
    return result


def _tables(
    model: Forecaster, repeated: Sequence[RowMeans], control: Sequence[RowMeans], seed: int
) -> list[pd.DataFrame]:
    def joined(parts: Sequence[RowMeans], site: Component, name: str) -> Array:
        return np.concatenate([part.means(site, name) for part in parts])

    tables = []
    for site, described in model.anatomy.sites():
        if not described.heads:
            continue
        columns: dict[str, object] = {"address": [f"{site}.head.{head}" for head in described.numbers]}
        for name in TARGETS:
            now, before = joined(repeated, site, name), joined(control, site, name)
            even = joined(repeated, site, f"{name}_uniform")
            for column, values in {"": now, "_control": before, "_uniform": even}.items():
                columns[name + column] = Sample.of(values).means()
            columns |= Sample.of(now - before).estimates(seed=seed).columns(f"{name}_score")
        tables.append(pd.DataFrame(columns))
    return tables
