"""Chronos-T5: cross-entropy of quantised values, all tokens of the horizon at once.

Upstream's scaling only divides by the mean absolute value, so windows are shifted at random: a
level far from zero is met as well. What lets few windows teach a model of single values:

1. Windows are cut into pieces, short ones first, each with a short horizon. In a long horizon nearly
   every value is best predicted by the one before it, and cross-attention learns nothing: such a
   model does not even know where its context ended.
2. It starts from the order that upstream's vocabulary has and a random embedding hides: embeddings
   are random Fourier features of a bin's centre (Rahimi and Recht 2007), so near values look alike.
3. Attention starts as a mixture of looking at neighbours, at what is near and at what looks alike,
   and copies what it finds ("mimetic initialisation", Trockman and Kolter 2023, arXiv 2305.09828).
4. The encoder rebuilds hidden values, with a weight that falls to zero.
5. From coarse to fine: bins of a first run are split for a second one (`refine`), which has upstream's
   vocabulary and meets levels far above the variation around them, where a coarse bin swallows all.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from chronos.chronos import ChronosConfig, MeanScaleUniformBins
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from pretrain.families.t5 import OUTPUT_SCALE, narrow_outputs, t5_config
from pretrain.loop import Losses, Objective
from tsprune.data.training import Windows

# how often a window is left around zero, shifted a few deviations, put on zero, lifted far above it
COARSE_LEVELS, LEVELS = (0.4, 0.6, 0.0, 0.0), (0.2, 0.3, 0.2, 0.3)
FAR = 3.0, 60.0  # levels far above zero, in standard deviations of the window
UPWARDS = 0.85  # of those; as in most data of the world

# pieces a window is cut into, and the share of a piece that is its horizon
CUTS = ((5, 1 / 16), (3, 3 / 16), (2, 1 / 4), (1, 1 / 4))
# (progress until which it holds, how often each of `CUTS`)
FIRST_STAGES = ((0.1, (1.0, 0.0, 0.0, 0.0)), (0.35, (0.2, 0.5, 0.3, 0.0)), (1.0, (0.1, 0.25, 0.3, 0.35)))
STAGES = ((1.0, (0.05, 0.25, 0.3, 0.4)),)

SPECIAL_TOKENS = 3  # before the first bin: padding, end, and one that upstream leaves unused
# `tsprune evaluate DIR --samples 7` with 1, 0.8 and 0.6 in config.json: CRPS 0.961, 0.939, 0.945
TEMPERATURE = 0.8
TOP_K = 200  # a sampled value is one of so many bins; wider than upstream's 50, still without far tails
PERIODS = 0.15, 20.0  # of the Fourier features, in units of the scaled values
SPECIAL_SCALE = 0.02  # of the embeddings of padding and end: what attention writes there is not drowned
COPY, MATCH = 0.5, 0.1  # how much output projections start as values' transposes, queries as keys
NEIGHBOUR, DECAY = (
    8.0,
    1.5,
)  # logit of the neighbour that a head starts by looking at; of another, per log distance


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are bundled.

    tokens : size of the vocabulary, as upstream's
    context, horizon : of the model, together the length of a window
    buckets, distance : of the relative position bias (upstream: 32, 128), enough to tell the
        neighbours of a day or a week ago apart
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 128
    layers: int = 6
    heads: int = 4
    hidden: int = 512
    tokens: int = 4096
    context: int = 192
    horizon: int = 64
    buckets: int = 512
    distance: int = 512
    series_length: int = 2304


def config(size: Size) -> T5Config:
    """What upstream's config.json says, at another size."""
    chronos = {
        "tokenizer_class": "MeanScaleUniformBins",
        "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "n_tokens": size.tokens,
        "n_special_tokens": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "use_eos_token": True,
        "model_type": "seq2seq",
        "context_length": size.context,
        "prediction_length": size.horizon,
        "num_samples": 20,
        "temperature": TEMPERATURE,
        "top_k": TOP_K,
        "top_p": 1.0,
    }
    return t5_config(
        size,
        "T5ForConditionalGeneration",
        vocab_size=size.tokens,
        relative_attention_num_buckets=size.buckets,
        relative_attention_max_distance=size.distance,
        tie_word_embeddings=True,
        chronos_config=chronos,
    )


class ChronosT5Objective(Objective):
    """The run whose checkpoint is bundled; it starts from the bins and weights of `CoarseObjective`.

    levels : how often each way of placing a window relative to zero (see `LEVELS`)
    stages : (progress until which it holds, how often each of `CUTS`)
    """

    levels: tuple[float, ...] = LEVELS
    stages: tuple[tuple[float, tuple[float, ...]], ...] = STAGES

    def __init__(self, size: Size | None = None) -> None:
        self.size = size or self.default_size()
        self.window_length = self.size.context + self.size.horizon
        self.series_length = self.size.series_length
        self.tokenizers = {horizon: self._tokenizer(horizon) for _, horizon in map(self._cut, CUTS)}

    @staticmethod
    def default_size() -> Size:
        return Size()

    def build(self) -> nn.Module:
        model = T5ForConditionalGeneration(config(self.size))
        model.set_attn_implementation("eager")  # half the time of SDPA while the bias is trained
        narrow_outputs(model)
        embed_values(model, self._tokenizer(self.size.horizon).centers)
        start_as_mixture(model)
        return model

    def _tokenizer(self, horizon: int) -> MeanScaleUniformBins:
        """Upstream's, which insists on labels of its own horizon."""
        settings = {**config(self.size).chronos_config, "prediction_length": horizon}
        return ChronosConfig(**settings).create_tokenizer()

    def _cut(self, cut: tuple[int, float]) -> tuple[int, int]:
        """(length, horizon) of a piece"""
        count, share = cut
        length = self.window_length // count
        return length, max(1, round(share * length))

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        assert isinstance(model, T5ForConditionalGeneration)
        rng = np.random.default_rng([step, 17])
        often = next(often for until, often in self.stages if progress <= until)
        length, horizon = self._cut(CUTS[rng.choice(len(CUTS), p=often)])
        values = torch.from_numpy(placed(pieces(windows, length), self.levels, rng))
        context, future = values[:, :-horizon], values[:, -horizon:]
        length -= horizon
        short = rng.random(len(values)) < 0.35
        cut = np.where(short, rng.integers(0, length * 3 // 4, len(values)), 0)
        context = context.masked_fill(torch.from_numpy(np.arange(length)[None] < cut[:, None]), torch.nan)

        tokenizer = self.tokenizers[horizon]
        tokens, mask, scale = tokenizer.context_input_transform(context)
        labels, _ = tokenizer.label_input_transform(future, scale)
        hidden = torch.from_numpy(hidden_values(tuple(tokens.shape), rng)) & mask
        output = model(
            input_ids=tokens.masked_fill(hidden, 0),
            attention_mask=mask,
            decoder_input_ids=model._shift_right(labels),
        )
        forecast = nn.functional.cross_entropy(output.logits.float().flatten(0, 1), labels.flatten())
        encoded = output.encoder_last_hidden_state[hidden] * self.size.width**-0.5
        rebuilt = nn.functional.cross_entropy(model.lm_head(encoded).float(), tokens[hidden])
        return Losses(forecast + 0.5 * (1 - progress) * rebuilt, forecast)

    def adopt(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of another run with its embeddings at this vocabulary's bins."""
        ours = self._tokenizer(self.size.horizon).centers
        refined = dict(weights)
        for name in ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
            refined[name] = refine(weights[name], ours)
        refined["lm_head.weight"] = refined["shared.weight"]
        return refined

    def export(self, model: nn.Module, directory: Path) -> None:
        assert isinstance(model, T5ForConditionalGeneration)
        model.save_pretrained(directory)


class CoarseObjective(ChronosT5Objective):
    """The run before: from nothing, with wide bins, short pieces first."""

    levels = COARSE_LEVELS
    stages = FIRST_STAGES

    @staticmethod
    def default_size() -> Size:
        return Size(tokens=1024)


def placed(windows: Windows, often: tuple[float, ...], rng: np.random.Generator) -> Windows:
    """Standardised windows [B, T], each placed relative to zero in one of the ways of `LEVELS`."""
    count = len(windows)
    way = rng.choice(len(often), count, p=often)
    near = rng.normal(0, 3, count)
    sign = np.where(rng.random(count) < UPWARDS, 1, -1)
    far = sign * np.exp(rng.uniform(math.log(FAR[0]), math.log(FAR[1]), count))
    level = np.choose(way, [np.zeros(count), near, -windows.min(axis=1), far])
    return np.asarray(windows + level[:, None], dtype=np.float32)


def refine(embedding: Tensor, centers: Tensor) -> Tensor:
    """Embeddings [tokens, width] of coarse bins, interpolated at finer bins' centres [values].

    Both vocabularies span the same values and have the same special tokens before them.
    """
    special = SPECIAL_TOKENS
    coarse = embedding[special:]
    position = torch.linspace(0, len(coarse) - 1, len(coarse), dtype=torch.float64)
    span = (centers[-1] - centers[0]).item()
    wanted = (centers.double() - centers[0]) / span * position[-1]
    below = wanted.floor().long().clamp(max=len(coarse) - 2)
    share = (wanted - below)[:, None].to(embedding.dtype)
    values = torch.lerp(coarse[below], coarse[below + 1], share)
    return torch.cat([embedding[:special], values])


def hidden_values(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which values the encoder must rebuild [B, T]: a run in two thirds of the windows, one at least."""
    count, length = shape
    share = rng.uniform(0.05, 0.3, (count, 1)) * (rng.random((count, 1)) < 0.67)
    size = np.maximum(1, (share * length).astype(int))
    start = (rng.random((count, 1)) * (length - size)).astype(int)
    position = np.arange(length)[None]
    return np.asarray((position >= start) & (position < start + size))


def pieces(windows: Windows, length: int) -> Windows:
    """Windows [B, T] cut from their end into pieces [B * (T // length), length]."""
    count = windows.shape[1] // length
    return windows[:, windows.shape[1] - length * count :].reshape(-1, length)


@torch.no_grad()
def embed_values(model: T5ForConditionalGeneration, centers: Tensor) -> None:
    """Embeddings start as random Fourier features of the bins' centres [values], in place."""
    width = model.config.d_model
    shortest, longest = PERIODS
    periods = torch.exp(torch.empty(width).uniform_(math.log(shortest), math.log(longest)))
    phases = torch.empty(width).uniform_(0, 2 * math.pi)
    embedding = model.shared.weight
    first = len(embedding) - len(centers)  # upstream leaves one token unused before the first bin
    embedding[first:] = math.sqrt(2) * torch.cos(2 * math.pi * centers[:, None] / periods + phases)
    embedding[:first] *= SPECIAL_SCALE


@torch.no_grad()
def start_as_mixture(model: T5ForConditionalGeneration) -> None:
    """Attention starts by looking at neighbours, near by and at what is alike, and by copying; in place."""
    for module in model.modules():
        if isinstance(module, T5Attention):
            module.o.weight.mul_(OUTPUT_SCALE).add_(module.v.weight.T, alpha=COPY)
            module.q.weight.add_(module.k.weight, alpha=MATCH)
            if module.has_relative_attention_bias:
                _look_around(module)


def _look_around(attention: T5Attention) -> None:
    """Position biases [buckets, heads] of one stack: a neighbour on each visible side, a decay, nothing."""
    reach = attention.relative_attention_max_distance
    distance = torch.arange(reach, -1, -1)  # so that the nearest of a bucket is written last

    def buckets(offset: Tensor) -> Tensor:
        found: Tensor = attention._relative_position_bucket(
            offset,
            bidirectional=not attention.is_decoder,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=reach,
        )
        return found

    bias = attention.relative_attention_bias.weight
    bias.zero_()
    sides = (-1,) if attention.is_decoder else (1, -1)
    decaying = min(len(sides), bias.shape[1] - 1)
    for side in sides:
        for bucket, steps in zip(buckets(side * distance).tolist(), distance.tolist(), strict=True):
            bias[bucket, decaying] = -DECAY * math.log1p(steps)
    for head, side in enumerate(sides[:decaying]):
        bias[buckets(torch.tensor([side])), head] = NEIGHBOUR
