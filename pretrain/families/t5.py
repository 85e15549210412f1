"""What the recipes of Chronos-T5 and Chronos-Bolt share: T5's sizes and its initialisation."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from transformers import T5Config

# T5 attention has no 1/sqrt(d): upstream's small factor could not overfit a single batch, this with
# narrowed output projections could
INITIALIZER_FACTOR, OUTPUT_SCALE = 1.0, 0.3


class T5Size(Protocol):
    """width : a multiple of heads; layers : of the encoder, and as many of the decoder"""

    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def hidden(self) -> int: ...


def t5_config(size: T5Size, architecture: str, **more: Any) -> T5Config:
    """A T5 of this size.

    architecture : upstream's class
    more : fields of T5Config, and what upstream adds to them
    """
    return T5Config(
        architectures=[architecture],
        d_model=size.width,
        d_kv=size.width // size.heads,
        d_ff=size.hidden,
        num_layers=size.layers,
        num_decoder_layers=size.layers,
        num_heads=size.heads,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        initializer_factor=INITIALIZER_FACTOR,
        is_encoder_decoder=True,
        pad_token_id=0,
        eos_token_id=1,
        **{"decoder_start_token_id": 0, **more},
    )


@torch.no_grad()
def narrow_outputs(model: nn.Module) -> None:
    """Scales the output projections of attention and MLPs, in place."""
    for name, parameter in model.named_parameters():
        if name.endswith((".o.weight", ".wo.weight")):
            parameter.mul_(OUTPUT_SCALE)
