"""Stable rank of attention heads: over how many modes the energy of the query-key form is spread.

sr(A) = ||A||_F^2 / ||A||_2^2 with A = W_Q W_K^T (arXiv 2602.01605). A is d_model x d_model but has
rank at most head_dim: with W_Q = Q_Q R_Q and W_K = Q_K R_K its singular values are those of the
small matrix R_Q R_K^T, so A is never formed.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from tsprune.anatomy import AttentionSite, Projection
from tsprune.models.forecaster import Forecaster

Variant = Literal["paper", "effective"]


def singular_values(query: Tensor, key: Tensor) -> Tensor:
    """Singular values of W_Q W_K^T for every head.

    query, key : [heads, d_model, head_dim]; returns float64 [heads, head_dim], descending
    """
    values: Tensor = torch.linalg.svdvals(triangular(query) @ triangular(key).mT)
    return values


def triangular(weights: Tensor) -> Tensor:
    """R of the QR factorisation of each head's [d_model, head_dim]; float64."""
    r: Tensor = torch.linalg.qr(weights.double(), mode="r").R
    return r


def stable_rank(values: Tensor) -> Tensor:
    """||A||_F^2 / ||A||_2^2 from singular values [..., n]; NaN where A is zero."""
    squares = values**2
    return squares.sum(-1) / squares.amax(-1)


def head_weights(model: Forecaster, projection: Projection, heads: list[int]) -> Tensor:
    """Projections of `heads` as the model computes them, [len(heads), d_model, head_dim]."""
    weight = model.module.get_submodule(projection.module).get_parameter("weight").detach()
    rows = torch.tensor([list(projection.rows(head)) for head in heads], device=weight.device)
    return weight[rows].mT


def query_key_factor(model: Forecaster, site: AttentionSite) -> Tensor:
    """The factor of q . k per dimension that does not depend on data (norm weights, scales), [query_dim]."""
    product = torch.ones(site.query.head_dim, dtype=torch.float64, device=model.device)
    for factor in site.factors:
        value = model.module.get_parameter(factor.parameter).detach().double()
        product = product * (torch.nn.functional.softplus(value) if factor.transform == "softplus" else value)
    return product


def query_key(model: Forecaster, site: AttentionSite, variant: Variant) -> tuple[Tensor, Tensor]:
    """(W_Q, W_K) of every head of a site, each float64 [heads, d_model, query_dim].

    "paper" is the plain projections; "effective" includes the factors of q . k per dimension.
    """
    query = head_weights(model, site.query, list(range(site.heads))).double()
    key = head_weights(model, site.key, [site.key_head(head) for head in site.numbers]).double()
    if variant == "effective":
        query = query * query_key_factor(model, site)
    return query, key


def stable_ranks(model: Forecaster) -> pd.DataFrame:
    """Both variants of the stable rank of every head, one row per head in order of execution.

    Columns: address, stack, layer, attention, head, stable_rank, stable_rank_effective.

    Raises TspruneError for NaN or infinite weights.
    """
    model.require_finite_weights()
    rows = []
    for sublayer, site in model.anatomy.sites():
        if not site.heads:  # a pruned sublayer may keep its output bias only
            continue
        # the two QRs take nearly all the time, so both variants share them: W_Q D = Q (R D)
        query, key = map(triangular, query_key(model, site, "paper"))
        scaled = query * query_key_factor(model, site)
        plain = stable_rank(torch.linalg.svdvals(query @ key.mT)).tolist()
        effective = stable_rank(torch.linalg.svdvals(scaled @ key.mT)).tolist()
        for place, head in enumerate(site.numbers):
            rows.append(
                {
                    "address": f"{sublayer}.head.{head}",
                    "stack": sublayer.stack,
                    "layer": sublayer.layer,
                    "attention": site.role,
                    "head": head,
                    "stable_rank": plain[place],
                    "stable_rank_effective": effective[place],
                }
            )
    return pd.DataFrame(rows)
