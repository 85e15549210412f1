"""Toto 1.0: causal decoder over patches, a Student-t mixture for each next patch, sampled.

Layers of a pruned model may have unlike numbers of heads, or none (`make_uneven`). Upstream allocates one
key-value cache for all layers, with the first layer's number of heads, reads the length of the history off a
layer that must have attention over time, and expands the mask over variates to the first layer's heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from toto.data.util.dataset import MaskedTimeseries
from toto.inference.forecaster import TotoForecaster
from toto.model.attention import AttentionAxis
from toto.model.backbone import TotoBackbone
from toto.model.toto import Toto as UpstreamToto
from toto.model.transformer import XFORMERS_SWIGLU_AVAILABLE, Transformer
from toto.model.util import KVCache

from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Readout, Size, Stack, TimeAxis
from tsprune.models import draws
from tsprune.models.absent import AbsentAttention
from tsprune.models.checkpoints import MAX_CONTEXT, Checkpoint
from tsprune.models.contexts import padded
from tsprune.models.forecaster import Forecast, SamplingForecaster
from tsprune.models.objects import network
from tsprune.models.stated import anything, flag, list_of, mapping, or_none, real, whole_number, word
from tsprune.models.toto_sampling import SharedHistory, mixture_of, read_at_end, watched_mixture
from tsprune.models.variates import places_by, rows_of, variates_in

# upstream's GIFT-Eval script is not part of its package: 256 is what the evaluation that is
# (toto.evaluation.fev) draws by default, 4096 is not stated anywhere in it
_GIFT_EVAL_CONTEXT = 4096  # the weights' metadata may state less
_GIFT_EVAL_SAMPLES = 256
_ROWS = 8192  # paths that are drawn together
STEPWISE_ROWS = 512  # where a second patch is drawn, for which each path has keys and values of its own
_NOTE = "pre_xformers_checkpoint"  # which only upstream's loader reads
_SIZES = {  # of config.json
    **dict.fromkeys(
        ("patch_size", "stride", "embed_dim", "num_layers", "num_heads", "mlp_hidden_dim"), whole_number()
    ),
    "dropout": real(0, 0.99),
    "spacewise_every_n_layers": whole_number(-1),
    "scaler_cls": word,
    "output_distribution_classes": list_of(word),
    "spacewise_first": flag,
    "output_distribution_kwargs": or_none(mapping),
    "use_memory_efficient_attention": flag,
    "stabilize_with_global": flag,
    "scale_factor_exponent": real(0, 1e6),
    _NOTE: anything,
}
_ROLES = {AttentionAxis.TIME: "time", AttentionAxis.SPACE: "variate"}


def _anatomy(backbone: TotoBackbone) -> Anatomy:
    blocks = []
    for index, layer in enumerate(backbone.transformer.layers):
        path = f"transformer.layers.{index}"
        attention = f"{path}.attention"
        role = _ROLES[layer.attention_axis]
        site = AttentionSite.of_fused(
            role,
            attention,
            ("wQKV", "wO"),
            layer.num_heads,
            layer.embed_dim // layer.num_heads,
            interleaved=True,  # rows are (q or k or v, dimension, head)
            axis="time" if role == "time" else "series",
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


class AbsentTotoAttention(AbsentAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.contribution(args[1])  # after the layer's index


class Toto(SamplingForecaster):
    """`upstream` is the `Toto` model that `TotoForecaster` takes the backbone of.

    Upstream does not mask the padding of short series in its attention, so series are forecast
    together only with others of as many patches. A missing value counts as padding.
    """

    family = "toto"
    absent = AbsentTotoAttention
    multivariate = True
    upstream: UpstreamToto
    module: TotoBackbone

    def __init__(self, toto: UpstreamToto, config: Mapping[str, object], name: str, context: int) -> None:
        self.name = name
        self.upstream = toto.eval()
        self.module = toto.model
        self.anatomy = _anatomy(toto.model)
        self.context_length = context
        self.samples = _GIFT_EVAL_SAMPLES
        self._config: dict[str, Any] = dict(config)

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int) -> Forecast:
        visible, variates = [x[..., -self.context_length :] for x in series], variates_in(series[0])
        paths = np.empty((len(series), variates, self.samples, horizon), dtype=np.float32)
        spare: dict[str, Tensor] = {}
        rows_at_once = _ROWS if horizon <= self.module.patch_embed.patch_size else min(_ROWS, STEPWISE_ROWS)
        for rows in self._alike(visible, max(1, rows_at_once // (variates * self.samples))):
            chunk = [visible[row] for row in rows]
            history, noise = self._inputs(chunk), draws.Noise(rows_of(chunk), self.seed)
            stand_in = SharedHistory(self.module, history, noise, self.samples, horizon, spare)
            forecast = TotoForecaster(stand_in).forecast(
                stand_in.tail, horizon, num_samples=self.samples, samples_per_batch=self.samples
            )
            noise.require_used("toto")
            drawn = forecast.samples.permute(0, 1, 3, 2).float()
            paths[rows] = drawn.masked_fill(stand_in.lost[..., None], torch.nan).numpy(force=True)
        return self.from_samples(paths.reshape(-1, self.samples, horizon))

    def _alike(self, series: Sequence[NDArray[np.float32]], most: int) -> list[list[int]]:
        """Rows of `series` that are as many patches long, in chunks of `most`."""
        size = self.module.patch_embed.patch_size
        by_length = places_by(-(-values.shape[-1] // size) for values in series)
        return [rows[i : i + most] for rows in by_length.values() for i in range(0, len(rows), most)]

    def _inputs(self, series: Sequence[NDArray[np.float32]]) -> MaskedTimeseries:
        """Series of as many patches and variates, right-aligned, [B, V, T]."""
        values = padded(rows_of(series), self.module.patch_embed.patch_size)
        values = values.reshape(len(series), -1, values.shape[-1])
        known = np.isfinite(values)
        zeroed = torch.from_numpy(np.where(known, values, np.float32(0)))
        data = zeroed.to(self.device, self.module.unembed.weight.dtype)
        nothing = torch.zeros(data.shape, dtype=torch.int, device=self.device)
        mask = torch.from_numpy(known).to(self.device)
        times = nothing[:, :0]  # the model does not read them, but upstream's loop goes on step by step
        return MaskedTimeseries(data, mask, nothing, times, times[..., 0])

    def _teacher_forced(self, series: list[NDArray[np.float32]]) -> Tensor:
        """The mixture over the patch after the contexts, normalised: [B, patch, K, 4].

        Of each of K components: weight, degrees of freedom, location, scale.
        """
        visible = [x[..., -self.context_length :] for x in series]
        outputs: dict[int, Tensor] = {}
        for rows in self._alike(visible, _ROWS):
            inputs = self._inputs([visible[row] for row in rows])
            patch = self.module.patch_embed.patch_size
            with read_at_end(self.module, patch), watched_mixture(self.module) as broken:
                base = self.module(inputs.series, inputs.padding_mask, inputs.id_mask).distribution
            weights, parameters = mixture_of(base, patch, broken)
            outputs |= dict(zip(rows, torch.cat([weights[..., None], parameters], -1), strict=True))
        return torch.cat([outputs[row] for row in range(len(series))])

    def config_file(self) -> dict[str, Any]:
        return dict(self._config)

    def stored_metadata(self) -> dict[str, str]:
        return {MAX_CONTEXT: str(self.context_length)}

    def upstream_name(self, stored: str) -> str:
        """Checkpoints have the fused or the unfused SwiGLU."""
        (name,) = UpstreamToto._map_state_dict_keys({stored: None}, XFORMERS_SWIGLU_AVAILABLE)
        return str(name)

    @property
    def saved_module(self) -> nn.Module:
        whole: nn.Module = self.upstream
        return whole

    def adapt(self) -> None:
        sites = [site for block in self.anatomy.stacks[0].blocks for site in block.attention]
        size = self.module.embed_dim // self._config["num_heads"]
        make_uneven(self.module, [site.heads for site in sites], size)

    def upstream_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Whole layers can go if those over time and over variates still alternate regularly."""
        roles = [block.attention[0].role for block in self.anatomy.stacks[0].blocks if block.attention]
        pattern = None
        if self.anatomy.whole_layers and len(roles) > 1:  # upstream looks at a second layer
            pattern = alternation(roles)
        return {**config, "num_layers": len(roles), **pattern} if pattern else None

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Toto:
        config = checkpoint.settings(_SIZES)
        config = {**config, "use_memory_efficient_attention": False}  # a dense kernel instead
        toto = UpstreamToto(**{key: value for key, value in config.items() if key != _NOTE})
        context = checkpoint.context_length(_GIFT_EVAL_CONTEXT, toto.model.patch_embed.patch_size)
        return cls(toto, config, checkpoint.name, context)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Toto:
        """The model of a `Toto`, `TotoForecaster` or `TotoBackbone` in memory."""
        toto = upstream
        if not isinstance(upstream, UpstreamToto):
            toto = object.__new__(UpstreamToto)
            nn.Module.__init__(toto)
            toto.model, toto.model_kwargs = network(upstream, TotoBackbone, TotoForecaster), {}
        return cls(toto, _config_of(toto.model), name, _GIFT_EVAL_CONTEXT)


def _config_of(backbone: TotoBackbone) -> dict[str, Any]:
    layer, scaler, output = backbone.transformer.layers[0], backbone.scaler, backbone.output_distribution
    roles = [_ROLES[layer.attention_axis] for layer in backbone.transformer.layers]
    components = getattr(output, "k_components", None)
    return {
        "patch_size": backbone.patch_embed.patch_size,
        "stride": backbone.patch_embed.stride,
        "embed_dim": backbone.embed_dim,
        "num_layers": backbone.num_layers,
        "num_heads": layer.num_heads,
        "mlp_hidden_dim": layer.mlp_hidden_dim,
        "dropout": backbone.dropout,
        **(alternation(roles) or {}),
        "scaler_cls": f"<class 'model.scaler.{type(scaler).__name__}'>",
        "output_distribution_classes": [f"<class 'model.distribution.{type(output).__name__}'>"],
        "output_distribution_kwargs": None if components is None else {"k_components": components},
        "use_memory_efficient_attention": False,
        "stabilize_with_global": getattr(scaler, "stabilize_with_global", True),
        "scale_factor_exponent": getattr(scaler, "scale_factor_exponent", 10.0),
    }


@dataclasses.dataclass
class UnevenCache(KVCache):
    """Keys and values [time layers, B * variates, most heads, time, head_dim]; layers fill their part.

    How much is filled is advanced by the transformer, for all layers at once: none need have attention.
    """

    def seq_len(self, layer_idx: int) -> int:
        return int(self.current_len(0))

    def append(self, layer_idx: int, kv: Any) -> None:
        keys, values = kv
        _, heads, steps, _ = keys.shape
        place, start = int(self._layer_cache_map[layer_idx]), self.current_len(0)
        self._keys[place, :, :heads, start : start + steps] = keys
        self._values[place, :, :heads, start : start + steps] = values
        self._filled = heads, start + steps

    def __getitem__(self, layer_idx: int) -> Any:
        """The entries up to the last `append`; attention reads them right after it."""
        place = int(self._layer_cache_map[layer_idx])
        heads, end = self._filled
        return self._keys[place, :, :heads, :end], self._values[place, :, :heads, :end]


class UnevenTransformer(Transformer):
    def _get_mask(self, num_heads: int, dtype: Any, id_mask: Tensor | None = None) -> Tensor:
        mask: Tensor = super()._get_mask(1, dtype, id_mask)  # the same for all heads: broadcast
        return mask

    def forward(
        self, inputs: Tensor, id_mask: Tensor, kv_cache: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        before = kv_cache.current_len(0) if kv_cache is not None else 0
        output = super().forward(inputs, id_mask, kv_cache, *args, **kwargs)
        if kv_cache is not None:
            kv_cache._current_idx.fill_(before + output.shape[2])
        return output


class UnevenBackbone(TotoBackbone):
    heads: Sequence[int]
    head_dim: int

    def allocate_kv_cache(
        self, batch_size: int, num_variates: int, max_time_steps: int, device: Any, dtype: Any
    ) -> KVCache:
        most = max((1, *self.heads))
        return UnevenCache(
            batch_size=batch_size,
            num_variates=num_variates,
            transformer_layers=list(self.transformer.layers),
            num_layers=self.num_layers,
            embed_dim=most * self.head_dim,
            num_heads=most,
            max_seq_len=-(-max_time_steps // self.patch_embed.stride),
            device=device,
            dtype=dtype,
            use_memory_efficient_attention=False,
        )


def make_uneven(backbone: Any, heads: Sequence[int], head_dim: int) -> None:
    """Makes `backbone` cope with attention sublayers of these numbers of heads."""
    backbone.__class__, backbone.transformer.__class__ = UnevenBackbone, UnevenTransformer
    backbone.heads, backbone.head_dim = tuple(heads), head_dim


def alternation(kinds: Sequence[str]) -> dict[str, Any] | None:
    """Upstream's settings that make layers of these kinds ("time", "variate"); None: there are none.

    >>> alternation(["time", "variate", "time", "variate"])
    {'spacewise_every_n_layers': 2, 'spacewise_first': False}
    """
    if "variate" not in kinds:
        return {"spacewise_every_n_layers": -1}
    for every in range(1, len(kinds) + 1):
        for first in (False, True):
            others = ["time"] * (every - 1)
            period = ["variate", *others] if first else [*others, "variate"]
            if len(kinds) % every == 0 and period * (len(kinds) // every) == list(kinds):
                return {"spacewise_every_n_layers": every, "spacewise_first": first}
    return None
