"""Scores of heads from their attention maps, reduced map by map.

The score of a map with a single key is NaN, and so is the rank of a map with a single query.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tsprune.hooks.attention import AttentionMap

# a statistic of each map, [N, heads], NaN where it is undefined
Reduction = Callable[[AttentionMap], Tensor]


def attention_entropy(found: AttentionMap) -> Tensor:
    """Mean entropy in nats of the rows with a choice of keys, [N, heads]."""
    return _mean_over(found.counted, found.entropy)


def attention_sharpness(found: AttentionMap) -> Tensor:
    """Mean of 1 - entropy / log(keys) over the rows with a choice of keys, [N, heads]."""
    return _mean_over(found.counted, found.sharpness)


def attention_stable_rank(found: AttentionMap) -> Tensor:
    """||A||_F^2 / ||A||_2^2 of each map A, [N, heads]."""
    energies = map_energies(found)
    return energies.sum(-1) / energies.amax(-1)


def attention_entropic_rank(found: AttentionMap) -> Tensor:
    """exp(-sum p log p) with p = s^2 / sum s^2 over the singular values of each map, [N, heads]."""
    energies = map_energies(found)
    share = energies / energies.sum(-1, keepdim=True)
    return torch.exp(torch.special.entr(share).sum(-1))


def map_energies(found: AttentionMap) -> Tensor:
    """Squared singular values of each map over its rows without padding, float64 [N, heads, n].

    Computed as eigenvalues of A A^T or A^T A, whichever is smaller: much cheaper than an SVD, and rounding
    of the small ones does not matter for sums of energy. NaN where no row has a choice of keys, or where
    there is only one row, whose rank is 1 for any head.
    """
    chosen = (found.counted.any(-1) & (found.real.sum(-1) > 1))[..., None]
    maps = torch.where(found.real[..., None], found.weights, 0)
    energies = []
    for window in maps:  # one at a time: the Gram matrices of a batch of long ones would be large
        rows = window.double()
        gram = rows @ rows.mT if rows.shape[-2] <= rows.shape[-1] else rows.mT @ rows
        energies.append(torch.linalg.eigvalsh(gram).clamp_min(0))
    return torch.where(chosen, torch.stack(energies), torch.nan)


def _mean_over(counted: Tensor, rows: Tensor) -> Tensor:
    """Mean of `rows` [N, heads, Q] where `counted`; NaN where nothing is."""
    total = torch.where(counted, rows, 0).double().sum(-1)
    return total / counted.sum(-1)  # 0 / 0 is NaN
