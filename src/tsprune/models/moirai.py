"""Moirai 1.1: masked encoder over patches, a mixture of four distributions, sampled.

Moirai-2 (`moirai2`) and Moirai-MoE (`moirai_moe`) share the anatomy of the encoder, loading and saving;
Moirai-MoE also has the mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Categorical, Distribution, LogNormal, Normal, StudentT
from uni2ts.distribution.mixture import Mixture
from uni2ts.distribution.negative_binomial import NegativeBinomial
from uni2ts.model.moirai import MoiraiForecast, MoiraiModule
from uni2ts.model.moirai.module import decode_distr_output, encode_distr_output

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
from tsprune.arguments import shown
from tsprune.errors import TspruneError
from tsprune.models import draws
from tsprune.models.checkpoints import MAX_CONTEXT, Checkpoint
from tsprune.models.contexts import padded
from tsprune.models.finite import Broken, watched
from tsprune.models.forecaster import Forecast, Forecaster, SamplingForecaster
from tsprune.models.objects import network
from tsprune.models.stated import Requirement, flag, list_of, mapping, real, require, whole_number
from tsprune.models.variates import rows_of, variates_in

# stated for Moirai 1.1; upstream's package holds no GIFT-Eval script and does not mention Moirai-2
# there (its README's example has 1680), so for Moirai-2 this is an assumption
MOIRAI_CONTEXT = 4000  # the weights' metadata may say less

MOIRAI_SIZES: dict[str, Requirement] = {  # of config.json, of all versions
    **dict.fromkeys(("d_model", "num_layers", "max_seq_len"), whole_number()),
    **dict.fromkeys(("attn_dropout_p", "dropout_p"), real(0, 0.99)),
    "scaling": flag,
}


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
        sizes=tuple(
            size
            for module in (path, f"{path}.var_attn_bias")
            for size in (
                Size(module, "num_heads", "heads"),
                Size(module, "num_groups", "key_heads"),
                Size(module, "heads_per_group", "heads_per_key_head"),
            )
        ),
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


def inputs(
    series: Sequence[NDArray[np.float32]], device: torch.device, covariates: int = 0
) -> dict[str, Tensor]:
    """Inputs of upstream's forecast modules, for series with as many variates; right-aligned, [B, T, V].

    covariates : of the rows of each, the last so many are past covariates
    """
    rows = padded(rows_of(series))
    values = rows.reshape(len(series), -1, rows.shape[-1]).transpose(0, 2, 1)
    observed = np.array([x.shape[-1] for x in series])[:, None]
    padding = np.arange(values.shape[1]) < values.shape[1] - observed
    known = np.isfinite(values)
    filled, targets = np.where(known, values, np.float32(0)), values.shape[-1] - covariates
    given = {
        "past_target": filled[..., :targets],
        "past_observed_target": known[..., :targets],
        "past_is_pad": padding,
    }
    if covariates:
        given["past_feat_dynamic_real"] = filled[..., targets:]
        given["past_observed_feat_dynamic_real"] = known[..., targets:]
    return {name: torch.from_numpy(array).to(device) for name, array in given.items()}


class MoiraiForecaster(Forecaster):
    """Shared by all versions: saving, and the config of a pruned model.

    config : config.json of the checkpoint
    """

    half = False
    reference_horizon = 1024  # GIFT-Eval's longest is 900
    licence_note = (
        "Moirai's released weights are under the licence CC-BY-NC-4.0: use what is made from them for "
        "non-commercial purposes only, and do not publish it unless the weights were your own."
    )
    config: Mapping[str, object]
    upstream: torch.nn.Module

    def config_file(self) -> dict[str, Any]:
        return dict(self.config)

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        self.require_dtype(dtype)
        self.upstream.to(device=device, dtype=dtype)  # knows where it is only if it moves the network itself

    def stored_metadata(self) -> dict[str, str]:
        return {MAX_CONTEXT: str(self.context_length)}

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole layers can go; upstream has as many heads as the width has multiples of 64."""
        layers = len(self.anatomy.stacks[0].blocks)
        return {**config, "num_layers": layers} if self.anatomy.whole_layers else None

    def _set_upstream(self, forecast: Any, **settings: Any) -> None:
        """Makes the object of upstream's class `forecast`, for univariate series."""
        univariate = {"target_dim": 1, "feat_dynamic_real_dim": 0, "past_feat_dynamic_real_dim": 0}
        fixed = {"prediction_length": 1, "context_length": self.context_length, "module": self.module}
        self.upstream = forecast(**fixed, **univariate, **settings)
        here = next(self.module.parameters()).device
        if here.type != "meta":
            self.upstream.to(here)  # it takes its own place from `to`, not from its network


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


GIFT_EVAL_PATCH = 32
_GIFT_EVAL_SAMPLES = 100
_ROWS = 1024  # paths that are drawn together

_FILES = {
    "MixtureOutput": "mixture",
    "StudentTOutput": "student_t",
    "NormalOutput": "normal",
    "NormalFixedScaleOutput": "normal",
    "NegativeBinomialOutput": "negative_binomial",
    "LogNormalOutput": "log_normal",
}
# by the paths that config.json may name them by
_DISTRIBUTIONS = {
    f"uni2ts.distribution.{path}{name}": name for name, file in _FILES.items() for path in (f"{file}.", "")
}
MIXTURE_SIZES = {**MOIRAI_SIZES, "patch_sizes": list_of(whole_number()), "distr_output": mapping}


class Moirai(MoiraiForecaster, SamplingForecaster):
    """`upstream` is a `MoiraiForecast`, set up anew at each forecast."""

    family = "moirai"
    multivariate = True
    past_covariates = True
    upstream: MoiraiForecast
    module: MoiraiModule

    def __init__(self, module: MoiraiModule, config: Mapping[str, object], name: str, context: int) -> None:
        self.name = name
        self.module = module
        self.context_length = context
        self.samples = _GIFT_EVAL_SAMPLES
        self.patch = min(module.patch_sizes, key=lambda size: abs(size - GIFT_EVAL_PATCH))
        self.anatomy = moirai_anatomy(module, self.patch, mixture_readout(module, self.patch), causal=False)
        self._set_upstream(MoiraiForecast, patch_size=self.patch, num_samples=self.samples)
        self.config = config

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int, covariates: int = 0) -> Forecast:
        visible = [x[..., -self.context_length :] for x in series]
        with torch.no_grad():
            distribution = self._distribution(visible, horizon, covariates)
            rows = rows_of([x[: len(x) - covariates] if covariates else x for x in visible])
            most = max(1, _ROWS // self.samples)
            paths = [
                self._drawn(distribution, rows, slice(start, start + most))
                for start in range(0, len(rows), most)
            ]
        return self.from_samples(np.concatenate(paths)[..., :horizon])

    def _distribution(
        self, series: Sequence[NDArray[np.float32]], horizon: int, covariates: int = 0
    ) -> Future:
        """The distribution of the patches that cover the horizon."""
        length, variates = max(x.shape[-1] for x in series), variates_in(series[0]) - covariates
        broken, given = Broken(3), inputs(series, self.device, covariates)
        sizes = self.upstream.hparams_context(
            prediction_length=horizon,
            context_length=length,
            target_dim=variates,
            past_feat_dynamic_real_dim=covariates,
        )
        with sizes, watched([self.module.param_proj], broken):
            whole = self.upstream._get_distr(self.patch, **given)
            history = variates * self.upstream.context_token_length(self.patch)
            ahead = variates * self.upstream.prediction_token_length(self.patch)
        return Future(whole, slice(history, history + ahead), self.patch, broken, variates)

    def _drawn(
        self, future: Future, series: Sequence[NDArray[np.float32]], rows: slice
    ) -> NDArray[np.float32]:
        """Paths of the windows `rows`, [rows, samples, patches * patch]."""
        noise = draws.Noise(series[rows], self.seed)
        numbers = noise.uniform(self.samples, *future.loc.shape[1:2], self.patch, 3).to(self.device)
        drawn = future.sample(rows, numbers)
        paths: NDArray[np.float32] = drawn.flatten(-2).float().numpy(force=True)
        return paths

    def _teacher_forced(self, series: list[NDArray[np.float32]], covariates: int = 0) -> Tensor:
        """Parameters of the normalised distribution of the patch after the contexts, [B, patch, n]."""
        visible = [x[..., -self.context_length :] for x in series]
        return self._distribution(visible, 1, covariates).parameters()

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Moirai:
        config = checkpoint.settings(MIXTURE_SIZES)
        distribution = decode_distr_output(known_distribution(config.get("distr_output")))
        module = MoiraiModule(**{**config, "distr_output": distribution}).eval()
        context = checkpoint.context_length(MOIRAI_CONTEXT, min(module.patch_sizes))
        return cls(module, config, checkpoint.name, context)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Moirai:
        """The model of a `MoiraiForecast` or its network in memory."""
        module = network(upstream, MoiraiModule, MoiraiForecast, "module").eval()
        config = {**config_of(module), "distr_output": encode_distr_output(module.distr_output)}
        return cls(module, config, name, history_of(upstream, min(module.patch_sizes)))


def mixture_readout(module: Any, patch: int, position: int = -1) -> Readout | None:
    """The location of the (first) distribution, if it has one, at a position of the sequence."""
    known = {name for name, _ in module.named_modules()}
    for path in ("param_proj.proj.components.0.loc", "param_proj.proj.loc"):
        if path in known:
            return Readout((path,), "encoder.norm", position, patch=patch)
    return None


class Future:
    """The part of upstream's distribution that is forecast, `patch` steps of each token.

    Upstream's tokens are those of the history of each variate, then those of the horizon of each variate,
    then those of covariates. What is forecast is read at those in `ahead`, as many of each variate. Here the
    B rows are series, the variates of one context after each other.

    weights : of the components, [B, tokens, patch, K]
    components : K distributions [B, tokens, patch] of the normalised values
    loc, scale : [B, tokens, 1]
    broken : where parameters are NaN or infinite, of all of upstream's tokens and the largest patch
    """

    def __init__(self, whole: Any, ahead: slice, patch: int, broken: Broken, variates: int = 1) -> None:
        def cut(x: Tensor, steps: int = patch) -> Tensor:
            of_variates: Tensor = x[:, ahead, :steps].unflatten(1, (variates, -1))
            return of_variates.flatten(0, 1)

        base = whole.base_dist
        mixture = isinstance(base, Mixture)
        parts = base.components if mixture else [base]
        self.components: list[Distribution] = []
        for part in parts:
            names = ["loc", "scale"] if isinstance(part, LogNormal) else list(part.arg_constraints)
            parameters = {name: cut(getattr(part, name).expand(part.batch_shape)) for name in names}
            self.components.append(type(part)(**parameters, validate_args=False))
        logits = base.weights.logits if mixture else torch.zeros(*base.batch_shape, 1)
        self.weights = Categorical(logits=cut(logits), validate_args=False)
        self.loc, self.scale = cut(whole.loc, 1), cut(whole.scale, 1)
        self._broken = cut(broken.places)

    def parameters(self) -> Tensor:
        """Of the first token, normalised, [B, patch, n]: the weights' logits, then those of each component.

        NaN where one of them is NaN or infinite.
        """
        found = [self.weights.logits]
        for component in self.components:
            own = [getattr(component, name) for name in component.arg_constraints if name != "probs"]
            found += [x.expand(component.batch_shape)[..., None] for x in own]
        return torch.cat(found, -1).masked_fill(self._broken[..., None], torch.nan)[:, 0]

    def sample(self, rows: slice, numbers: Tensor) -> Tensor:
        """Draws [rows, S, tokens, patch] from uniform numbers [rows, S, tokens, patch, 3]."""
        which, one, other = numbers.unbind(-1)
        index = draws.categorical(self.weights.probs[rows], which.movedim(1, -1).contiguous()).movedim(-1, 1)
        values = torch.zeros(which.shape, dtype=self.loc.dtype, device=which.device)
        for number, component in enumerate(self.components):
            chosen = (index == number).nonzero(as_tuple=True)

            def at(x: Tensor, chosen: tuple[Tensor, ...] = chosen) -> Tensor:
                return x[rows, None].expand(index.shape)[chosen]

            values[chosen] = _draw(component, at, one[chosen], other[chosen]).to(values)
        drawn: Tensor = values * self.scale[rows, None] + self.loc[rows, None]
        return drawn.masked_fill(self._broken[rows, None], torch.nan)


def _draw(component: Distribution, at: Any, one: Tensor, other: Tensor) -> Tensor:
    """Draws from `component` where `at` cuts its parameters, from uniform numbers."""
    if isinstance(component, StudentT):
        polar = draws.polar(one, other)
        return draws.student_t(at(component.df), at(component.loc), at(component.scale), *polar)
    if isinstance(component, NegativeBinomial):
        return draws.negative_binomial(at(component.total_count), at(component.logits), one, other)
    gaussian = component.base_dist if isinstance(component, LogNormal) else component
    assert isinstance(gaussian, Normal)
    drawn = draws.normal(at(gaussian.loc), at(gaussian.scale), one)
    return drawn.exp() if isinstance(component, LogNormal) else drawn


def known_distribution(stated: Any, *, nested: bool = False) -> dict[str, Any]:
    """`distr_output` of config.json with full paths, if it names nothing but known classes.

    Upstream calls every `_target_` in it.

    Raises TspruneError for anything else.
    """
    target = stated.get("_target_") if isinstance(stated, dict) else None
    name = _DISTRIBUTIONS.get(target) if isinstance(target, str) else None
    keys = {"MixtureOutput": "components", "NormalFixedScaleOutput": "scale"}
    if (
        name is None
        or (name == "MixtureOutput" and nested)
        or not stated.keys() <= {"_target_", keys.get(name)}
    ):
        raise TspruneError(f"config.json: unknown distribution {shown(target or stated)}")
    full = {**stated, "_target_": f"uni2ts.distribution.{_FILES[str(name)]}.{name}"}
    if name == "MixtureOutput":
        require(stated, {"components": list_of(mapping)}, "distr_output in config.json")
        full["components"] = [known_distribution(part, nested=True) for part in stated["components"]]
    require(stated, {"scale": real(1e-12, 1e12)}, "distr_output in config.json", required=False)
    return full
