"""Chronos-T5: cross-entropy of quantised values, all tokens of the horizon at once.

Upstream's scaling only divides by the mean absolute value, so windows are shifted at random: a
level far from zero is met as well. A window of fixed length is cut at random into a context and a
horizon: a long horizon is a language model over values, supervised at every one of them, which is
what lets few windows teach periodicity; short horizons come more often later. For the same reason
the encoder rebuilds hidden values, with a weight that falls to zero.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from chronos.chronos import ChronosConfig
from numpy.typing import NDArray
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from pretrain.families.t5 import narrow_outputs, t5_config
from pretrain.loop import Losses
from tsprune.data.training import Windows

EARLY, LATE = np.array([0.3, 0.4, 0.3]), np.array([0.05, 0.2, 0.75])  # how often each of `Size.contexts`


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are bundled.

    tokens : size of the vocabulary (upstream: 4096)
    contexts : the three lengths of history that batches are drawn with, ascending, the rest of the
        window being the horizon; the last is the model's context length
    buckets, distance : of the relative position bias (upstream: 32, 128), enough to tell the
        neighbours of a day or a week ago apart
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 128
    layers: int = 6
    heads: int = 4
    hidden: int = 512
    tokens: int = 1024
    horizon: int = 64
    contexts: tuple[int, int, int] = (64, 128, 192)
    buckets: int = 64
    distance: int = 256
    series_length: int = 2304

    @property
    def context(self) -> int:
        return self.contexts[-1]


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
        "temperature": 1.0,
        "top_k": 50,
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


class ChronosT5Objective:
    """compiled : whether to compile the forward, which saves a third of a step after some minutes"""

    def __init__(self, size: Size | None = None, *, compiled: bool = True) -> None:
        self.size = size or Size()
        self.compiled = compiled
        self.window_length = self.size.context + self.size.horizon
        self.series_length = self.size.series_length
        settings = config(self.size).chronos_config
        self.tokenizers = {
            context: ChronosConfig(
                **{**settings, "prediction_length": self.window_length - context}
            ).create_tokenizer()
            for context in self.size.contexts
        }

    def build(self) -> nn.Module:
        model = T5ForConditionalGeneration(config(self.size))
        model.set_attn_implementation("eager")  # half the time of SDPA while the bias is trained
        narrow_outputs(model)
        if self.compiled:
            model.forward = torch.compile(model.forward)  # type: ignore[method-assign]
        return model

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        assert isinstance(model, T5ForConditionalGeneration)
        rng = np.random.default_rng([step, 17])
        early = max(0.0, 1 - progress / 0.6)
        length = int(rng.choice(self.size.contexts, p=early * EARLY + (1 - early) * LATE))
        level = rng.choice([0.0, 1.0], (len(windows), 1), p=[0.4, 0.6]) * rng.normal(0, 3, (len(windows), 1))
        x = windows + level.astype(np.float32)
        context, future = torch.from_numpy(x[:, :length]), torch.from_numpy(x[:, length:])
        short = rng.random(len(x)) < 0.35
        cut = np.where(short, rng.integers(0, length - 16, len(x)), 0)
        context = context.masked_fill(torch.from_numpy(np.arange(length)[None] < cut[:, None]), torch.nan)

        tokenizer = self.tokenizers[length]
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

    def export(self, model: nn.Module, directory: Path) -> None:
        assert isinstance(model, T5ForConditionalGeneration)
        model.save_pretrained(directory)


def hidden_values(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which values the encoder must rebuild [B, T]: a run in two thirds of the windows, one at least."""
    count, length = shape
    share = rng.uniform(0.05, 0.3, (count, 1)) * (rng.random((count, 1)) < 0.67)
    size = np.maximum(1, (share * length).astype(int))
    start = (rng.random((count, 1)) * (length - size)).astype(int)
    position = np.arange(length)[None]
    return np.asarray((position >= start) & (position < start + size))
