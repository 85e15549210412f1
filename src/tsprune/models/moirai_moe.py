"""Moirai-MoE: causal decoder over patches with experts as MLPs, a mixture for each next patch, sampled.

Upstream's loop draws one patch after the other. Every pass runs the whole sequence of every path anew,
because the values that were drawn change how the series is scaled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from uni2ts.model.moirai.module import decode_distr_output, encode_distr_output
from uni2ts.model.moirai_moe import MoiraiMoEForecast, MoiraiMoEModule

from tsprune.anatomy import Anatomy, MLPSite
from tsprune.models import moirai
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.draws import Noise
from tsprune.models.finite import Broken, watched
from tsprune.models.forecaster import Forecast, SamplingForecaster
from tsprune.models.objects import network
from tsprune.models.stated import whole_number
from tsprune.models.variates import rows_of, variates_in

# upstream's defaults, and its configurations for evaluation, which state no context length
_PATCH = 16
_SAMPLES = 100
_ROWS = 1024  # paths that are drawn together
_SIZES = {**moirai.MIXTURE_SIZES, "d_ff": whole_number()}


class MoiraiMoE(moirai.MoiraiForecaster, SamplingForecaster):
    """`upstream` is a `MoiraiMoEForecast`, whose loop runs in another one of each forecast's sizes."""

    family = "moirai-moe"
    multivariate = True
    past_covariates = True
    reference_horizon = 1  # each further patch is a pass of all paths, which would all be recorded
    upstream: MoiraiMoEForecast
    module: MoiraiMoEModule

    def __init__(
        self, module: MoiraiMoEModule, config: Mapping[str, object], name: str, context: int
    ) -> None:
        self.name = name
        self.module = module
        self.context_length = context
        self.samples = _SAMPLES
        self.patch = min(module.patch_sizes, key=lambda size: abs(size - _PATCH))
        self.readout_horizon = self.prefix_steps = self.patch
        self.anatomy = _anatomy(module, self.patch)
        self._set_upstream(MoiraiMoEForecast, patch_size=self.patch, num_samples=self.samples)
        self.config = config

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int, covariates: int = 0) -> Forecast:
        visible = [x[..., -self.context_length :] for x in series]
        most = max(1, _ROWS // self.samples)
        with torch.no_grad():
            parts = [
                self._paths(visible[start : start + most], horizon, covariates, self.samples)[0]
                for start in range(0, len(visible), most)
            ]
        return self.from_samples(np.concatenate(parts))

    def _paths(
        self, series: Sequence[NDArray[np.float32]], horizon: int, covariates: int, samples: int
    ) -> tuple[NDArray[np.float32], moirai.Future]:
        """Paths [B * V, samples, horizon], and the distribution of the first patch after the contexts."""
        variates = variates_in(series[0]) - covariates
        rows = rows_of([x[: len(x) - covariates] if covariates else x for x in series])
        length = max(x.shape[-1] for x in series)
        drawing = _Drawing(self, Noise(rows, self.seed), samples, variates, length, horizon)
        loop = MoiraiMoEForecast(
            prediction_length=horizon,
            target_dim=variates,
            feat_dynamic_real_dim=0,
            past_feat_dynamic_real_dim=covariates,
            context_length=length,
            module=drawing,
            patch_size=self.patch,
            num_samples=samples,
        )
        found = loop(**moirai.inputs(series, self.device, covariates))
        paths: Tensor = found.reshape(len(series), samples, horizon, variates).permute(0, 3, 1, 2)
        return paths.flatten(0, 1).float().numpy(force=True), drawing.first

    def _teacher_forced(self, series: list[NDArray[np.float32]], covariates: int = 0) -> Tensor:
        """Parameters of the normalised distribution of the patch after the contexts, as Moirai's."""
        first = self._paths([x[..., -self.context_length :] for x in series], 1, covariates, 1)[1]
        return first.parameters()

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> MoiraiMoE:
        config = checkpoint.settings(_SIZES)
        distribution = decode_distr_output(moirai.known_distribution(config.get("distr_output")))
        module = MoiraiMoEModule(**{**config, "distr_output": distribution}).eval()
        context = checkpoint.context_length(moirai.MOIRAI_CONTEXT, min(module.patch_sizes))
        return cls(module, config, checkpoint.name, context)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> MoiraiMoE:
        """The model of a `MoiraiMoEForecast` or its network in memory."""
        module = network(upstream, MoiraiMoEModule, MoiraiMoEForecast, "module").eval()
        config = {**moirai.config_of(module), "distr_output": encode_distr_output(module.distr_output)}
        return cls(module, config, name, moirai.history_of(upstream, min(module.patch_sizes)))


class _Drawing:
    """In place of the network in upstream's loop: paths are rows of one batch, with the windows' own draws.

    first : the distribution of the first patch

    Upstream's order of paths and windows is kept, [samples, windows], and so are the sums of its products.
    """

    first: moirai.Future

    def __init__(
        self, model: MoiraiMoE, noise: Noise, samples: int, variates: int, length: int, horizon: int
    ) -> None:
        self.patch_sizes = model.module.patch_sizes  # which upstream reads
        self.passes = 0
        self._model, self._noise, self._samples, self._variates = model, noise, samples, variates
        self._history, self._ahead = (-(-steps // model.patch) for steps in (length, horizon))

    @property
    def _read(self) -> slice:
        """The tokens whose outputs the next pass reads, one of each variate.

        Tokens are those of the histories of all variates, then those of their horizons.
        """
        history = self._variates * self._history
        if not self.passes:
            return slice(self._history - 1, history, self._history)
        return slice(history + self.passes - 1, history + self._variates * self._ahead, self._ahead)

    def __call__(self, *inputs: Tensor) -> _Drawing:
        """A pass: upstream calls `sample` next. Inputs are [windows, ...] or [samples, windows, ...]."""
        rows = [x.flatten(0, 1) for x in inputs] if inputs[0].dim() > 3 else inputs
        module, patch, broken = self._model.module, self._model.patch, Broken(3)
        with watched([module.param_proj], broken):
            whole = module(*rows)
        self._shape, self._places = inputs[0].shape, self._read
        self._now = moirai.Future(whole, self._places, patch, broken, self._variates)
        self.first = self._now if not self.passes else self.first
        self.passes += 1
        return self

    def sample(self, shape: torch.Size) -> Tensor:
        """Draws [*shape, *inputs], 0 where upstream does not look."""
        patch, shared = self._model.patch, self.passes == 1
        numbers = self._noise.uniform(self._samples, patch, 3).to(self._now.loc.device)
        if not shared:  # each path has a distribution of its own
            numbers = numbers.transpose(0, 1).flatten(0, 1)[:, None]
        drawn = self._now.sample(slice(None), numbers[:, :, None])[:, :, 0].detach()
        of_paths = drawn.transpose(0, 1) if shared else drawn
        *_, windows, tokens, most = self._shape
        whole = drawn.new_zeros(self._samples, windows, tokens, most)
        whole[:, :, self._places, :patch] = of_paths.reshape(self._samples, windows, self._variates, patch)
        return whole.view(*shape, *self._shape)


def _anatomy(module: MoiraiMoEModule, patch: int) -> Anatomy:
    """Moirai's, with experts in each MLP, which are chosen by centroids of the layer's own."""
    # the last position is that of the forecast patch, whose output is not used
    readout = moirai.mixture_readout(module, patch, position=-2)
    plain = moirai.moirai_anatomy(module, patch, readout, causal=True)
    (stack,) = plain.stacks
    blocks = []
    for block, layer in zip(stack.blocks, module.encoder.layers, strict=True):
        ffn = f"{block.module}.ffn"
        experts = tuple(f"{ffn}.experts.{number}" for number in range(layer.ffn.num_experts))
        blocks.append(
            dataclasses.replace(block, mlp=MLPSite(ffn, (f"{block.module}.norm2",), experts=experts))
        )
    stack = dataclasses.replace(stack, blocks=tuple(blocks), per_layer=("encoder.centroid",))
    return dataclasses.replace(plain, stacks=(stack,))
