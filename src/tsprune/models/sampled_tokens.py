"""Sampling of tokens in numpy, as Chronos-T5 and transformers' `generate` do it, for exported models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tsprune.models.contexts import padded
from tsprune.models.sampled_paths import Floats, Graph, PathSampling, drawn_uniform

Tokens = NDArray[np.int64]
_ROWS = 320  # paths that are drawn together: each holds the keys and values of its tokens


@dataclasses.dataclass(frozen=True)
class TokenSampling(PathSampling):
    """How paths are drawn, token by token.

    steps : of one pass; longer forecasts go on from the median of the paths
    history : steps that the encoder sees
    tokens, special : size of the vocabulary, and its tokens that stand for no value
    pad, begin : of a missing value, and the first of a path
    end, ends : the token that is never drawn, and whether it follows the context
    low, high : the values of the first and the last bin, relative to the scale
    temperature, most_likely : logits are divided by the one, and the others beyond this many are not drawn
    heads, head_dim : of the decoder's cache
    """

    kind: ClassVar[str] = "tokens"
    history: int
    tokens: int
    special: int
    pad: int
    end: int
    ends: bool
    begin: int
    low: float
    high: float
    temperature: float
    most_likely: int
    heads: int
    head_dim: int

    def counts(self) -> tuple[int, ...]:
        return self.history, self.most_likely, self.heads, self.head_dim, self.tokens - self.special - 2

    def problem(self) -> str:
        known = self.special >= 0 and self.low < self.high and self.temperature > 0
        return "" if known else "the special tokens, the limits or the temperature"

    def together(self, horizon: int) -> int:
        return max(1, _ROWS // self.samples)

    @property
    def centers(self) -> Floats:
        """The values of the bins, as torch.linspace computes them: from both ends."""
        count = self.tokens - self.special - 1
        low, high = np.float32(self.low), np.float32(self.high)
        step = np.float64((high - low) / np.float32(count - 1))
        places = np.arange(count)  # in double precision, which rounds a product and a sum once, as torch does
        return np.where(places < count // 2, low + step * places, high - step * places[::-1]).astype(
            np.float32
        )

    def read(self, context: Floats) -> tuple[Tokens, NDArray[np.bool_], Floats]:
        """Tokens [B, T], which are observed [B, T], and the scale [B] of contexts [B, T], as upstream's."""
        observed = ~np.isnan(context)
        size = np.where(observed, np.abs(context), 0).sum(axis=1, dtype=np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = (size / observed.sum(axis=1)).astype(np.float32)
        scale[~(scale > 0)] = 1.0
        centers = self.centers
        borders = np.concatenate([[-1e20], (centers[1:] + centers[:-1]) / 2, [1e20]]).astype(np.float32)
        tokens = np.searchsorted(borders, context / scale[:, None], side="right") + self.special
        tokens = np.where(observed, np.clip(tokens, 0, self.tokens - 1), self.pad)
        if self.ends:
            tokens = np.pad(tokens, ((0, 0), (0, 1)), constant_values=self.end)
            observed = np.pad(observed, ((0, 0), (0, 1)), constant_values=True)
        return tokens.astype(np.int64), observed, scale

    def values(self, tokens: Tokens, scale: Floats) -> Floats:
        """The values [B, S, H] of tokens [B, S, H]."""
        centers = self.centers
        found: Floats = centers[np.clip(tokens - self.special - 1, 0, len(centers) - 1)]
        return found * scale[:, None, None]

    def drawn(self, logits: Floats, uniform: NDArray[np.float64]) -> Tokens:
        """Tokens [B, S] from logits [B, S, tokens] by uniform numbers [B, S]."""
        scores = logits.copy()
        scores[..., self.end] = -np.inf
        count = min(self.most_likely, self.tokens)
        likely = np.sort(np.argpartition(scores, -count, axis=-1)[..., -count:], axis=-1)
        scores = np.take_along_axis(scores, likely, axis=-1) / np.float32(self.temperature)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float64).cumsum(axis=-1)
        place = (shares < (uniform * shares[..., -1])[..., None]).sum(axis=-1).clip(max=count - 1)
        found: Tokens = np.take_along_axis(likely, place[..., None], axis=-1)[..., 0]
        return found

    def paths(self, series: Sequence[Floats], horizon: int, encode: Graph, step: Graph) -> Floats:
        context, streams = padded(series), self.streams(series)
        parts: list[Floats] = []
        while (left := horizon - sum(part.shape[2] for part in parts)) > 0:
            tokens, observed, scale = self.read(context[:, -self.history :])
            crossing = encode(tokens, observed)
            drawn = self._decoded(streams, min(left, self.steps), [*crossing, observed], step)
            parts.append(self.values(drawn, scale))
            ordered = np.sort(parts[-1], axis=1)  # torch's median is the lower one of two
            context = np.concatenate([context, ordered[:, (self.samples - 1) // 2]], axis=1)
        return np.concatenate(parts, axis=2)

    def _decoded(
        self, streams: Sequence[np.random.Generator], steps: int, encoded: Sequence[Any], step: Any
    ) -> Tokens:
        shape = len(streams), self.samples
        keys, values = np.zeros((2, *shape, self.heads, self.steps, self.head_dim), np.float32)
        last, found = np.full(shape, self.begin, np.int64), []
        for place in range(steps):
            logits, key, value = step(last, np.array([place]), keys, values, *encoded)
            keys[..., place, :], values[..., place, :] = key, value
            last = self.drawn(logits, drawn_uniform(streams, (self.samples,)))
            found.append(last)
        return np.stack(found, axis=2)
