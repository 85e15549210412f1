"""The families of models: how their checkpoints are recognised, and where their code is.

A package adds a family by an entry point (see `tsprune.plugins`):

    [project.entry-points."tsprune.families"]
    my_family = "my_package:MY_FAMILY"
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from tsprune.arguments import shown
from tsprune.errors import TspruneError, TspruneWarning
from tsprune.extras import install
from tsprune.lazy import importing
from tsprune.models.checkpoints import Checkpoint
from tsprune.plugins import Registry

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecaster


@dataclasses.dataclass(frozen=True)
class Released:
    """A published checkpoint.

    id : on the hub
    size : number of parameters, rounded as its authors state it: "48 M", "2.5 B"
    licence : of the weights: its SPDX identifier, or a few words
    """

    id: str
    size: str
    licence: str = "Apache-2.0"


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of upstream models.

    name : in commands, tables and tsprune.json; the `family` of its Forecaster
    title : the name in messages
    code : "package.module:Class" of its Forecaster; imported when a model is loaded, not before
    package : import name of the upstream package
    weights, config_key : a checkpoint with tensors of these names and this key in config.json
        (None: any) is of this family
    objects : full names of the upstream classes that `tsprune.load` takes in place of a name
    graph : "package.module:Class" of its graph for export, called with (model, horizon): a torch module from
        contexts [B, T] with NaN where a value is missing, T a multiple of the first stack's span, to
        quantiles [B, Q, horizon]; "": it is not exported. Its attribute `future_span`, if it has one: it
        takes a second input [P], and returns at least P times so many steps. With `marks_padding`, steps in
        front of a series are infinite. One that draws paths has `sampling` (a `PathSampling`) and `programs`,
        as `ChronosGraph`
    extra : of tsprune, which installs the upstream package; "": pip installs `package`
    tested : the upstream distribution, and its newest version (major.minor) that passes the laws

    For the table of models (`tsprune models` and the documentation). A test of the conformance suite compares
    the declarations of the built-in families with their models:

    architecture : in a few words
    attention : the roles of its attention sublayers, in their order in a block or in the stack
    samples : whether a forecast is drawn as sampled paths; if not, the network returns quantiles
    multivariate, past_covariates : as of its Forecaster
    released : published checkpoints, the smallest first
    """

    name: str
    title: str
    code: str
    package: str
    weights: tuple[str, ...]
    config_key: str | None = None
    objects: tuple[str, ...] = ()
    graph: str = ""
    extra: str = ""
    tested: tuple[str, str] | None = None
    architecture: str = ""
    attention: tuple[str, ...] = ()
    samples: bool = False
    multivariate: bool = False
    past_covariates: bool = False
    released: tuple[Released, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether the upstream package can be imported; a folder without code does not count."""
        found = find_spec(self.package)  # timecopilot-toto installs a folder toto2
        return found is not None and found.origin is not None

    @property
    def install(self) -> str:
        """The command that installs the upstream package."""
        return install(self.extra) if self.extra else f'pip install "{self.package}"'

    @property
    def forecaster(self) -> type[Forecaster]:
        """The Forecaster; imports the upstream package."""
        with importing():
            found: type[Forecaster] = resolve_name(self.code)
        return found

    def matches(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is of this family."""
        has_key = self.config_key is None or self.config_key in checkpoint.config
        return has_key and all(name in checkpoint.shapes for name in self.weights)

    def warn_if_newer(self) -> None:
        """Warns if the installed upstream package is newer than the tested one."""
        from packaging.version import Version  # which few calls need

        distribution, tested = self.tested or ("", "")
        try:
            installed = version(distribution) if distribution else ""
        except PackageNotFoundError:  # another distribution of the same package
            return
        if installed and Version(installed).release[:2] > Version(tested).release[:2]:
            message = f"{distribution} {installed} is newer than {tested}, the newest tested version"
            warnings.warn(TspruneWarning(message), stacklevel=2)


_chronos = functools.partial(
    Family,
    package="chronos",
    extra="chronos",
    tested=("chronos-forecasting", "2.3"),
    config_key="chronos_config",
)
_moirai = functools.partial(Family, package="uni2ts", extra="moirai", tested=("timecopilot-uni2ts", "0.1"))
_BUILT_IN: tuple[Family, ...] = (
    _chronos(
        "chronos-bolt",
        "Chronos-Bolt",
        "tsprune.models.chronos_bolt:ChronosBolt",
        architecture="T5 encoder-decoder over patches",
        attention=("self", "cross"),
        released=(
            Released("amazon/chronos-bolt-tiny", "9 M"),
            Released("amazon/chronos-bolt-mini", "21 M"),
            Released("amazon/chronos-bolt-small", "48 M"),
            Released("amazon/chronos-bolt-base", "205 M"),
        ),
        graph="tsprune.models.bolt_graph:BoltGraph",
        objects=(
            "chronos.chronos_bolt.ChronosBoltPipeline",
            "chronos.chronos_bolt.ChronosBoltModelForForecasting",
        ),
        weights=(
            "input_patch_embedding.hidden_layer.weight",
            "decoder.block.0.layer.0.SelfAttention.q.weight",
        ),
    ),
    _chronos(
        "chronos2",
        "Chronos-2",
        "tsprune.models.chronos2:Chronos2",
        architecture="encoder over patches",
        attention=("time", "group"),
        multivariate=True,
        past_covariates=True,
        released=(
            Released("autogluon/chronos-2-small", "28 M"),
            Released("autogluon/chronos-2-synth", "120 M"),
            Released("amazon/chronos-2", "120 M"),
        ),
        graph="tsprune.models.chronos2_graph:Chronos2Graph",
        objects=("chronos.chronos2.pipeline.Chronos2Pipeline", "chronos.chronos2.model.Chronos2Model"),
        weights=(
            "input_patch_embedding.hidden_layer.weight",
            "encoder.block.0.layer.1.self_attention.q.weight",
        ),
    ),
    _chronos(  # after Chronos-Bolt, which has these weights and more
        "chronos-t5",
        "Chronos-T5",
        "tsprune.models.chronos:Chronos",
        architecture="T5 encoder-decoder over tokens",
        attention=("self", "cross"),
        samples=True,
        released=(
            Released("amazon/chronos-t5-tiny", "8 M"),
            Released("amazon/chronos-t5-mini", "20 M"),
            Released("amazon/chronos-t5-small", "46 M"),
            Released("amazon/chronos-t5-base", "200 M"),
            Released("amazon/chronos-t5-large", "710 M"),
        ),
        graph="tsprune.models.chronos_graph:ChronosGraph",
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
    ),
    Family(
        "timesfm",
        "TimesFM 2.5",
        "tsprune.models.timesfm:TimesFM",
        architecture="decoder-only over patches",
        attention=("self",),
        released=(Released("google/timesfm-2.5-200m-pytorch", "231 M"),),
        graph="tsprune.models.timesfm_graph:TimesFMGraph",
        package="timesfm",
        extra="timesfm",
        tested=("timesfm", "3.0"),
        objects=(
            "timesfm.timesfm_2p5.timesfm_2p5_torch.TimesFM_2p5_200M_torch",
            "timesfm.timesfm_2p5.timesfm_2p5_torch.TimesFM_2p5_200M_torch_module",
        ),
        weights=("stacked_xf.0.attn.qkv_proj.weight",),
    ),
    Family(
        "timesfm3",
        "TimesFM 3",
        "tsprune.models.timesfm3:TimesFM3",
        architecture="decoder-only over patches",
        attention=("time", "variate"),
        multivariate=True,
        past_covariates=True,
        released=(Released("google/timesfm-3.0-pytorch", "330 M", "non-commercial"),),
        graph="tsprune.models.timesfm3_graph:TimesFM3Graph",
        package="timesfm3",
        extra="timesfm",
        tested=("timesfm", "3.0"),
        objects=(
            "timesfm3.torch.timesfm3_forecaster.TimesFM3Forecaster",
            "timesfm3.torch.model.TimesFM3Torch",
        ),
        weights=("transformer_stack.layers.0.seq_attn.query_proj.weight",),
    ),
    Family(
        "toto",
        "Toto",
        "tsprune.models.toto:Toto",
        architecture="decoder-only over patches",
        attention=("time", "variate"),
        samples=True,
        multivariate=True,
        released=(Released("Datadog/Toto-Open-Base-1.0", "151 M"),),
        package="toto",
        extra="toto",
        tested=("timecopilot-toto", "0.1"),
        objects=(
            "toto.model.toto.Toto",
            "toto.inference.forecaster.TotoForecaster",
            "toto.model.backbone.TotoBackbone",
        ),
        weights=("model.transformer.layers.0.attention.wQKV.weight",),
        config_key="scaler_cls",
        graph="tsprune.models.toto_graph:TotoGraph",
    ),
    _moirai(
        "moirai",
        "Moirai",
        "tsprune.models.moirai:Moirai",
        architecture="masked encoder over patches",
        attention=("self",),
        samples=True,
        multivariate=True,
        past_covariates=True,
        released=(
            Released("Salesforce/moirai-1.1-R-small", "14 M", "CC-BY-NC-4.0"),
            Released("Salesforce/moirai-1.1-R-base", "91 M", "CC-BY-NC-4.0"),
            Released("Salesforce/moirai-1.1-R-large", "311 M", "CC-BY-NC-4.0"),
        ),
        objects=("uni2ts.model.moirai.forecast.MoiraiForecast", "uni2ts.model.moirai.module.MoiraiModule"),
        weights=("mask_encoding.weight", "encoder.layers.0.ffn.fc_gate.weight"),
        graph="tsprune.models.moirai_graph:MoiraiGraph",
        config_key="distr_output",
    ),
    _moirai(
        "moirai2",
        "Moirai-2",
        "tsprune.models.moirai2:Moirai2",
        architecture="decoder-only over patches",
        attention=("self",),
        released=(Released("Salesforce/moirai-2.0-R-small", "11 M", "CC-BY-NC-4.0"),),
        graph="tsprune.models.moirai2_graph:Moirai2Graph",
        objects=(
            "uni2ts.model.moirai2.forecast.Moirai2Forecast",
            "uni2ts.model.moirai2.module.Moirai2Module",
        ),
        weights=("out_proj.hidden_layer.weight", "encoder.layers.0.ffn.fc_gate.weight"),
        config_key="num_predict_token",
    ),
    _moirai(
        "moirai-moe",
        "Moirai-MoE",
        "tsprune.models.moirai_moe:MoiraiMoE",
        architecture="decoder-only over patches, MLPs of experts",
        attention=("self",),
        samples=True,
        multivariate=True,
        past_covariates=True,
        released=(
            Released("Salesforce/moirai-moe-1.0-R-small", "117 M", "CC-BY-NC-4.0"),
            Released("Salesforce/moirai-moe-1.0-R-base", "935 M", "CC-BY-NC-4.0"),
        ),
        objects=(
            "uni2ts.model.moirai_moe.forecast.MoiraiMoEForecast",
            "uni2ts.model.moirai_moe.module.MoiraiMoEModule",
        ),
        weights=("encoder.centroid", "encoder.layers.0.ffn.experts.0.fc_gate.weight"),
        graph="tsprune.models.moirai_moe_graph:MoiraiMoEGraph",
        config_key="distr_output",
    ),
    Family(
        "t0",
        "t0",
        "tsprune.models.t0:T0",
        architecture="decoder-only over patches",
        attention=("time", "group"),
        multivariate=True,
        past_covariates=True,
        released=(
            Released("theforecastingcompany/t0-alpha", "102 M"),
            Released("theforecastingcompany/t0-beta", "256 M"),
        ),
        graph="tsprune.models.t0_graph:T0Graph",
        package="t0",
        extra="t0",
        tested=("tfc-t0", "0.6"),
        objects=("t0.torch.model.model.T0Forecaster",),
        weights=("transformer.layers.0.attention_block.attention.wQKV.weight",),
        config_key="group_every_n",
    ),
    Family(
        "timestral",
        "Timestral",
        "tsprune.models.timestral:Timestral",
        architecture="decoder-only over patches",
        attention=("time", "variate"),
        multivariate=True,
        past_covariates=True,
        released=tuple(
            Released(f"mistralai/Timestral-{size}M", f"{size} M", "modified MIT, with a revenue clause")
            for size in (5, 28, 123, 209)
        ),
        graph="tsprune.models.timestral_graph:TimestralGraph",
        package="timestral",
        extra="timestral",
        tested=("timecopilot-timestral", "0.1"),
        objects=("timestral.forecaster.TimestralForecaster", "timestral.model.TimestralModel"),
        weights=("representation.forecast_query", "transformer.layers.0.attns.0.wQKV.weight"),
        config_key="block_schedule",
    ),
    Family(
        "toto2",
        "Toto 2.0",
        "tsprune.models.toto2:Toto2",
        architecture="decoder-only over patches",
        attention=("time", "variate"),
        multivariate=True,
        past_covariates=True,
        released=(
            Released("Datadog/Toto-2.0-4m", "4 M"),
            Released("Datadog/Toto-2.0-22m", "22 M"),
            Released("Datadog/Toto-2.0-313m", "313 M"),
            Released("Datadog/Toto-2.0-1B", "1 B"),
            Released("Datadog/Toto-2.0-2.5B", "2.5 B"),
        ),
        graph="tsprune.models.toto2_graph:Toto2Graph",
        package="toto2",
        extra="toto2",
        tested=("timecopilot-toto-2", "0.1"),
        objects=("toto2.model.Toto2Model", "toto2.model.Toto2GluonTSModel"),
        weights=("transformer.layers.0.attn.in_proj.weight", "patch_proj.skip_proj.weight"),
        config_key="residual_attn_ratio",
    ),
)

FAMILIES: Mapping[str, Family] = Registry("tsprune.families", Family, _BUILT_IN, noun="family")


def family_of(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint; TspruneError if none fits or its package is not installed."""
    for family in FAMILIES.values():
        if family.matches(checkpoint):
            return _installed(checkpoint.name, family)
    stated = checkpoint.config.get("architectures") or checkpoint.config.get("model_type")
    detail = f" (config.json says {shown(stated)})" if stated else ""
    missing = "" if checkpoint.config else "; it has no config.json"
    known = ", ".join(FAMILIES)
    raise TspruneError(f"{checkpoint.name}: unknown architecture{detail}{missing}; known are: {known}")


def family_named(checkpoint: str, name: str) -> Family:
    """The family that tsprune.json of a checkpoint names; errors as those of `family_of`."""
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise TspruneError(
            f"{checkpoint}: tsprune.json names the unknown family {shown(name)}; known are: {known}"
        )
    return _installed(checkpoint, FAMILIES[name])


def _installed(checkpoint: str, family: Family) -> Family:
    if not family.installed:
        raise TspruneError(
            f"{checkpoint} is a {family.name} model; install its package with: {family.install}"
        )
    family.warn_if_newer()
    return family
