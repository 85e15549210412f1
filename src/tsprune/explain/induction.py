"""Induction: what heads attend to in sequences that repeat, when nothing but the repetition can be used.

A block of random values is repeated; attention is looked at from the second repetition on, to the
position that held the same values before (`occurrence`), and to the one after it (`followed`: what an
induction head copies from). A head may look there for the distance alone, so the control is the same
attention in sequences of as many random values that do not repeat: an induction head looks at the
repetition, a positional one at the distance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import Component
from tsprune.arguments import checked
from tsprune.errors import TspruneError
from tsprune.hooks.attention import AttentionMap, require_heads, watching
from tsprune.models.forecaster import Forecaster
from tsprune.statistics import Sample, correlation_row

BLOCKS = (3, 5, 8)  # positions in a block
REPEATS = (2, 3, 4)
SEQUENCES = 16
TARGETS = ("occurrence", "followed")


@checked
def induction(
    model: Forecaster,
    *,
    blocks: Sequence[int] = BLOCKS,
    repeats: Sequence[int] = REPEATS,
    sequences: int = SEQUENCES,
    seed: int = 0,
) -> pd.DataFrame:
    """Attention to earlier occurrences of the same values, per head, block length and repeat count.

    blocks : lengths of the repeated block, in positions (patches or tokens) of the first stack
    repeats : how often the block is there; combinations longer than the context length are left out
    sequences : random sequences of each combination

    One row a head and combination: address, block, steps (its time steps), repeats; of each target
    (`TARGETS`) its mean share of attention, `_control` (in sequences that do not repeat), `_uniform`
    (of a head that attends evenly), and the score, `_score`: repeated minus control, with its 95 %
    interval over sequences (`_score_low`, `_score_high`). NaN for a head none of whose queries can
    reach a target. With several repeats, all earlier occurrences count.

    Raises TspruneError if the anatomy does not say where positions lie in time, nothing fits, or the
    model was pruned of all its heads.
    """
    require_heads(model)
    axis = model.anatomy.stacks[0].time
    if axis is None:
        raise TspruneError(f"{model.name}: its anatomy does not say where positions lie in time")
    fitting = [(b, r) for b in blocks for r in repeats if b * r * axis.span <= model.context_length]
    if not fitting:
        raise TspruneError(
            f"{model.name}: no block of {min(blocks)} positions fits {min(repeats)} times into a context of "
            f"{model.context_length} steps"
        )
    parts = []
    for block, times in fitting:
        steps = block * axis.span
        rng = np.random.default_rng([seed, block, times])
        once = rng.standard_normal((sequences, steps))
        repeated = np.tile(once, times)
        control = rng.standard_normal((sequences, steps * times))
        shares = [_shares(model, x.astype(np.float32), steps) for x in (repeated, control)]
        parts.append(_table(model, shares[0], shares[1], block, steps, times, seed))
    return pd.concat(parts, ignore_index=True)


_Shares = dict[tuple[Component, str], NDArray[np.float64]]


def _shares(model: Forecaster, contexts: NDArray[np.float32], steps: int) -> _Shares:
    """(sublayer, target or its uniform share) -> [sequences, heads]."""
    sums: _Shares = {}
    counts: _Shares = {}
    calls: dict[Component, int] = {}

    def add(found: AttentionMap) -> None:
        site = found.component
        done = calls.get(site, 0)
        calls[site] = done + len(found.weights)
        if model.anatomy.site(site).axis != "time":
            return
        rows = (done + np.arange(len(found.weights))) % len(contexts)
        axis = model.anatomy.key_stack(site).time
        assert axis is not None
        for name, (share, uniform, counted) in shares_of_rows(found, steps, axis.span).items():
            for what, values in ((name, share), (f"{name}_uniform", uniform)):
                total = torch.where(counted, values, 0).sum(-1).double().numpy(force=True)
                for store, value in ((sums, total), (counts, counted.sum(-1).double().numpy(force=True))):
                    table = store.setdefault((site, what), np.zeros((len(contexts), total.shape[1])))
                    np.add.at(table, rows, value)

    with torch.no_grad(), watching(model, add):
        model.teacher_forced(list(contexts))
    return {
        key: np.divide(total, counts[key], out=np.full_like(total, np.nan), where=counts[key] > 0)
        for key, total in sums.items()
    }


def shares_of_rows(found: AttentionMap, steps: int, span: int) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Target -> (attention to it, the same of an even head, which rows count), each [N, heads, Q].

    steps : time steps of the repeated block; span : of a key. Rows count that may see a target.
    """
    queries, keys = found.times
    lag = queries[:, None] - keys[None, :]
    allowed = found.allowed.expand_as(found.weights)
    result = {}
    for name, offset in (("occurrence", 0), ("followed", span)):
        # a block of one position is followed by itself: the query's own position is no target
        at = ((lag + offset) % steps == 0) & (lag + offset >= steps) & (lag > 0)
        visible = (allowed & at).sum(-1)
        result[name] = (
            (found.weights * at).sum(-1),
            visible / allowed.sum(-1).clamp_min(1),
            found.counted & (visible > 0),
        )
    return result


def _table(
    model: Forecaster, repeated: _Shares, control: _Shares, block: int, steps: int, times: int, seed: int
) -> pd.DataFrame:
    parts = []
    for site, described in model.anatomy.sites():
        if not described.heads:
            continue
        columns: dict[str, object] = {
            "address": [dataclasses.replace(site, head=head).address for head in described.numbers],
            "block": block,
            "steps": steps,
            "repeats": times,
        }
        nothing = np.full((1, described.heads), np.nan)
        for name in TARGETS:
            now = repeated.get((site, name), nothing)
            before = control.get((site, name), nothing)
            uniform = repeated.get((site, f"{name}_uniform"), nothing)
            score = Sample.of(now - before).estimates(seed=seed)
            columns |= {
                name: Sample.of(now).means(),
                f"{name}_control": Sample.of(before).means(),
                f"{name}_uniform": Sample.of(uniform).means(),
                f"{name}_score": score.value,
                f"{name}_score_low": score.low,
                f"{name}_score_high": score.high,
            }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def induction_and_parroting(found: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Do heads that look at repetitions make the forecast copy? Spearman's rho over heads.

    found : of `induction`; effects : `head_effects(...).heads`

    One row a target (`TARGETS`) and combination, and one of the mean over combinations (block and
    repeats NaN): rho of a head's score with the change of parroting without it, low, high (95 %
    over heads), p_value (of no relation), count. If induction heads carry
    parroting, rho is below 0.
    """
    change = effects.set_index("address")["parroting"]
    rows = []
    for name in TARGETS:
        scores = found.pivot(index="address", columns=["block", "repeats"], values=f"{name}_score")
        columns = {(np.nan, np.nan): scores.mean(axis=1), **dict(scores.items())}
        for (block, repeats), values in columns.items():
            both = change.reindex(values.index)
            result = correlation_row(values.to_numpy(), both.to_numpy())
            rows.append({"target": name, "block": block, "repeats": repeats} | result)
    return pd.DataFrame(rows)
