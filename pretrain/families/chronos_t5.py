"""Chronos-T5: cross-entropy of quantised values, all tokens of the horizon at once.

Upstream's scaling only divides by the mean absolute value, so windows are shifted at random: a
level far from zero is met as well. Batches of short contexts, which are cheap, come more often in
the beginning.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chronos.chronos import ChronosConfig
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from pretrain.loop import Losses
from pretrain.windows import Windows

EARLY, LATE = np.array([0.35, 0.35, 0.2, 0.1]), np.array([0.1, 0.15, 0.2, 0.55])


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is and how long its training windows are; the defaults are bundled.

    tokens : size of the vocabulary (upstream: 4096)
    contexts : the four lengths of history that batches are drawn with, ascending; the last is the
        model's context length
    series_length : of the synthetic series that windows are cut from
    """

    width: int = 128
    layers: int = 6
    heads: int = 8
    hidden: int = 512
    tokens: int = 1024
    horizon: int = 64
    contexts: tuple[int, int, int, int] = (96, 192, 320, 512)
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
    # what T5Config takes besides its fields
    added: dict[str, Any] = {
        "tie_word_embeddings": True,
        "decoder_start_token_id": 0,
        "chronos_config": chronos,
    }
    return T5Config(
        architectures=["T5ForConditionalGeneration"],
        vocab_size=size.tokens,
        d_model=size.width,
        d_kv=size.width // size.heads,
        d_ff=size.hidden,
        num_layers=size.layers,
        num_decoder_layers=size.layers,
        num_heads=size.heads,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        initializer_factor=1.0,
        is_encoder_decoder=True,
        pad_token_id=0,
        eos_token_id=1,
        **added,
    )


class ChronosT5Objective:
    def __init__(self, size: Size | None = None) -> None:
        self.size = size or Size()
        self.window_length = self.size.context + self.size.horizon
        self.series_length = self.size.series_length
        self.tokenizer = ChronosConfig(**config(self.size).chronos_config).create_tokenizer()

    def build(self) -> nn.Module:
        model = T5ForConditionalGeneration(config(self.size))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith((".o.weight", ".wo.weight")):
                    parameter.mul_(0.3)
        return model

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        rng = np.random.default_rng([step, 17])
        early = max(0.0, 1 - progress / 0.4)
        length = int(rng.choice(self.size.contexts, p=early * EARLY + (1 - early) * LATE))
        level = rng.choice([0.0, 1.0], (len(windows), 1), p=[0.4, 0.6]) * rng.normal(0, 3, (len(windows), 1))
        x = windows[:, self.size.context - length :] + level.astype(np.float32)
        context, future = torch.from_numpy(x[:, :length]), torch.from_numpy(x[:, length:])
        short = rng.random(len(x)) < 0.35
        cut = np.where(short, rng.integers(0, length - 16, len(x)), 0)
        context = context.masked_fill(torch.from_numpy(np.arange(length)[None] < cut[:, None]), torch.nan)

        tokens, mask, scale = self.tokenizer.context_input_transform(context)
        labels, _ = self.tokenizer.label_input_transform(future, scale)
        assert isinstance(model, T5ForConditionalGeneration)
        shifted = model._shift_right(labels)
        logits = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=shifted).logits.float()
        total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return Losses(total, total)

    def export(self, model: nn.Module, directory: Path) -> None:
        assert isinstance(model, T5ForConditionalGeneration)
        model.save_pretrained(directory)
