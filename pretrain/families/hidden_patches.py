"""Batches for models that see a whole history at once: Chronos-Bolt and Chronos-2.

One target per window is sparse supervision: without help such a model stays for long on a plateau where it
has not learnt periodicity. So patches are hidden from the input and rebuilt; and batches of short contexts,
which are cheap, come more often in the beginning.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from tsprune.data.training import CLIP, Windows

Contexts = tuple[int, int, int, int]

EARLY, LATE = np.array([0.35, 0.35, 0.2, 0.1]), np.array([0.1, 0.15, 0.2, 0.55])


@dataclasses.dataclass(frozen=True)
class Batch:
    """B histories of N patches of P steps, normalised, and what follows.

    patches : [B, N, P]
    seen : bool [B, N, P]; a history need not fill the context
    hidden : bool [B, N, 1], patches to rebuild
    target : [B, horizon]
    usable : [B, 1], 1 where the history varies, else 0
    """

    patches: Tensor
    seen: Tensor
    hidden: Tensor
    target: Tensor
    usable: Tensor

    @property
    def to_rebuild(self) -> Tensor:
        """Weights of the rebuilt values, [B, N, P]."""
        return (self.hidden & self.seen) * self.usable[..., None]


def draw(windows: Windows, step: int, progress: float, *, patch: int, contexts: Contexts) -> Batch:
    """A batch of windows [B, context + horizon]; lengths, cuts and hidden patches are drawn by `step`.

    progress : share of the training that is over
    contexts : lengths of history, ascending; the last is that of the windows
    """
    rng = np.random.default_rng([step, 17])
    early = max(0.0, 1 - progress / 0.4)
    length = int(rng.choice(contexts, p=early * EARLY + (1 - early) * LATE))
    x = torch.from_numpy(windows[:, contexts[-1] - length :])
    context, target = x[:, :length], x[:, length:]
    short = rng.random(len(x)) < 0.35
    cut = np.where(short, rng.integers(0, length - 2 * patch, len(x)), 0)
    observed = torch.from_numpy(np.arange(length)[None] >= cut[:, None])

    count = observed.sum(1, keepdim=True)
    mean = (context * observed).sum(1, keepdim=True) / count
    deviation = (((context - mean) * observed) ** 2).sum(1, keepdim=True).div(count).sqrt()
    usable = (deviation > 0.05).float()
    safe = deviation.clamp_min(0.05)
    context = ((context - mean) / safe).clamp(-CLIP, CLIP) * observed
    target = ((target - mean) / safe).clamp(-CLIP, CLIP)

    patches = context.view(len(x), -1, patch)
    seen = observed.view(len(x), -1, patch)
    hidden = torch.from_numpy(_hidden_patches(len(x), patches.shape[1], rng))[..., None]
    return Batch(patches, seen, hidden, target, usable)


def _hidden_patches(count: int, patches: int, rng: np.random.Generator) -> np.ndarray:
    """Which patches to hide [count, patches]: scattered ones, or one run; none in a third."""
    share = rng.uniform(0.1, 0.35, (count, 1))
    scattered = rng.random((count, patches)) < share
    length = np.maximum(1, (share * patches).astype(int))
    start = (rng.random((count, 1)) * (patches - length)).astype(int)
    position = np.arange(patches)[None]
    run = (position >= start) & (position < start + length)
    kind = rng.random((count, 1))
    return np.where(kind < 0.35, scattered, np.where(kind < 0.65, run, False))
