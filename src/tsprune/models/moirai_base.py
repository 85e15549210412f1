"""Shared by Moirai 1.1 and Moirai-2: anatomy of the encoder, inputs, loading and saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsprune.anatomy import (
    Anatomy,
    AttentionSite,
    Block,
    Factor,
    MLPSite,
    PerHead,
    Readout,
    Size,
    Stack,
    TimeAxis,
)
from tsprune.models.checkpoints import MAX_CONTEXT
from tsprune.models.forecaster import Forecaster
from tsprune.models.stated import Requirement, flag, real, whole_number

# stated for Moirai 1.1; upstream's package holds no GIFT-Eval script and does not mention Moirai-2
# there (its README's example has 1680), so for Moirai-2 this is an assumption
MOIRAI_CONTEXT = 4000  # the weights' metadata may say less

LICENCE_NOTE = (
    "Moirai's weights on the hub are CC-BY-NC: a derivative of them is not redistributable, so do not "
    "publish this checkpoint unless the weights it was made from are your own."
)

MOIRAI_SIZES: dict[str, Requirement] = {  # of config.json, of both versions
    "d_model": whole_number(),
    "num_layers": whole_number(),
    "max_seq_len": whole_number(),
    "attn_dropout_p": real(0, 0.99),
    "dropout_p": real(0, 0.99),
    "scaling": flag,
}


def _sizes(module: str) -> tuple[Size, ...]:
    return (
        Size(module, "num_heads", "heads"),
        Size(module, "num_groups", "key_heads"),
        Size(module, "heads_per_group", "heads_per_key_head"),
    )


def _attention(block: str, layer: Any) -> AttentionSite:
    path, attention = f"{block}.self_attn", layer.self_attn
    return AttentionSite.of_layers(
        "self",
        path,
        ("q_proj", "k_proj", "v_proj", "out_proj"),
        attention.num_heads,
        attention.head_dim,
        key_heads=attention.num_groups,
        factors=(Factor(f"{path}.q_norm.weight"), Factor(f"{path}.k_norm.weight")),
        others=(f"{block}.norm1",),
        sizes=(*_sizes(path), *_sizes(f"{path}.var_attn_bias")),
        per_head=(PerHead(f"{path}.var_attn_bias.emb.weight", 1),),
    )


def moirai_anatomy(module: Any, patch: int, readout: Readout | None, *, causal: bool) -> Anatomy:
    """Anatomy of a module with a TransformerEncoder `encoder` over patches of `patch` steps."""
    blocks = []
    for index, layer in enumerate(module.encoder.layers):
        path = f"encoder.layers.{index}"
        blocks.append(Block(path, (_attention(path, layer),), MLPSite(f"{path}.ffn", (f"{path}.norm2",))))
    depth = (Size("", "num_layers", "layers"),)
    axis = TimeAxis(patch, future=1)
    stack = Stack("stack", tuple(blocks), module="encoder", time=axis, causal=causal, sizes=depth)
    return Anatomy((stack,), module.d_model, readout=readout)


def inputs(series: Sequence[NDArray[np.float32]], device: torch.device) -> dict[str, Tensor]:
    """Inputs of upstream's forecast modules, for univariate series; right-aligned, [B, T, 1]."""
    length = max(map(len, series))
    values = np.full((len(series), length), np.nan, dtype=np.float32)
    padding = np.ones((len(series), length), dtype=bool)
    for row, observed in enumerate(series):
        values[row, length - len(observed) :] = observed
        padding[row, length - len(observed) :] = False
    known = np.isfinite(values)
    given = {
        "past_target": np.where(known, values, np.float32(0))[..., None],
        "past_observed_target": known[..., None],
        "past_is_pad": padding,
    }
    return {name: torch.from_numpy(array).to(device) for name, array in given.items()}


class MoiraiForecaster(Forecaster):
    """Shared by both versions: saving, and the config of a pruned model.

    config : config.json of the checkpoint
    """

    reference_horizon = 1024  # GIFT-Eval's longest is 900
    licence_note = LICENCE_NOTE
    config: Mapping[str, object]

    def config_file(self) -> dict[str, Any]:
        return dict(self.config)

    def stored_metadata(self) -> dict[str, str]:
        return {MAX_CONTEXT: str(self.context_length)}

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole layers can go; upstream has as many heads as the width has multiples of 64."""
        return (
            {**config, "num_layers": len(self.anatomy.stacks[0].blocks)}
            if self.anatomy.whole_layers
            else None
        )


def config_of(module: Any) -> dict[str, Any]:
    """The config.json of a network in memory: its arguments, which upstream's hub mixin keeps."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in (module._hub_mixin_config or {}).items()
    }


def history_of(upstream: Any, patch: int) -> int:
    """Steps of history that one of upstream's forecast modules is set to; the usual for a bare network."""
    stated = getattr(getattr(upstream, "hparams", None), "context_length", MOIRAI_CONTEXT)
    return max(int(stated), patch)
