"""Stable ranks and scores of a checkpoint compared with published tables.

A table of stable ranks has one row a head: checkpoint, attention, layer, head, stable_rank, and
stack where a kind of attention is in more than one. A table of scores has one row a configuration
and model: config, model, MASE, CRPS. Both may hold other columns, and other models.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tsprune.anatomy import Anatomy, AttentionSite, Component
from tsprune.choices import RANKED_METRICS
from tsprune.errors import TspruneError
from tsprune.files import existing_file, reason
from tsprune.models.forecaster import Forecaster
from tsprune.scores.stable_rank import query_key, singular_values, stable_rank, stable_ranks
from tsprune.statistics.estimate import spearman

RANK_COLUMNS = ("checkpoint", "attention", "layer", "head", "stable_rank")
SCORE_COLUMNS = ("config", "model", "MASE", "CRPS")
# tables are rounded to four decimals and may be of weights in half precision, which moves a stable
# rank by about 1e-5; mixing up heads or sublayers moves most of them by tens of percent
RANK_TOLERANCE = 1e-3
# published scores differ by hardware, batching and, for models that sample, by the draws
SCORE_TOLERANCE = 0.02


def read_table(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """The CSV file at `path`; TspruneError if it cannot be read or lacks one of `columns`.

    Layers and heads must be whole numbers, stable ranks and scores numbers.
    """
    path = existing_file(path, "table")
    try:
        table = pd.read_csv(path, low_memory=False)
    except OSError as error:
        raise TspruneError(f"cannot read the table {path} ({reason(error)})") from None
    except Exception as error:  # pandas and what unpacks a .gz raise whatever the bytes lead to
        raise TspruneError(f"{path} is not a CSV table ({' '.join(str(error).split())})") from None
    missing = [name for name in columns if name not in table]
    if missing:
        needed = ", ".join(columns)
        raise TspruneError(f"the table {path} has no column {', '.join(missing)}; it needs {needed}")
    for name in columns:
        if name in ("layer", "head"):
            whole = pd.to_numeric(table[name], errors="coerce")
            if not (whole >= 0).all() or not (whole % 1 == 0).all():
                raise TspruneError(f"the column {name} of {path} must hold whole numbers from 0")
        elif name in (*RANKED_METRICS, "stable_rank") and table[name].dtype.kind not in "fiu":
            raise TspruneError(f"the column {name} of {path} must hold numbers")
    return table


def model_in_table(asked: str, names: Sequence[str]) -> str:
    """Which of a table's model `names` is meant by a checkpoint's name (hub id, directory) or `--model`.

    The same spelling counts first, then the same last part of a path, then one being the other's
    beginning (timesfm-2.5-200m-pytorch is timesfm-2.5-200m); punctuation and case never count.

    Raises TspruneError, listing the names, if none or several fit.
    """
    if asked in names:
        return asked
    last = _words(_last(asked))
    for fits in (
        [name for name in names if _words(_last(name)) == last],
        [name for name in names if last and all(map(operator.eq, _words(_last(name)), last))],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            break
    known = ", ".join(sorted(names))
    raise TspruneError(f"no single model of the table fits {asked!r}; name one with --model: {known}")


def _last(name: str) -> str:
    return re.split(r"[/\\:]", name.rstrip("/\\"))[-1]


def _words(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", name.lower()))


@dataclasses.dataclass(frozen=True)
class RankComparison:
    """Computed stable ranks beside a reference's.

    model : its name in the table
    heads : one row a head of the table; columns address, stable_rank, reference, difference
        (relative to the reference, not negative)
    total : heads of the sublayers that the table is about, those it leaves out included
    tolerance : largest difference that counts as equal
    correlation : Spearman correlation of the two over the heads; NaN for fewer than three heads
    explanation : one line on a disagreement that is to be expected, "" otherwise
    """

    model: str
    heads: pd.DataFrame
    total: int
    tolerance: float
    correlation: float
    explanation: str

    @property
    def worst(self) -> pd.Series:  # type: ignore[type-arg]
        """The row of the head with the largest difference."""
        return self.heads.loc[self.heads["difference"].idxmax()]

    @property
    def wrong(self) -> pd.DataFrame:
        """The heads beyond the tolerance, worst first."""
        beyond = self.heads[~(self.heads["difference"] <= self.tolerance)]
        return beyond.sort_values("difference", ascending=False, kind="stable")

    @property
    def holds(self) -> bool:
        """Whether every head is within the tolerance."""
        return bool(self.wrong.empty)


def compare_stable_ranks(
    model: Forecaster, table: pd.DataFrame, name: str | None = None, *, tolerance: float = RANK_TOLERANCE
) -> RankComparison:
    """Compares the stable rank ("paper" variant) of every head of a table with that of `model`.

    table : as `read_table` returns it with `RANK_COLUMNS`
    name : which model of the table it is; None goes by the checkpoint's name
    tolerance : largest relative difference that counts as equal

    Raises TspruneError if the model is not in the table, or lacks heads that the table has.
    """
    chosen = model_in_table(name or model.name, table["checkpoint"].astype(str).unique().tolist())
    rows = table[table["checkpoint"].astype(str) == chosen]
    components = [_component(model.anatomy, chosen, row) for row in rows.to_dict("records")]
    addresses = [component.address for component in components]
    if len(set(addresses)) < len(addresses):
        twice = next(address for address in addresses if addresses.count(address) > 1)
        raise TspruneError(f"the table has {twice} of {chosen} more than once")
    reference = rows["stable_rank"].to_numpy(dtype=np.float64)
    computed = stable_ranks(model).set_index("address")["stable_rank"].loc[addresses].to_numpy()
    heads = pd.DataFrame({"address": addresses, "stable_rank": computed, "reference": reference})
    heads["difference"] = _relative(computed, reference)
    sublayers = {dataclasses.replace(component, head=None) for component in components}
    total = sum(model.anatomy.site(sublayer).heads for sublayer in sublayers)
    rho = spearman(computed, reference)
    found = RankComparison(chosen, heads, total, tolerance, rho, explanation="")
    if found.holds:
        return found
    return dataclasses.replace(found, explanation=_explanation(model, components, reference, tolerance))


def _relative(computed: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Relative difference; infinite where either side is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.abs(computed - reference) / np.abs(reference)
    return np.where(np.isnan(difference), np.inf, difference)


def _component(anatomy: Anatomy, model: str, row: dict[str, object]) -> Component:
    kind, layer, head = str(row["attention"]), int(float(str(row["layer"]))), int(float(str(row["head"])))
    named = row.get("stack")
    stacks = [s for s in anatomy.stacks if named is None or named != named or s.name == named]
    blocks = {s.name: s.blocks[layer] for s in stacks if layer < len(s.blocks)}
    # "self" is also what tables call attention over time or variates, the first of its block
    places = [
        (stack, site)
        for stack, block in blocks.items()
        for position, site in enumerate(block.attention)
        if site.role == kind or (kind == "self" and position == 0 and site.role in ("time", "variate"))
    ]
    if len(places) > 1:
        raise TspruneError(
            f"{kind}-attention is in {' and '.join(stack for stack, _ in places)}; "
            "add a column stack that names the one the table is about"
        )
    if not places or head >= places[0][1].heads:
        raise TspruneError(
            f"the table has {kind}-attention, layer {layer}, head {head} of {model}, which this checkpoint "
            "lacks; name another model of the table with --model"
        )
    stack, site = places[0]
    return Component(stack, layer, site.role, head)


def _explanation(
    model: Forecaster, components: Sequence[Component], reference: np.ndarray, tolerance: float
) -> str:
    """Whether the disagreement is that of a fused projection cut as if its heads were contiguous."""
    sites = {component: model.anatomy.site(component) for component in components}
    if not any(site.query.interleaved for site in sites.values()):
        return ""
    mixed = {site: _contiguous_stable_ranks(model, site) for site in set(sites.values())}
    cut = np.array([mixed[sites[c]][c.head or 0] for c in components])
    worst = float(_relative(cut, reference).max())
    so = (
        f"cut so, this checkpoint gives the table to within {100 * worst:.2g} %"
        if worst <= tolerance
        else f"but cut so, this checkpoint is off the table by up to {100 * worst:.2g} % as well"
    )
    return (
        f"expected for {model.family}: published ranks cut the fused query-key-value rows contiguously, "
        f"which mixes heads that the model interleaves ({so})"
    )


def _contiguous_stable_ranks(model: Forecaster, site: AttentionSite) -> list[float]:
    contiguous = dataclasses.replace(
        site,
        query=dataclasses.replace(site.query, interleaved=False),
        key=dataclasses.replace(site.key, interleaved=False),
    )
    ranks: list[float] = stable_rank(singular_values(*query_key(model, contiguous, "paper"))).tolist()
    return ranks


@dataclasses.dataclass(frozen=True)
class ScoreComparison:
    """Evaluated scores beside published ones.

    model : its name in the table
    configurations : one row a configuration that is in both; columns configuration, MASE,
        published_MASE, MASE_difference, CRPS, published_CRPS, CRPS_difference (relative, signed)
    missing : configurations that were evaluated but are not published for this model
    tolerance : largest difference (either way) that counts as equal
    """

    model: str
    configurations: pd.DataFrame
    missing: tuple[str, ...]
    tolerance: float

    @property
    def wrong(self) -> pd.DataFrame:
        """The configurations of which a metric is beyond the tolerance."""
        far = [
            ~(self.configurations[f"{metric}_difference"].abs() <= self.tolerance)
            for metric in RANKED_METRICS
        ]
        return self.configurations[far[0] | far[1]]

    @property
    def holds(self) -> bool:
        """Whether both metrics of every configuration are within the tolerance."""
        return bool(self.wrong.empty)


def compare_scores(
    scores: pd.DataFrame, table: pd.DataFrame, name: str, *, tolerance: float = SCORE_TOLERANCE
) -> ScoreComparison:
    """Compares the scores that `tsprune.evaluate` returned with published MASE and CRPS.

    scores : columns configuration, MASE, CRPS
    table : as `read_table` returns it with `SCORE_COLUMNS`
    name : which model of the table it is (see `model_in_table`)
    tolerance : largest relative difference that counts as equal

    Raises TspruneError if the model is not in the table, or no configuration is in both.
    """
    chosen = model_in_table(name, table["model"].astype(str).unique().tolist())
    published = table[table["model"].astype(str) == chosen].drop_duplicates("config").set_index("config")
    known = scores["configuration"].isin(published.index)
    missing = tuple(scores["configuration"][~known])
    if not known.any():
        raise TspruneError(
            f"no configuration that was evaluated is published for {chosen}; choose others with --configs"
        )
    ours = scores[known].set_index("configuration")
    columns: dict[str, object] = {"configuration": list(ours.index)}
    for metric in RANKED_METRICS:
        theirs = published.loc[ours.index, metric].to_numpy(dtype=np.float64)
        own = ours[metric].to_numpy(dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = own / theirs - 1
        columns |= {metric: own, f"published_{metric}": theirs, f"{metric}_difference": difference}
    return ScoreComparison(chosen, pd.DataFrame(columns), missing, tolerance)
