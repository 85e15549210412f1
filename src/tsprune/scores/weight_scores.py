"""Scores from the weights alone: stable ranks, spectra and norms of heads, and magnitudes of all components.

W_Q W_K^T and W_V W_O are d_model x d_model of rank at most head_dim and never formed: their singular values
are those of R_1 R_2^T with the QR factors of the two sides (see `stable_rank`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from tsprune.anatomy import KINDS, AttentionSite, Component, Kind
from tsprune.models.forecaster import Forecaster
from tsprune.scores.score import Order, Score, ScoringTask, Values
from tsprune.scores.stable_rank import head_weights, query_key, singular_values, stable_ranks

STABLE_RANKS = ("stable_rank", "stable_rank_effective")
MAGNITUDE = "weight_magnitude"
SPECTRUM_SCORES = (
    "entropic_rank",
    "query_key_spectral_norm",
    "query_key_frobenius_norm",
    "value_output_spectral_norm",
    "value_output_frobenius_norm",
)


def measure_weights(task: ScoringTask) -> Mapping[str, Values]:
    """`WEIGHT_SCORES`: of heads from the tables of `stable_ranks` and `spectra`, and magnitudes."""
    names = [score.name for score in task.scores]
    found: dict[str, Values] = {}
    for table, its in ((stable_ranks, STABLE_RANKS), (spectra, SPECTRUM_SCORES)):
        columns = [name for name in names if name in its]
        if columns and task.model.anatomy.components("head"):
            frame = table(task.model)
            heads = [Component.parse(address) for address in frame["address"]]
            found |= {name: dict(zip(heads, frame[name].tolist(), strict=True)) for name in columns}
    if MAGNITUDE in names:
        found[MAGNITUDE] = {c: magnitude(task.model, c) for c in task.scored_by(MAGNITUDE)}
    return {name: found.get(name, {}) for name in names}


def magnitude(model: Forecaster, component: Component) -> float:
    """Root mean square of the entries of all weight matrices of a component; NaN if it has none.

    Vectors (biases, scales of norms) do not count; matrices that several heads share count for each.
    """
    squares, count = _squares(model, component)
    return (squares / count) ** 0.5 if count else float("nan")


def _squares(model: Forecaster, component: Component) -> tuple[float, int]:
    """(sum of squares, number) of the weights of a component."""
    matrices: list[Tensor] = []
    anatomy = model.anatomy
    if component.kind in ("head", "attention"):
        site = anatomy.site(component)
        if site.heads:
            sides = head_matrices(model, site)
            rows = slice(None) if component.head is None else site.position(component.head)
            matrices = [side[rows] for side in sides]
    elif component.kind == "mlp":
        mlp = anatomy.mlp(component)
        modules = (model.module.get_submodule(path) for path in (*mlp.others, mlp.output))
        matrices = [p.detach() for module in modules for p in module.parameters() if p.dim() > 1]
    else:
        parts = [_squares(model, part) for part in anatomy.expand([component])]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)
    return sum(float((x.double() ** 2).sum()) for x in matrices), sum(x.numel() for x in matrices)


# --- spectra of heads ----------------------------------------------------------------------------


def entropic_rank(values: Tensor) -> Tensor:
    """Effective number of modes of singular values [..., n], between 1 and n; NaN where all are 0.

    exp of the entropy of p = s^2 / sum s^2. Source: Roy & Vetterli (2007), The effective rank,
    with squared singular values (energy) as in the stable rank.
    """
    share = values**2 / (values**2).sum(-1, keepdim=True)
    return torch.exp(torch.special.entr(share).sum(-1))


def value_output(model: Forecaster, site: AttentionSite) -> tuple[Tensor, Tensor]:
    """(W_V, W_O^T) of every head of a site, each float64 [heads, d_model, head_dim].

    W_V W_O maps a position to what the head adds to the residual stream per unit of attention to it.
    """
    heads = site.numbers
    value = head_weights(model, site.value, [site.key_head(head) for head in heads]).double()
    weight = model.module.get_submodule(site.output).get_parameter("weight").detach().double()
    return value, torch.stack([weight[:, site.columns(head)] for head in heads])


def head_matrices(model: Forecaster, site: AttentionSite) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_Q, W_K, W_V and W_O^T of every head of a site, float64 [heads, d_model, head_dim] each."""
    return (*query_key(model, site, "paper"), *value_output(model, site))


def spectra(model: Forecaster) -> pd.DataFrame:
    """Weight scores of every head, one row per head in order of execution.

    Columns: address, and `SPECTRUM_SCORES`: the entropic rank of W_Q W_K^T; largest singular value
    and Frobenius norm of W_Q W_K^T and of W_V W_O.

    Raises TspruneError for NaN or infinite weights.
    """
    model.require_finite_weights()
    rows = []
    for sublayer, site in model.anatomy.sites():
        if site.heads:  # a pruned sublayer may keep its output bias only
            addresses = [f"{sublayer}.head.{head}" for head in site.numbers]
            rows.append(pd.DataFrame({"address": addresses, **_site_scores(model, site)}))
    return pd.concat(rows, ignore_index=True)


def _site_scores(model: Forecaster, site: AttentionSite) -> dict[str, list[float]]:
    sides = head_matrices(model, site)
    attention, writing = singular_values(*sides[:2]), singular_values(*sides[2:])
    columns = (
        entropic_rank(attention),
        attention.amax(-1),
        attention.norm(dim=-1),
        writing.amax(-1),
        writing.norm(dim=-1),
    )
    return {name: column.tolist() for name, column in zip(SPECTRUM_SCORES, columns, strict=True)}


# --- the scores ----------------------------------------------------------------------------------


def _score(
    name: str, about: str, redundant: Order = "low-to-high", kinds: tuple[Kind, ...] = ("head",)
) -> Score:
    return Score(name, kinds, redundant, "weights", about, measure_weights)


WEIGHT_SCORES = (
    _score(
        "stable_rank",
        "||A||_F^2 / ||A||_2^2 of A = W_Q W_K^T: how many modes share its energy (arXiv 2602.01605)",
        "high-to-low",
    ),
    _score(
        "stable_rank_effective",
        "the same with the q/k norm weights and per-dimension scales that act on q . k folded in",
        "high-to-low",
    ),
    _score(
        "entropic_rank",
        "exp(-sum p log p), p = s^2 / sum s^2 over the singular values of W_Q W_K^T (Roy & Vetterli, 2007)",
        "high-to-low",
    ),
    _score("query_key_spectral_norm", "largest singular value of W_Q W_K^T"),
    _score("query_key_frobenius_norm", "Frobenius norm of W_Q W_K^T"),
    _score("value_output_spectral_norm", "largest singular value of W_V W_O"),
    _score("value_output_frobenius_norm", "Frobenius norm of W_V W_O"),
    _score(
        MAGNITUDE,
        "root mean square of the component's weight matrices (magnitude pruning: Han et al., "
        "arXiv 1506.02626)",
        kinds=KINDS,
    ),
)
