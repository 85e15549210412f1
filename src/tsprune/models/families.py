"""The upstream families that there are: how a checkpoint is told, and what it takes to run it."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

from tsprune.arguments import shown
from tsprune.errors import TspruneError
from tsprune.models.checkpoints import Checkpoint


@dataclasses.dataclass(frozen=True)
class Family:
    """Where a family's adapter is, and what it takes to run it.

    title : how messages call it
    package : the upstream package's import name
    extra : the extra of tsprune that installs it
    objects : classes of upstream's that `tsprune.load` takes in place of a name
    weights, config_key : a checkpoint with tensors of these names and this key in config.json
        (None: any) is of this family; it can be told without importing the upstream package
    """

    name: str
    title: str
    module: str
    package: str
    extra: str
    objects: tuple[str, ...]
    weights: tuple[str, ...]
    config_key: str | None = None

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None

    def matches(self, checkpoint: Checkpoint) -> bool:
        has_key = self.config_key is None or self.config_key in checkpoint.config
        return has_key and all(name in checkpoint.shapes for name in self.weights)


FAMILIES: tuple[Family, ...] = (
    Family(
        "chronos-bolt",
        "Chronos-Bolt",
        "tsprune.models.chronos_bolt",
        package="chronos",
        extra="chronos",
        objects=(
            "chronos.chronos_bolt.ChronosBoltPipeline",
            "chronos.chronos_bolt.ChronosBoltModelForForecasting",
        ),
        weights=(
            "input_patch_embedding.hidden_layer.weight",
            "decoder.block.0.layer.0.SelfAttention.q.weight",
        ),
        config_key="chronos_config",
    ),
    Family(
        "chronos2",
        "Chronos-2",
        "tsprune.models.chronos2",
        package="chronos",
        extra="chronos",
        objects=(
            "chronos.chronos2.pipeline.Chronos2Pipeline",
            "chronos.chronos2.model.Chronos2Model",
        ),
        weights=(
            "input_patch_embedding.hidden_layer.weight",
            "encoder.block.0.layer.1.self_attention.q.weight",
        ),
        config_key="chronos_config",
    ),
    Family(  # after Chronos-Bolt, which has these weights and more
        "chronos-t5",
        "Chronos-T5",
        "tsprune.models.chronos",
        package="chronos",
        extra="chronos",
        objects=(
            "chronos.chronos.ChronosPipeline",
            "chronos.chronos.ChronosModel",
            "transformers.models.t5.modeling_t5.T5ForConditionalGeneration",
        ),
        # the embedding may go by the name of either stack; Chronos-Bolt, which has these, too, comes first
        weights=(
            "encoder.block.0.layer.0.SelfAttention.q.weight",
            "decoder.block.0.layer.1.EncDecAttention.q.weight",
        ),
        config_key="chronos_config",
    ),
    Family(
        "timesfm",
        "TimesFM 2.5",
        "tsprune.models.timesfm",
        package="timesfm",
        extra="timesfm",
        objects=(
            "timesfm.timesfm_2p5.timesfm_2p5_torch.TimesFM_2p5_200M_torch",
            "timesfm.timesfm_2p5.timesfm_2p5_torch.TimesFM_2p5_200M_torch_module",
        ),
        weights=("stacked_xf.0.attn.qkv_proj.weight",),
    ),
    Family(
        "toto",
        "Toto",
        "tsprune.models.toto",
        package="toto",
        extra="toto",
        objects=(
            "toto.model.toto.Toto",
            "toto.inference.forecaster.TotoForecaster",
            "toto.model.backbone.TotoBackbone",
        ),
        weights=("model.transformer.layers.0.attention.wQKV.weight",),
        config_key="scaler_cls",
    ),
    Family(
        "moirai",
        "Moirai",
        "tsprune.models.moirai",
        package="uni2ts",
        extra="moirai",
        objects=(
            "uni2ts.model.moirai.forecast.MoiraiForecast",
            "uni2ts.model.moirai.module.MoiraiModule",
        ),
        weights=("mask_encoding.weight", "encoder.layers.0.ffn.fc_gate.weight"),
        config_key="distr_output",
    ),
    Family(
        "moirai2",
        "Moirai-2",
        "tsprune.models.moirai2",
        package="uni2ts",
        extra="moirai",
        objects=(
            "uni2ts.model.moirai2.forecast.Moirai2Forecast",
            "uni2ts.model.moirai2.module.Moirai2Module",
        ),
        weights=("out_proj.hidden_layer.weight", "encoder.layers.0.ffn.fc_gate.weight"),
        config_key="num_predict_token",
    ),
)


def family_of(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint; TspruneError if none fits or its package is not installed."""
    for family in FAMILIES:
        if family.matches(checkpoint):
            return _installed(checkpoint.name, family)
    known = ", ".join(family.name for family in FAMILIES)
    stated = checkpoint.config.get("architectures") or checkpoint.config.get("model_type")
    detail = f" (config.json says {shown(stated)})" if stated else ""
    missing = "" if checkpoint.config else "; it has no config.json"
    raise TspruneError(f"{checkpoint.name}: unknown architecture{detail}{missing}; known are: {known}")


def family_named(checkpoint: str, name: str) -> Family:
    for family in FAMILIES:
        if family.name == name:
            return _installed(checkpoint, family)
    known = ", ".join(family.name for family in FAMILIES)
    raise TspruneError(
        f"{checkpoint}: tsprune.json names the unknown family {shown(name)}; known are: {known}"
    )


def _installed(checkpoint: str, family: Family) -> Family:
    if not family.installed:
        raise TspruneError(
            f"{checkpoint} is a {family.name} model; "
            f'install its package with: pip install "tsprune[{family.extra}]"'
        )
    return family
