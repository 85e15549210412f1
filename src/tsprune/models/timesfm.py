"""TimesFM 2.5: causal decoder over patches, quantile forecasts, decoded in both signs."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timesfm import ForecastConfig, TimesFM_2p5_200M_torch
from timesfm.configs import ResidualBlockConfig
from timesfm.timesfm_2p5.timesfm_2p5_base import TimesFM_2p5_200M_Definition
from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch_module
from timesfm.torch.transformer import MultiHeadAttention
from timesfm.torch.util import DecodeCache
from torch import Tensor

from tsprune.anatomy import Anatomy, AttentionSite, Block, Factor, MLPSite, Readout, Size, Stack, TimeAxis
from tsprune.errors import TspruneError, one_line
from tsprune.models.absent import AbsentAttention
from tsprune.models.checkpoints import Checkpoint, Shapes
from tsprune.models.forecaster import LEVELS, Forecast, Forecaster
from tsprune.models.objects import network
from tsprune.models.stated import whole_number

_GIFT_EVAL_CONTEXT = 2048  # upstream's value there; config.json may state less ("max_context")


def _block(block: str, heads: int, head_dim: int) -> Block:
    path = f"{block}.attn"
    factors = (
        Factor(f"{path}.query_ln.scale"),
        Factor(f"{path}.key_ln.scale"),
        Factor(f"{path}.per_dim_scale.per_dim_scale", "softplus"),
    )
    site = AttentionSite.of_fused(
        "self",
        path,
        ("qkv_proj", "out"),
        heads,
        head_dim,
        factors=factors,
        others=(f"{block}.pre_attn_ln", f"{block}.post_attn_ln"),
        norm=f"{block}.post_attn_ln",
        sizes=(Size(path, "num_heads", "heads"), Size(path, "in_features", "width")),
    )
    others = tuple(f"{block}.{name}" for name in ("pre_ff_ln", "ff0", "activation", "post_ff_ln"))
    return Block(block, (site,), MLPSite(f"{block}.ff1", others, norm=f"{block}.post_ff_ln"))


def _anatomy(definition: TimesFM_2p5_200M_Definition) -> Anatomy:
    size = definition.stacked_transformers.transformer
    head_dim = size.model_dims // size.num_heads
    paths = [f"stacked_xf.{index}" for index in range(definition.stacked_transformers.num_layers)]
    blocks = (_block(path, size.num_heads, head_dim) for path in paths)
    depth = (Size("", "x", "layers"),)
    axis = TimeAxis(definition.input_patch_len)
    # the spread around the median, up to the horizon that it covers
    others = ("output_projection_quantiles",)
    readout = Readout(("output_projection_point",), others=others, only_position=True)
    stack = Stack("stack", tuple(blocks), time=axis, causal=True, sizes=depth)
    return Anatomy((stack,), size.model_dims, readout=readout)


def definition_of(shapes: Shapes) -> TimesFM_2p5_200M_Definition:
    """The size of the model, read off its tensors (upstream ignores config.json)."""
    original = TimesFM_2p5_200M_Definition()
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("stacked_xf."))
    hidden, width = shapes["stacked_xf.0.ff0.weight"]
    transformer = dataclasses.replace(
        original.stacked_transformers.transformer,
        model_dims=width,
        hidden_dims=hidden,
        num_heads=width // shapes["stacked_xf.0.attn.query_ln.scale"][0],
    )

    def residual(name: str, block: ResidualBlockConfig) -> ResidualBlockConfig:
        inner, inputs = shapes[f"{name}.hidden_layer.weight"]
        outputs = shapes[f"{name}.output_layer.weight"][0]
        return dataclasses.replace(block, input_dims=inputs, hidden_dims=inner, output_dims=outputs)

    spread = residual("output_projection_quantiles", original.output_projection_quantiles)
    return dataclasses.replace(
        original,
        tokenizer=residual("tokenizer", original.tokenizer),
        stacked_transformers=dataclasses.replace(
            original.stacked_transformers, num_layers=layers, transformer=transformer
        ),
        output_projection_point=residual("output_projection_point", original.output_projection_point),
        output_projection_quantiles=spread,
        output_quantile_len=spread.output_dims // (len(original.quantiles) + 1),
    )


class AbsentTimesFMAttention(AbsentAttention):
    def forward(self, *args: Any, inputs_q: Tensor, decode_cache: Any = None, **kwargs: Any) -> Any:
        return self.contribution(inputs_q), decode_cache  # upstream passes everything by name


class NarrowAttention(MultiHeadAttention):
    """Attention with fewer heads than another layer's, whose cache is the size of the widest."""

    def forward(self, *args: Any, decode_cache: DecodeCache | None = None, **kwargs: Any) -> Any:
        if decode_cache is not None:
            decode_cache.key = decode_cache.key[:, :, : self.num_heads]
            decode_cache.value = decode_cache.value[:, :, : self.num_heads]
        return super().forward(*args, decode_cache=decode_cache, **kwargs)


class TimesFM(Forecaster):
    """`upstream` is the `TimesFM_2p5_200M_torch` wrapper, recompiled (cheaply) at each forecast."""

    family = "timesfm"
    absent = AbsentTimesFMAttention
    half = False
    upstream: TimesFM_2p5_200M_torch
    module: TimesFM_2p5_200M_torch_module

    def __init__(self, module: TimesFM_2p5_200M_torch_module, name: str, context_length: int) -> None:
        self.name = name
        self.module = module.eval()
        self.context_length = context_length
        self.anatomy = _anatomy(module.config)
        self.readout_horizon = module.o
        self.prefix_steps = min(module.o, module.os)  # see `settings`
        # the wrapper builds a model of its own, of the class's fixed size: replace it, do not build it
        self.upstream = TimesFM_2p5_200M_torch.__new__(TimesFM_2p5_200M_torch)
        self.upstream.model = module
        self.upstream.torch_compile = False

    def settings(self, longest: int, horizon: int, batch_size: int) -> ForecastConfig:
        """Upstream's settings for GIFT-Eval, with no more padding than `longest` contexts need."""
        length = min(self.context_length, math.ceil(longest / self.module.p) * self.module.p)
        return ForecastConfig(
            max_context=length,
            max_horizon=math.ceil(horizon / self.module.o) * self.module.o,
            normalize_inputs=True,
            per_core_batch_size=batch_size,
            use_continuous_quantile_head=horizon <= self.module.os,
            force_flip_invariance=True,
            infer_is_positive=True,
            fix_quantile_crossing=True,
        )

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int) -> Forecast:
        settings = self.settings(max(map(len, series)), horizon, len(series))
        limit = self.module.config.context_limit
        if settings.max_context + settings.max_horizon > limit:
            raise TspruneError(
                f"history of {settings.max_context} and horizon of {horizon} steps are more than "
                f"TimesFM's limit of {limit}; shorten one of them"
            )
        self.upstream.compile(settings)
        with torch.no_grad():
            _, outputs = self.upstream.forecast(horizon, list(series))
        return Forecast(np.ascontiguousarray(outputs[..., 1:].transpose(0, 2, 1), dtype=np.float32), LEVELS)

    def _readout_quantiles(self, output: Tensor, count: int, horizon: int) -> Tensor:
        return output[:count, :horizon, 1:].transpose(1, 2)  # the mean comes first

    def _teacher_forced(self, series: list[NDArray[np.float32]]) -> Tensor:
        """Normalised outputs after every patch, for the series and its negative.

        Shape [B, 2, patches, output_patch_len * 10]; recorded on the way through `forecast`.
        """
        return torch.stack(self._outputs_of(self.module.output_projection_point, series), dim=1)

    def config_file(self) -> dict[str, Any]:
        return {
            "architecture": "timesfm-2.5",
            "max_context": self.context_length,
            "definition": dataclasses.asdict(self.module.config),
        }

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        super().to(device, dtype)
        self.module.device, self.module.device_count = device, 1

    def adapt(self) -> None:
        sites = [site for block in self.anatomy.stacks[0].blocks for site in block.attention]
        self.module.h = max((site.heads for site in sites), default=1)  # of the caches of all layers
        for site in sites:
            if site.heads < self.module.h:
                self.module.get_submodule(site.module).__class__ = NarrowAttention

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> TimesFM:
        try:
            size = definition_of(checkpoint.shapes)

            class SizedModule(TimesFM_2p5_200M_torch_module):
                config = size

            module = SizedModule()
        except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
            raise TspruneError(
                f"{checkpoint.name}: not a complete TimesFM 2.5 checkpoint ({one_line(error, 200)})"
            ) from error
        limit = checkpoint.config.get("max_context", _GIFT_EVAL_CONTEXT)
        if whole_number(module.p)(limit):
            raise TspruneError(f"{checkpoint.name}: max_context in config.json must be at least {module.p}")
        return cls(module, checkpoint.name, limit)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> TimesFM:
        """The model of a `TimesFM_2p5_200M_torch` or its network in memory, which keeps its own settings.

        The history is as long as the wrapper is compiled for; if it is not, as in upstream's GIFT-Eval runs.
        """
        module = network(upstream, TimesFM_2p5_200M_torch_module, TimesFM_2p5_200M_torch)
        if "forward" in vars(module):  # upstream compiles it by default; hooks need the original
            module = copy.copy(module)
            del module.forward
        settings = getattr(upstream, "forecast_config", None)
        limit = settings.max_context if settings is not None else _GIFT_EVAL_CONTEXT
        return cls(module, name, max(limit, module.p))
