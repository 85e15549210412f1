"""Law 8: stable ranks are those of the q . k that a model computes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsprune.anatomy import AttentionSite
from tsprune.models import Forecaster
from tsprune.models.substitution import substituted_forwards
from tsprune.scores.stable_rank import stable_ranks
from tsprune.testing.probes import QueriesAndKeys
from tsprune.testing.subject import Output, Subject


@contextmanager
def _projections_only(model: Forecaster, site: AttentionSite, *, factors: bool) -> Iterator[None]:
    """q and k without biases and norms, but with data-independent `factors` if wanted."""
    forwards: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {}
    for path in {site.query.module, site.key.module}:
        linear: Any = model.module.get_submodule(path)
        forwards[path] = linear, functools.partial(nn.functional.linear, weight=linear.weight)
    for factor in site.factors:
        path, _, name = factor.parameter.rpartition(".")
        module: Any = model.module.get_submodule(path)
        if not factors:
            forwards[path] = module, torch.Tensor.clone
        elif factor.transform == "identity":
            forwards[path] = module, functools.partial(torch.mul, getattr(module, name))
    with substituted_forwards(forwards.values()):
        yield


def dense_stable_ranks(subject: Subject, site: AttentionSite, *, factors: bool) -> Output:
    """Stable ranks [heads], by a dense SVD of each head's q . k as the module computes it."""
    width = subject.model.anatomy.d_model
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, generator=generator)).Q
    with torch.no_grad(), _projections_only(subject.model, site, factors=factors), QueriesAndKeys() as mode:
        subject.attend(subject.model, site, x.float()[:, None].to(subject.model.device))
    assert len(mode.seen) == 1, f"{site.module} calls torch's attention {len(mode.seen)} times"
    query, key = (part.cpu().flatten(1, -3)[:, :, 0].double() for part in mode.seen[0])
    shape = width, site.heads, site.query.head_dim
    assert query.shape == shape, f"{site.module}: queries are {query.shape}"
    key = key.repeat_interleave(site.heads // key.shape[1], 1)
    observed = torch.einsum("ihd,jhd->hij", query, key)  # X A X^T with X orthogonal
    values = torch.linalg.svdvals(x.T @ observed @ x)
    ranks: Output = ((values**2).sum(-1) / values[:, 0] ** 2).numpy()
    return ranks


def stable_ranks_are_of_what_the_model_computes(subject: Subject) -> None:
    table = stable_ranks(subject.model).set_index("address")
    for sublayer, site in subject.model.anatomy.sites():
        if not site.heads:
            continue
        heads = [str(dataclasses.replace(sublayer, head=number)) for number in site.numbers]
        for column, factors in (("stable_rank", False), ("stable_rank_effective", True)):
            expected = dense_stable_ranks(subject, site, factors=factors)
            actual = table.loc[heads, column].to_numpy()
            message = f"{sublayer}: {column}"
            np.testing.assert_allclose(actual, expected, rtol=1e-3, err_msg=message)
