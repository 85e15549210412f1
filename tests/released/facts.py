"""Facts about published checkpoints: sizes from their config.json or the authors' papers, by hub id.

Where a config.json was not at hand, values follow from the paper's table and the number of parameters; such
fields are marked "by the paper".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@dataclasses.dataclass(frozen=True)
class Facts:
    """One published checkpoint.

    config : its config.json, as far as upstream's code reads it
    width, heads, head_dim : of the residual stream and of every attention sublayer
    layers : by stack
    roles : of the attention sublayers of each stack, block after block, repeated to its depth
    parameters : the exact number, where published; None: the size in `Family.released` is all that is known
    """

    family: str
    config: Mapping[str, Any]
    width: int
    heads: int
    head_dim: int
    layers: Mapping[str, int]
    roles: Mapping[str, tuple[str, ...]]
    parameters: int | None = None


_ENCODER_DECODER = {"encoder": ("self",), "decoder": ("self", "cross")}
_T5 = {
    "d_kv": 64,
    "feed_forward_proj": "relu",
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-6,
    "model_type": "t5",
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}


def _t5(family: str, width: int, layers: int, heads: int, hidden: int, rest: Mapping[str, Any]) -> Facts:
    sizes = {"d_model": width, "d_ff": hidden, "num_layers": layers, "num_heads": heads}
    config = {**_T5, **sizes, "num_decoder_layers": layers, **rest}
    return Facts(family, config, width, heads, 64, dict.fromkeys(_ENCODER_DECODER, layers), _ENCODER_DECODER)


def _bolt(*sizes: int) -> Facts:
    forecasting = {
        "context_length": 2048,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "prediction_length": 64,
        "quantiles": LEVELS,
        "use_reg_token": True,
    }
    rest = {"chronos_config": forecasting, "reg_token_id": 1, "vocab_size": 2}
    return _t5("chronos-bolt", *sizes, rest)  # type: ignore[arg-type, misc]


def _chronos_t5(*sizes: int) -> Facts:
    forecasting = {
        "tokenizer_class": "MeanScaleUniformBins",
        "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "context_length": 512,
        "prediction_length": 64,
        "n_tokens": 4096,
        "n_special_tokens": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "use_eos_token": True,
        "model_type": "seq2seq",
        "num_samples": 20,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    }
    return _t5("chronos-t5", *sizes, {"chronos_config": forecasting, "vocab_size": 4096})  # type: ignore[arg-type, misc]


def _chronos2(width: int, layers: int, heads: int, hidden: int) -> Facts:
    forecasting = {
        "context_length": 8192,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "output_patch_size": 16,
        "max_output_patches": 64,
        "quantiles": [0.01, *(round(0.05 * step, 2) for step in range(1, 20)), 0.99],
        "use_arcsinh": True,
        "use_reg_token": True,
        "time_encoding_scale": 8192,
    }
    config = {
        "d_model": width,
        "d_kv": 64,
        "d_ff": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "dense_act_fn": "relu",
        "is_gated_act": False,
        "layer_norm_epsilon": 1e-6,
        "rope_theta": 10000.0,
        "vocab_size": 2,
        "reg_token_id": 1,
        "pad_token_id": 0,
        "chronos_config": forecasting,
    }
    return Facts("chronos2", config, width, heads, 64, {"stack": layers}, {"stack": ("time", "group")})


def _moirai(width: int, layers: int, family: str = "moirai", rest: Mapping[str, Any] | None = None) -> Facts:
    components = [
        {"_target_": "uni2ts.distribution.student_t.StudentTOutput"},
        {"_target_": "uni2ts.distribution.normal.NormalFixedScaleOutput", "scale": 0.001},
        {"_target_": "uni2ts.distribution.negative_binomial.NegativeBinomialOutput"},
        {"_target_": "uni2ts.distribution.log_normal.LogNormalOutput"},
    ]
    config = {
        "distr_output": {"_target_": "uni2ts.distribution.mixture.MixtureOutput", "components": components},
        "d_model": width,
        "num_layers": layers,
        "patch_sizes": [8, 16, 32, 64, 128],
        "max_seq_len": 512,
        "attn_dropout_p": 0.0,
        "dropout_p": 0.0,
        "scaling": True,
        **(rest or {}),
    }
    return Facts(family, config, width, width // 64, 64, {"stack": layers}, {"stack": ("self",)})


def _moirai_moe(width: int, layers: int, hidden: int, parameters: int) -> Facts:
    """Widths, depths and hidden sizes by a summary of the paper (arXiv 2410.10469), not by config.json.

    By upstream's code there are 32 experts, of which a token takes 2. The summary has one patch size, 16,
    and Moirai's mixture. Exact counts follow from these sizes. Rounded, they are the published 117 and 935
    million, and with 2 experts an MLP the published 11 and 86 million.
    """
    return dataclasses.replace(
        _moirai(width, layers, "moirai-moe", {"patch_sizes": [16], "d_ff": hidden}), parameters=parameters
    )


_MOIRAI2 = {
    "d_model": 384,
    "d_ff": 1024,
    "num_layers": 6,
    "patch_size": 16,
    "max_seq_len": 512,
    "attn_dropout_p": 0.0,
    "dropout_p": 0.0,
    "scaling": True,
    "num_predict_token": 4,
    "quantile_levels": LEVELS,
}
_TOTO = {
    "patch_size": 64,
    "stride": 64,
    "embed_dim": 768,
    "num_layers": 12,
    "num_heads": 12,
    "mlp_hidden_dim": 3072,
    "dropout": 0.1,
    "spacewise_every_n_layers": 12,
    "spacewise_first": False,
    "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
    "output_distribution_classes": ["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
    "output_distribution_kwargs": {"k_components": 24},
    "use_memory_efficient_attention": True,
    "stabilize_with_global": True,
    "scale_factor_exponent": 10.0,
}


def _t0(width: int, levels: list[float]) -> Facts:
    """As `T0Config.medium` and `T0Config.large` of the package."""
    config = {
        "embed_dim": width,
        "num_layers": 24,
        "num_heads": 8,
        "mlp_hidden_dim": 2048,
        "patch_size": 32,
        "group_every_n": 3,
        "dropout": 0.1,
        "quantile_levels": levels,
        "scaler_use_arcsinh": True,
        "scaler_eps": 0.1,
        "scaler_eps_mode": "variance_offset",
    }
    return Facts("t0", config, width, 8, width // 8, {"stack": 24}, {"stack": ("time", "time", "group")})


def _toto2(width: int, layers: int, epsilon: float, parameters: int | None = None) -> Facts:
    """Widths, depths and epsilons by the paper (arXiv 2605.20119, table 1); the rest as in 4m's config.json.

    By the paper: that the last layer alone is over variates also in the larger ones.
    """
    config = {
        "patch_size": 32,
        "d_model": width,
        "d_ff": (int(4 * width * 2 / 3) + 7) // 8 * 8,
        "num_heads": width // 64,
        "num_layers": layers,
        "layer_group_size": layers,
        "num_variate_layers_per_group": 1,
        "variate_layer_first": False,
        "qk_dim": 64,
        "v_dim": 64,
        "num_groups": width // 64,
        "heads_per_group": 1,
        "attn_bias": True,
        "mlp_bias": False,
        "norm_eps": epsilon,
        "norm_include_weight": False,
        "num_output_patches": 1,
        "per_dim_scale": True,
        "pre_norm": True,
        "qk_norm": False,
        "residual_attn_ratio": 5.136215466577748,
        "residual_mult": 0.75,
        "use_xpos": True,
    }
    roles = {"stack": (*["time"] * (layers - 1), "variate")}
    return Facts("toto2", config, width, width // 64, 64, {"stack": layers}, roles, parameters)


_TIMESTRAL = {
    "patch_size": 32,
    "d_model": 768,
    "num_heads": 12,
    "mlp_hidden_dim": 2048,
    "block_schedule": [*["time"] * 3, "time_variate"] * 6,
    "quantile_knots": [0.01, *(round(0.05 * step, 2) for step in range(1, 20)), 0.99],
    "block_size": 32,
    "context_length": 32768,
}

RELEASED: Mapping[str, Facts] = {
    "amazon/chronos-bolt-tiny": _bolt(256, 4, 4, 1024),
    "amazon/chronos-bolt-mini": _bolt(384, 4, 8, 1536),
    "amazon/chronos-bolt-small": _bolt(512, 6, 8, 2048),
    "amazon/chronos-bolt-base": _bolt(768, 12, 12, 3072),
    "amazon/chronos-t5-tiny": _chronos_t5(256, 4, 4, 1024),
    "amazon/chronos-t5-mini": _chronos_t5(384, 4, 8, 1536),
    "amazon/chronos-t5-small": _chronos_t5(512, 6, 8, 2048),
    "amazon/chronos-t5-base": _chronos_t5(768, 12, 12, 3072),
    "amazon/chronos-t5-large": _chronos_t5(1024, 24, 16, 4096),
    "autogluon/chronos-2-small": _chronos2(512, 6, 8, 2048),  # by the paper: 28 million parameters
    "autogluon/chronos-2-synth": _chronos2(768, 12, 12, 3072),
    "amazon/chronos-2": _chronos2(768, 12, 12, 3072),
    # upstream's class has the size of the published checkpoint, whose config.json it does not read
    "google/timesfm-2.5-200m-pytorch": Facts(
        "timesfm", {}, 1280, 16, 80, {"stack": 20}, {"stack": ("self",)}
    ),
    "google/timesfm-3.0-pytorch": Facts(  # the sizes of upstream's class
        "timesfm3", {}, 1280, 16, 80, {"stack": 20}, {"stack": ("time", "variate")}, 330_710_976
    ),
    "mistralai/Timestral-209M": Facts(  # by the model cards of it and of a tiny copy
        "timestral",
        _TIMESTRAL,
        768,
        12,
        64,
        {"stack": 24},
        {"stack": (*["time"] * 4, "variate")},
        209_312_256,
    ),
    "Datadog/Toto-Open-Base-1.0": Facts(
        "toto", _TOTO, 768, 12, 64, {"stack": 12}, {"stack": (*["time"] * 11, "variate")}
    ),
    "Salesforce/moirai-1.1-R-small": _moirai(384, 6),
    "Salesforce/moirai-1.1-R-base": _moirai(768, 12),
    "Salesforce/moirai-1.1-R-large": _moirai(1024, 24),
    "Salesforce/moirai-2.0-R-small": Facts(
        "moirai2", _MOIRAI2, 384, 6, 64, {"stack": 6}, {"stack": ("self",)}
    ),
    "Salesforce/moirai-moe-1.0-R-small": _moirai_moe(384, 6, 512, 117_025_800),
    "Salesforce/moirai-moe-1.0-R-base": _moirai_moe(768, 12, 1024, 935_066_592),
    "theforecastingcompany/t0-alpha": _t0(512, [0.1, 0.25, 0.5, 0.75, 0.9]),
    "theforecastingcompany/t0-beta": _t0(
        1024, [0.01, *(round(0.05 * step, 2) for step in range(1, 20)), 0.99]
    ),
    "Datadog/Toto-2.0-4m": _toto2(256, 4, 1e-4, 4_144_448),  # and 8 factors of the stream
    "Datadog/Toto-2.0-22m": _toto2(512, 6, 1e-4),
    "Datadog/Toto-2.0-313m": _toto2(1024, 24, 1e-4),
    "Datadog/Toto-2.0-1B": _toto2(1536, 36, 5e-4),
    "Datadog/Toto-2.0-2.5B": _toto2(2048, 48, 5e-4, 2_454_281_792),
}

# published checkpoints whose config.json was not at hand, and whose sizes no paper states
UNKNOWN = {f"mistralai/Timestral-{size}M" for size in (5, 28, 123)}
