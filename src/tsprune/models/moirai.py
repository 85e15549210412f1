"""Moirai 1.1: masked encoder over patches, a mixture of four distributions, sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from tsprune.anatomy import Readout
from tsprune.arguments import shown
from tsprune.errors import TspruneError
from tsprune.models import draws, moirai_base
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.finite import Broken, watched
from tsprune.models.forecaster import Forecast, SamplingForecaster
from tsprune.models.objects import network
from tsprune.models.stated import check, list_of, mapping, real, whole_number

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
_SIZES = {**moirai_base.MOIRAI_SIZES, "patch_sizes": list_of(whole_number()), "distr_output": mapping}


class Moirai(moirai_base.MoiraiForecaster, SamplingForecaster):
    """`upstream` is a `MoiraiForecast` for univariate series, set up anew at each forecast."""

    family = "moirai"
    upstream: MoiraiForecast
    module: MoiraiModule

    def __init__(self, module: MoiraiModule, config: Mapping[str, object], name: str, context: int) -> None:
        self.name = name
        self.module = module
        self.context_length = context
        self.samples = _GIFT_EVAL_SAMPLES
        self.patch = min(module.patch_sizes, key=lambda size: abs(size - GIFT_EVAL_PATCH))
        self.anatomy = moirai_base.moirai_anatomy(
            module, self.patch, _readout(module, self.patch), causal=False
        )
        self.upstream = MoiraiForecast(
            prediction_length=1,
            target_dim=1,
            feat_dynamic_real_dim=0,
            past_feat_dynamic_real_dim=0,
            context_length=context,
            module=module,
            patch_size=self.patch,
            num_samples=self.samples,
        )
        self.config = config

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int) -> Forecast:
        visible = [x[-self.context_length :] for x in series]
        with torch.no_grad():
            distribution = self._distribution(visible, horizon)
            most = max(1, _ROWS // self.samples)
            paths = [
                self._drawn(distribution, visible, slice(start, start + most))
                for start in range(0, len(visible), most)
            ]
        return self.from_samples(np.concatenate(paths)[..., :horizon])

    def _distribution(self, series: Sequence[NDArray[np.float32]], horizon: int) -> Future:
        """The distribution of the patches that cover the horizon."""
        length = max(map(len, series))
        broken = Broken(3)
        with self._set_up(length, horizon), watched([self.module.param_proj], broken):
            whole = self.upstream._get_distr(self.patch, **moirai_base.inputs(series, self.device))
            first = self.upstream.context_token_length(self.patch)
        return Future(whole, first, self.patch, broken)

    @contextmanager
    def _set_up(self, length: int, horizon: int) -> Iterator[None]:
        with self.upstream.hparams_context(prediction_length=horizon, context_length=length):
            yield

    def _drawn(
        self, future: Future, series: Sequence[NDArray[np.float32]], rows: slice
    ) -> NDArray[np.float32]:
        """Paths of the windows `rows`, [rows, samples, patches * patch]."""
        noise = draws.Noise(series[rows], self.seed)
        numbers = noise.uniform(self.samples, *future.loc.shape[1:2], self.patch, 3).to(self.device)
        drawn = future.sample(rows, numbers)
        paths: NDArray[np.float32] = drawn.flatten(-2).float().numpy(force=True)
        return paths

    def _teacher_forced(self, series: list[NDArray[np.float32]]) -> Tensor:
        """Parameters of the normalised distribution of the patch after the contexts.

        [B, patch, parameters]: the weights' logits, then those of each component.
        """
        future = self._distribution([x[-self.context_length :] for x in series], 1)
        parameters = [future.weights.logits]
        for component in future.components:
            own = [getattr(component, name) for name in component.arg_constraints if name != "probs"]
            parameters += [x.expand(component.batch_shape)[..., None] for x in own]
        return future.marked(torch.cat(parameters, -1))[:, 0]

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Moirai:
        config = checkpoint.settings(_SIZES)
        distribution = decode_distr_output(_distribution(config.get("distr_output")))
        sizes = {key: value for key, value in config.items() if key != "distr_output"}
        module = MoiraiModule(distr_output=distribution, **sizes).eval()
        context = checkpoint.context_length(moirai_base.MOIRAI_CONTEXT, min(module.patch_sizes))
        return cls(module, config, checkpoint.name, context)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Moirai:
        """The model of a `MoiraiForecast` or its network in memory."""
        whole = isinstance(upstream, MoiraiForecast)
        module = network(upstream.module if whole else upstream, MoiraiModule).eval()
        config = {**moirai_base.config_of(module), "distr_output": encode_distr_output(module.distr_output)}
        return cls(module, config, name, moirai_base.history_of(upstream, min(module.patch_sizes)))


def _readout(module: MoiraiModule, patch: int) -> Readout | None:
    """The location of the (first) distribution, if it has one."""
    known = {name for name, _ in module.named_modules()}
    for path in ("param_proj.proj.components.0.loc", "param_proj.proj.loc"):
        if path in known:
            return Readout((path,), "encoder.norm", patch=patch)
    return None


class Future:
    """The part of upstream's distribution that is forecast: tokens from `first`, `patch` steps of each.

    weights : of the components, [B, tokens, patch, K]
    components : K distributions [B, tokens, patch] of the normalised values
    loc, scale : [B, tokens, 1]
    broken : where parameters are NaN or infinite, [B, tokens, patch], of all tokens and the largest patch
    """

    def __init__(self, whole: Any, first: int, patch: int, broken: Broken) -> None:
        def cut(x: Tensor) -> Tensor:
            return x[:, first:, :patch]

        base = whole.base_dist
        mixture = isinstance(base, Mixture)
        parts = base.components if mixture else [base]
        self.components = [_narrowed(part, cut) for part in parts]
        logits = base.weights.logits if mixture else torch.zeros(*base.batch_shape, 1)
        self.weights = Categorical(logits=cut(logits), validate_args=False)
        self.loc, self.scale = whole.loc[:, first:], whole.scale[:, first:]
        self._broken = cut(broken.places)

    def marked(self, parameters: Tensor) -> Tensor:
        """`parameters` [B, tokens, patch, n] with NaN where one of the distribution's is NaN or infinite."""
        return parameters.masked_fill(self._broken[..., None], torch.nan)

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


def _narrowed(component: Distribution, cut: Any) -> Distribution:
    """`component` over fewer places."""
    names = ["loc", "scale"] if isinstance(component, LogNormal) else list(component.arg_constraints)
    parameters = {name: cut(getattr(component, name).expand(component.batch_shape)) for name in names}
    return type(component)(**parameters, validate_args=False)


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


def _distribution(stated: Any, *, nested: bool = False) -> dict[str, Any]:
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
        check(stated, {"components": list_of(mapping)}, "distr_output in config.json")
        full["components"] = [_distribution(part, nested=True) for part in stated["components"]]
    check(stated, {"scale": real(1e-12, 1e12)}, "distr_output in config.json", required=False)
    return full
