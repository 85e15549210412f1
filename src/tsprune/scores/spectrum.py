"""Scores of attention heads from their weights alone: spectra and norms of W_Q W_K^T and W_V W_O.

Both products are d_model x d_model of rank at most head_dim and never formed: their singular values
are those of R_1 R_2^T with the QR factors of the two sides (see `stable_rank`).
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from tsprune.anatomy import AttentionSite
from tsprune.models.forecaster import Forecaster
from tsprune.scores.stable_rank import head_weights, query_key, singular_values

SPECTRUM_SCORES = (
    "entropic_rank",
    "query_key_spectral_norm",
    "query_key_frobenius_norm",
    "value_output_spectral_norm",
    "value_output_frobenius_norm",
)


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
