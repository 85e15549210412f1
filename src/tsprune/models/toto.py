"""Toto 1.0: causal decoder over patches, a Student-t mixture for each next patch, sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, StudentT
from toto.data.util.dataset import MaskedTimeseries
from toto.inference.forecaster import TotoForecaster
from toto.model.attention import AttentionAxis
from toto.model.backbone import TotoBackbone, TotoOutput
from toto.model.toto import Toto as UpstreamToto
from toto.model.transformer import XFORMERS_SWIGLU_AVAILABLE
from toto.model.util import KVCache

from tsprune.anatomy import (
    Anatomy,
    AttentionSite,
    Block,
    MLPSite,
    Projection,
    Readout,
    Size,
    Stack,
    TimeAxis,
)
from tsprune.errors import TspruneError
from tsprune.models import draws, pruned, toto_uneven
from tsprune.models.absent import AbsentAttention
from tsprune.models.checkpoints import MAX_CONTEXT, Checkpoint, load_weights, one_line
from tsprune.models.forecaster import Evidence, Forecast, SamplingForecaster, checked_contexts

# upstream's GIFT-Eval script is not part of its package: 256 is what the evaluation that is
# (toto.evaluation.fev) draws by default, 4096 is not stated anywhere in it
GIFT_EVAL_CONTEXT = 4096  # the weights' metadata may say less
GIFT_EVAL_SAMPLES = 256
ROWS = 4096  # paths that are sampled together
STEPWISE_ROWS = 512  # where a second patch is drawn, for which each path has keys and values of its own
_DERIVED = "rotary_emb."  # buffers that follow from the sizes
_KINDS = {AttentionAxis.TIME: "time", AttentionAxis.SPACE: "variate"}


def anatomy(backbone: TotoBackbone) -> Anatomy:
    blocks = []
    for index, layer in enumerate(backbone.transformer.layers):
        path = f"transformer.layers.{index}"
        attention = f"{path}.attention"
        size = layer.num_heads, layer.embed_dim // layer.num_heads
        # rows of the fused projection are (q or k or v, dimension, head)
        query, key, value = (
            Projection(f"{attention}.wQKV", *size, part, interleaved=True) for part in range(3)
        )
        kind = _KINDS[layer.attention_axis]
        site = AttentionSite(
            kind,
            attention,
            f"{attention}.wO",
            *size,
            query,
            key,
            value,
            others=(f"{path}.norm1",),
            sizes=(Size(attention, "num_heads", "heads"),),
        )
        blocks.append(Block(path, (site,), MLPSite(f"{path}.mlp", (f"{path}.norm2",))))
    depth = (Size("", "num_layers", "layers"),)
    axis = TimeAxis(backbone.patch_embed.patch_size)
    # the locations of the mixture's components
    readout = Readout(("unembed", "output_distribution.loc_proj"))
    stack = Stack("stack", tuple(blocks), module="transformer", time=axis, causal=True, sizes=depth)
    return Anatomy((stack,), backbone.embed_dim, readout=readout)


def mixture_of(distribution: Any, steps: int) -> tuple[Tensor, Tensor]:
    """Weights [B, 1, steps, K] and (df, location, scale) [B, 1, steps, K, 3] of the last `steps`."""
    if isinstance(distribution, MixtureSameFamily):
        weights: Tensor = distribution.mixture_distribution.probs
        parts: Any = distribution.component_distribution
        parameters = torch.stack([parts.df, parts.loc, parts.scale], -1)
    else:  # a single Student-t
        single = torch.stack([distribution.df, distribution.loc, distribution.scale], -1)
        weights, parameters = torch.ones_like(distribution.df)[..., None], single[..., None, :]
    return weights[:, :, -steps:], parameters[:, :, -steps:]


class PairedMixture(MixtureSameFamily):
    """A mixture of Student-ts over one patch, of B windows, sampled by `noise`.

    weights, parameters : of `copies` * B rows, copies outermost
    """

    def __init__(self, weights: Tensor, parameters: Tensor, noise: draws.Noise, copies: int) -> None:
        freedom, location, scale = parameters.unbind(-1)
        components = StudentT(freedom, location, scale, validate_args=False)
        super().__init__(Categorical(probs=weights, validate_args=False), components, validate_args=False)
        self._parameters, self._noise, self._copies = parameters, noise, copies

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """[copies * B, 1, patch]"""
        patch = self._parameters.shape[-3]
        numbers = self._noise.uniform(self._copies, 1, patch, 3).transpose(0, 1).flatten(0, 1)
        which, radius, angle = numbers.to(self._parameters.device).unbind(-1)
        index = draws.categorical(self.mixture_distribution.probs, which)
        chosen = self._parameters.take_along_dim(index[..., None, None], dim=-2).squeeze(-2)
        freedom, location, scale = chosen.unbind(-1)
        return draws.student_t(freedom, location, scale, radius, angle)


class SharedContext:
    """Stands in for the backbone in upstream's sampling loop.

    The history is the same in all samples of a window, so it is run once a window, and its keys and
    values are copied for the samples if there is a second patch; and samples are drawn from `noise`,
    for the patch that is wanted only.

    spare : memory that stand-ins use one after the other
    """

    def __init__(
        self, backbone: TotoBackbone, noise: draws.Noise, samples: int, spare: dict[str, Tensor]
    ) -> None:
        self._backbone, self._noise, self._samples, self._spare = backbone, noise, samples, spare

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def allocate_kv_cache(self, *, batch_size: int, max_time_steps: int, **sizes: Any) -> KVCache:
        """One for the windows, which upstream's loop passes on; without the last patch, which nobody reads.

        (So the last step fills it, and attention need not copy a part of it.)
        """
        windows, steps = batch_size // self._samples, max_time_steps - self._backbone.patch_embed.stride
        return self._backbone.allocate_kv_cache(batch_size=windows, max_time_steps=steps, **sizes)

    def __call__(self, *, inputs: Tensor, kv_cache: KVCache, **others: Any) -> TotoOutput:
        rows = len(inputs)
        if kv_cache.current_len(0) == 0:
            windows = slice(rows // self._samples)  # samples are outermost
            inputs = inputs[windows].clone()  # a view would keep the samples' memory where it is recorded
            others = {name: x[windows].clone() if isinstance(x, Tensor) else x for name, x in others.items()}
        elif kv_cache.batch_size < rows:
            _repeat(kv_cache, self._samples, self._spare)
        base, loc, scale = self._backbone(inputs=inputs, kv_cache=kv_cache, **others)
        patch = self._backbone.patch_embed.patch_size
        weights, parameters = mixture_of(base, patch)
        times = rows // len(weights)
        weights, parameters = weights.repeat(times, 1, 1, 1), parameters.repeat(times, 1, 1, 1, 1)
        return TotoOutput(
            PairedMixture(weights, parameters, self._noise, self._samples),
            loc[..., -patch:].repeat(times, 1, 1),
            scale[..., -patch:].repeat(times, 1, 1),
        )


def _repeat(cache: KVCache, times: int, spare: dict[str, Tensor]) -> None:
    """Has a cache hold every row so many times over, one repetition after the other.

    spare : memory of a cache that is no longer used, by what it was for; fresh memory is slow
    """
    cache.batch_size *= times
    for name in ("_keys", "_values"):
        own = getattr(cache, name)
        shape = own.shape[0], own.shape[1] * times, *own.shape[2:]
        if name not in spare or spare[name].shape != shape:
            spare[name] = own.new_empty(shape)
        spare[name].unflatten(1, (times, -1)).copy_(own[:, None])
        setattr(cache, name, spare[name])


class AbsentTotoAttention(AbsentAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.contribution(args[1])  # after the layer's index


class Toto(SamplingForecaster):
    """`upstream` is the `Toto` model that `TotoForecaster` takes the backbone of.

    Upstream does not mask the padding of short series in its attention, so series are forecast
    together only with others of as many patches. A missing value counts as padding.
    """

    family = "toto"
    upstream: UpstreamToto
    module: TotoBackbone

    def __init__(self, toto: UpstreamToto, config: Mapping[str, object], name: str, context: int) -> None:
        self.name = name
        self.upstream = toto.eval()
        self.module = toto.model
        self.anatomy = anatomy(toto.model)
        self.context_length = context
        self.samples = GIFT_EVAL_SAMPLES
        self._config: dict[str, Any] = dict(config)

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        series = [x[-self.context_length :] for x in checked_contexts(contexts, horizon)]
        paths = np.empty((len(series), self.samples, horizon), dtype=np.float32)
        spare: dict[str, Tensor] = {}
        rows_at_once = ROWS if horizon <= self.module.patch_embed.patch_size else min(ROWS, STEPWISE_ROWS)
        for rows in self._alike(series, max(1, rows_at_once // self.samples)):
            paths[rows] = self._sampled([series[row] for row in rows], horizon, spare)
        return self.from_samples(paths)

    def _alike(self, series: Sequence[NDArray[np.float32]], most: int) -> list[list[int]]:
        """Rows of `series` that are as many patches long, in chunks of `most`."""
        by_length: dict[int, list[int]] = {}
        for row, values in enumerate(series):
            by_length.setdefault(-(-len(values) // self.module.patch_embed.patch_size), []).append(row)
        return [rows[i : i + most] for rows in by_length.values() for i in range(0, len(rows), most)]

    def _inputs(self, series: Sequence[NDArray[np.float32]]) -> MaskedTimeseries:
        """Series of as many patches, right-aligned, [B, 1, T]."""
        patch = self.module.patch_embed.patch_size
        values = np.full((len(series), 1, -(-max(map(len, series)) // patch) * patch), np.nan, np.float32)
        for row, observed in enumerate(series):
            values[row, 0, values.shape[-1] - len(observed) :] = observed
        known = np.isfinite(values)
        data = torch.from_numpy(np.where(known, values, np.float32(0))).to(self.device, self._dtype)
        nothing = torch.zeros(data.shape, dtype=torch.int, device=self.device)
        mask = torch.from_numpy(known).to(self.device)
        times = nothing[..., :patch]  # which the model does not read, but upstream's loop continues
        return MaskedTimeseries(data, mask, nothing, times, times[..., 0])

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.module.unembed.weight.dtype
        return dtype

    def _sampled(
        self, series: Sequence[NDArray[np.float32]], horizon: int, spare: dict[str, Tensor]
    ) -> NDArray[np.float32]:
        stand_in = SharedContext(self.module, draws.Noise(series, self.seed), self.samples, spare)
        forecast = TotoForecaster(stand_in).forecast(
            self._inputs(series), horizon, num_samples=self.samples, samples_per_batch=self.samples
        )
        paths: NDArray[np.float32] = forecast.samples[:, 0].permute(0, 2, 1).float().numpy(force=True)
        return paths

    def teacher_forced(self, contexts: Sequence[ArrayLike]) -> Tensor:
        """The mixture over the patch after the contexts, normalised: [B, patch, K, 4].

        Of each of K components: weight, degrees of freedom, location, scale.
        """
        series = [x[-self.context_length :] for x in checked_contexts(contexts, 1)]
        outputs: dict[int, Tensor] = {}
        for rows in self._alike(series, ROWS):
            inputs = self._inputs([series[row] for row in rows])
            base = self.module(inputs.series, inputs.padding_mask, inputs.id_mask).distribution
            weights, parameters = mixture_of(base, self.module.patch_embed.patch_size)
            outputs |= dict(zip(rows, torch.cat([weights[..., None], parameters], -1)[:, 0], strict=True))
        return torch.stack([outputs[row] for row in range(len(series))])

    def save(self, directory: Path, *, evidence: Evidence | None = None) -> None:
        # the rotary embedding's buffers are shared by the layers; safetensors wants them apart
        tensors = {name: tensor.contiguous().clone() for name, tensor in self.upstream.state_dict().items()}
        metadata = {MAX_CONTEXT: str(self.context_length)}
        with pruned.written(self, directory, evidence) as aside:
            save_file(tensors, aside / "model.safetensors", metadata=metadata)
            (aside / "config.json").write_text(json.dumps(self._config, indent=2) + "\n")

    @property
    def saved_module(self) -> nn.Module:
        whole: nn.Module = self.upstream
        return whole

    def absent_attention(self, site: AttentionSite, output: nn.Linear | None) -> nn.Module:
        return AbsentTotoAttention(output, "wO" if output is not None else "")

    def adapt(self) -> None:
        sites = [site for block in self.anatomy.stacks[0].blocks for site in block.attention]
        size = self.module.embed_dim // self._config["num_heads"]
        toto_uneven.adapt(self.module, [site.heads for site in sites], size)

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole layers can go if those over time and over variates still alternate regularly."""
        kinds = [block.attention[0].kind for block in self.anatomy.stacks[0].blocks if block.attention]
        pattern = None
        if self.anatomy.whole_layers and len(kinds) > 1:  # upstream looks at a second layer
            pattern = toto_uneven.alternation(kinds)
        return {**config, "num_layers": len(kinds), **pattern} if pattern else None


def open_checkpoint(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Toto:
    """Builds the upstream model from config.json and loads the weights strictly."""
    model = blank(checkpoint)
    toto = model.upstream
    given = UpstreamToto._map_state_dict_keys(load_weights(checkpoint), XFORMERS_SWIGLU_AVAILABLE)
    kept = {name: tensor for name, tensor in given.items() if _DERIVED not in name}
    derived = {name: tensor for name, tensor in toto.state_dict().items() if _DERIVED in name}
    try:
        toto.load_state_dict(kept | derived, strict=True)
    except RuntimeError as error:
        raise TspruneError(
            f"{checkpoint.name}: config.json and weights disagree ({one_line(error)})"
        ) from error
    toto.to(device=device, dtype=dtype)
    return model


def blank(checkpoint: Checkpoint) -> Toto:
    """The model that config.json describes, with weights as upstream initialises them."""
    config = {**checkpoint.config, "use_memory_efficient_attention": False}  # a dense kernel instead
    try:
        toto = UpstreamToto(**config)
    except Exception as error:  # upstream raises whatever the value it stumbles over leads to
        raise TspruneError(
            f"{checkpoint.name}: config.json does not describe a Toto model ({one_line(error)})"
        ) from error
    context = checkpoint.context_length(GIFT_EVAL_CONTEXT, toto.model.patch_embed.patch_size)
    return Toto(toto, config, checkpoint.name, context)
