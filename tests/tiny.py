"""Tiny real models with random weights, written in the upstream format, and how to look at them.

Their sizes differ from each other wherever the upstream format allows it (encoder and decoder
depth, width and heads x head_dim), so that mixing two of them up cannot go unnoticed, and nothing
is at a trivial value: norms and scales that upstream starts at zero or one are random here.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tsprune.models import Forecaster, SamplingForecaster
from tsprune.models.checkpoints import MAX_CONTEXT
from tsprune.testing.probes import (  # noqa: F401  (tests take both from here)
    CountLinear,
    double_precision,
    full_length,
    pristine,
    ragged,
    spread,
    zeroed,
)

# arguments of `pretrain.families.*.Size`; each writer imports its upstream package, some take seconds
BOLT: dict[str, Any] = {
    "width": 24, "layers": 2, "heads": 3, "hidden": 40, "patch": 4, "horizon": 8, "contexts": (16, 24, 32, 48)
}  # fmt: skip
BOLT_HEAD_DIM, BOLT_DECODER_LAYERS = 6, 3
TIMESFM = {"width": 24, "layers": 3, "heads": 3, "hidden": 40, "context": 128}
T5 = {"width": 24, "layers": 3, "heads": 3, "hidden": 40, "tokens": 64, "horizon": 8, "context": 48}
T5_HEAD_DIM, T5_DECODER_LAYERS = 6, 2  # a deeper decoder than encoder breaks upstream's cache
TOTO = {"width": 24, "layers": 3, "heads": 3, "hidden": 40, "patch": 8, "components": 3, "context": 64}
MOIRAI = {"width": 128, "layers": 2, "patch": 8, "context": 64, "future": 16}
SAMPLES = 6


def write_bolt(directory: Path, *, use_cache: bool = False) -> None:
    """A Chronos-Bolt with 2 encoder and 3 decoder layers, 3 heads of 6 dimensions, width 24."""
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers.utils import logging

    from pretrain.families import chronos_bolt

    config = chronos_bolt.config(chronos_bolt.Size(**BOLT))
    config.d_kv = BOLT_HEAD_DIM
    config.num_decoder_layers = BOLT_DECODER_LAYERS
    config.use_cache = use_cache
    torch.manual_seed(1)
    model = ChronosBoltModelForForecasting(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.uniform_(0.5, 1.5)
    logging.disable_progress_bar()
    model.save_pretrained(directory)


def write_timesfm(directory: Path, **other: int) -> None:
    """A TimesFM 2.5 with 3 layers (or another size), 3 heads of 8 dimensions, width 24, context 128."""
    from pretrain.families import timesfm

    torch.manual_seed(2)
    objective = timesfm.TimesFMObjective(timesfm.Size(**(TIMESFM | other)))
    model = objective.build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".scale"):
                parameter.uniform_(0.5, 1.5)
            if name.endswith(".per_dim_scale"):
                parameter.normal_()
            if name.endswith("qkv_proj.weight"):
                parameter *= 4
    objective.export(model, directory)


def _unlike(model: nn.Module, *, gain: float = 1.0) -> None:
    """Norms at random values, biases not at zero, and queries and keys that make a difference."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.uniform_(-0.3, 0.3)
            elif name.endswith("per_dim_scale"):
                parameter.normal_()
            if any(part in name for part in ("wQKV.weight", "in_proj.weight", "q_proj", "k_proj")):
                parameter *= gain


def write_t5(directory: Path) -> None:
    """A Chronos-T5 with 3 encoder and 2 decoder layers, 3 heads of 6 dimensions, width 24."""
    from transformers.utils import logging

    from pretrain.families import chronos_t5

    config = chronos_t5.config(chronos_t5.Size(**T5))
    config.d_kv = T5_HEAD_DIM
    config.num_decoder_layers = T5_DECODER_LAYERS
    config.chronos_config["num_samples"] = SAMPLES
    torch.manual_seed(3)
    model = chronos_t5.T5ForConditionalGeneration(config)
    _unlike(model)
    logging.disable_progress_bar()
    model.save_pretrained(directory)


def write_chronos2(directory: Path) -> None:
    """A Chronos-2 with 3 layers, 3 heads of 6 dimensions, width 24, patches of 4."""
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model
    from transformers.utils import logging

    forecasting = {
        "context_length": 48,
        "input_patch_size": 4,
        "input_patch_stride": 4,
        "output_patch_size": 4,
        "quantiles": [0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99],
        "use_reg_token": True,
        "use_arcsinh": True,
        "max_output_patches": 2,
    }
    # at upstream's scale of 1.0 a random model overflows, at its default 0.05 heads hardly matter
    config = Chronos2CoreConfig(
        d_model=24,
        d_kv=6,
        d_ff=40,
        num_layers=3,
        num_heads=3,
        dropout_rate=0.0,
        initializer_factor=0.5,
        chronos_config=forecasting,
        chronos_pipeline_class="Chronos2Pipeline",
    )
    torch.manual_seed(4)
    model = Chronos2Model(config)
    _unlike(model)
    with torch.no_grad():  # forecasts are sinh of the output, which is within some units in a trained model
        for parameter in model.output_patch_embedding.parameters():
            parameter *= 0.1
    logging.disable_progress_bar()
    model.save_pretrained(directory)


def write_toto(directory: Path) -> None:
    """A Toto with 2 layers over time and 1 over variates, 3 heads of 8 dimensions, width 24."""
    from pretrain.families import toto

    torch.manual_seed(5)
    objective = toto.TotoObjective(toto.Size(**TOTO))
    model = objective.build()
    _unlike(model, gain=3)
    objective.export(model, directory)


def write_moirai(directory: Path) -> None:
    """A Moirai with 2 layers, 2 heads of 64 dimensions (upstream fixes these), width 128."""
    from pretrain.families import moirai

    torch.manual_seed(6)
    objective = moirai.MoiraiObjective(moirai.Size(**MOIRAI))
    model = objective.build()
    _unlike(model, gain=2)
    objective.export(model, directory)


def write_moirai2(directory: Path) -> None:
    """A Moirai-2 with 2 layers, 2 heads of 64 dimensions (upstream fixes these), width 128."""
    from uni2ts.model.moirai2 import Moirai2Module

    config = {
        "d_model": 128,
        "d_ff": 40,
        "num_layers": 2,
        "patch_size": 8,
        "max_seq_len": 64,
        "attn_dropout_p": 0.0,
        "dropout_p": 0.0,
        "scaling": True,
        "num_predict_token": 2,
        "quantile_levels": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    }
    torch.manual_seed(7)
    model = Moirai2Module(**config)
    _unlike(model, gain=2)
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {MAX_CONTEXT: "64"}
    save_file(model.state_dict(), directory / "model.safetensors", metadata=metadata)
    (directory / "config.json").write_text(json.dumps(config))


def write_moirai_moe(directory: Path) -> None:
    """A Moirai-MoE with 2 layers, 2 heads of 64 dimensions, 32 experts (upstream fixes these), width 128."""
    from uni2ts.model.moirai.module import decode_distr_output
    from uni2ts.model.moirai_moe import MoiraiMoEModule

    from pretrain.families import moirai

    config = {**moirai.config(moirai.Size(**MOIRAI)), "d_ff": 40, "patch_sizes": [8, 32]}
    torch.manual_seed(11)
    model = MoiraiMoEModule(**{**config, "distr_output": decode_distr_output(config["distr_output"])})
    _unlike(model, gain=2)
    model.encoder.centroid.normal_()
    directory.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), directory / "model.safetensors", metadata={MAX_CONTEXT: "64"})
    (directory / "config.json").write_text(json.dumps(config))


def write_t0(directory: Path) -> None:
    """A t0 with 2 layers over time and 2 over variates, 3 heads of 8 dimensions, width 24."""
    from t0 import T0Config
    from t0.torch import T0Forecaster

    torch.manual_seed(8)
    config = T0Config(24, 4, 3, 40, 8, 2, 0.0, (0.1, 0.25, 0.5, 0.75, 0.9))
    model = T0Forecaster.from_config(config)
    _unlike(model, gain=2)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), directory / "model.safetensors", metadata={MAX_CONTEXT: "64"})
    (directory / "config.json").write_text(json.dumps(config.to_dict()))


def write_timestral(directory: Path) -> None:
    """A Timestral with attention over time, then variates and time, 3 heads of 8 dimensions, width 24."""
    from timestral import TimestralConfig, TimestralModel

    torch.manual_seed(9)
    kinds = ("time", "variate_time")
    knots = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
    config = TimestralConfig(8, 24, 3, 40, kinds, knots, block_size=2, context_length=64)
    model = TimestralModel(config)
    _unlike(model, gain=2)
    with torch.no_grad():
        model.representation.forecast_query.normal_()
        for parameter in model.head.parameters():  # forecasts are sinh of the output
            parameter *= 0.5
    directory.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), directory / "model.safetensors")
    config.save(directory / "config.json")


def write_toto2(directory: Path, **other: Any) -> None:
    """A Toto 2.0 with 2 layers over time and 2 over variates, 3 heads of 8 and 6 dimensions, width 24."""
    from toto2 import Toto2Model, Toto2ModelConfig

    sizes = {
        "patch_size": 8,
        "d_model": 24,
        "num_heads": 3,
        "num_layers": 4,
        "layer_group_size": 2,
        "d_ff": 40,
    }
    stated = {
        **sizes,
        "num_variate_layers_per_group": 1,
        "variate_layer_first": False,
        "qk_dim": 8,
        "v_dim": 6,
        "attn_bias": True,
        "qk_norm": True,
        "qk_norm_include_weight": True,
        "per_dim_scale": True,
        "use_xpos": True,
        "residual_mult": 0.75,
        "residual_attn_ratio": 1.7,
    }
    config = Toto2ModelConfig(**(stated | other))
    torch.manual_seed(9)
    model = Toto2Model(config)
    _unlike(model, gain=2)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        model.state_dict(), directory / "model.safetensors", metadata={"format": "pt", MAX_CONTEXT: "64"}
    )
    (directory / "config.json").write_text(json.dumps(dataclasses.asdict(config)))


def write_timesfm3(directory: Path, *, apart: bool = True, context: int = 64) -> None:
    """A TimesFM 3 with 2 layers, 3 heads of 8 dimensions, width 24, patches of 8, 16 steps ahead.

    apart : its quantiles seldom cross; where they do, their sorted values have no derivative
    """
    from timesfm3.torch import TimesFM3Torch

    transformer = {
        "model_dims": 24,
        "hidden_dims": 40,
        "num_heads": 3,
        **dict.fromkeys(("attention_norm", "feedforward_norm", "qk_norm"), "rms"),
        **dict.fromkeys(("use_rope_seq", "use_rope_var", "deterministic"), True),
        "use_bias": False,
        "ff_activation": "relu",
    }
    residual = {"hidden_dims": 40, "output_dims": 24, "use_bias": False, "activation": "relu"}
    torch.manual_seed(10)
    model = TimesFM3Torch(
        8,
        16,
        residual_block_config=residual,
        transformer_config={"num_layers": 2, "transformer": transformer},
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_ln." in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("per_dim_scale"):
                parameter.normal_()
        if apart:
            model.output_head.bias.copy_(torch.linspace(-8, 8, 9).repeat(16))
    directory.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), directory / "model.safetensors", metadata={MAX_CONTEXT: str(context)})
    (directory / "config.json").write_text(json.dumps(model.to_dict()))


# Settings of models that laws are tried on. They hold for any length, and most of the time
# went into upstream's loop over patches.
SHORT: dict[str, dict[str, int]] = {"tiny-timesfm3": {"context": 32}}
TINY: dict[str, Callable[..., None]] = {
    "tiny-chronos-bolt": write_bolt,
    # what the published checkpoints say in their config.json: a key-value cache that nothing reads
    "tiny-chronos-bolt-cached": functools.partial(write_bolt, use_cache=True),
    "tiny-timesfm": write_timesfm,
    "tiny-chronos-t5": write_t5,
    "tiny-chronos2": write_chronos2,
    "tiny-toto": write_toto,
    "tiny-moirai": write_moirai,
    "tiny-moirai2": write_moirai2,
    "tiny-moirai-moe": write_moirai_moe,
    "tiny-t0": write_t0,
    "tiny-timestral": write_timestral,
    "tiny-toto2": write_toto2,
    "tiny-timesfm3": write_timesfm3,
}


def output_patch(model: Forecaster) -> int:
    """Steps that one pass of the network forecasts; longer horizons are autoregressive.

    Moirai and Toto 2.0 forecast any horizon in one pass, in patches of this many steps.
    """
    steps = {
        "chronos-bolt": lambda: model.module.chronos_config.prediction_length,
        "chronos-t5": lambda: model.module.config.chronos_config["prediction_length"],
        "chronos2": lambda: (
            model.module.chronos_config.output_patch_size * model.module.chronos_config.max_output_patches
        ),
        "timesfm": lambda: model.module.o,
        "toto": lambda: model.module.patch_embed.patch_size,
        "moirai": lambda: model.module.patch_sizes[0],
        "moirai2": lambda: model.module.patch_size * model.module.num_predict_token,
        "moirai-moe": lambda: model.module.patch_sizes[0],
        "t0": lambda: model.module.max_horizon,
        "timesfm3": lambda: model.module.output_patch_len,
        "timestral": lambda: model.module.config.block_size * model.module.config.patch_size,
        "toto2": lambda: model.module.config.patch_size,
    }
    return int(steps[model.family]())


def few_samples(model: Forecaster) -> Forecaster:
    """`model` with few paths, if it samples, and short references."""
    if isinstance(model, SamplingForecaster):
        model.samples = SAMPLES
    # no test forecasts further than a patch and a few steps
    model.reference_horizon = min(model.reference_horizon, 2 * output_patch(model))
    if model.family == "moirai-moe":  # by default that of one pass, as all paths are run anew in each
        model.reference_horizon = 2 * output_patch(model)
    return model


@contextmanager
def equal_rows(model: Forecaster) -> Iterator[None]:
    """Rows of a batch are computed alike, however many there are, while the context lasts.

    On some processors the last bits of a product depend on its number of rows. In float64, with the products
    of every linear layer rounded to multiples of 2^-20, those bits are gone.
    """
    linear = [module for module in model.module.modules() if isinstance(module, torch.nn.Linear)]
    handles = [module.register_forward_hook(_coarse) for module in linear]
    try:
        with double_precision(model):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _coarse(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
    return output.mul(2.0**20).round().div(2.0**20)


def uneven(model: Forecaster) -> list[str]:
    """Addresses of some heads, unlike in each layer, an MLP and an attention sublayer, or as good."""
    chosen = []
    for stack in model.anatomy.stacks:
        for layer, block in stack.numbered():
            for site in block.attention:
                chosen += [f"{stack.name}.{layer}.{site.role}.head.{layer % site.heads}"] * (layer > 0)
        chosen.append(f"{stack.name}.0.mlp")
    first = model.anatomy.stacks[0]
    chosen.append(f"{first.name}.{len(first.blocks) - 1}.{first.blocks[-1].attention[-1].role}")
    return chosen
