"""Chronos-T5: T5 over quantised values, sampled token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from chronos import chronos as upstream_module
from chronos.chronos import ChronosConfig, ChronosModel, ChronosPipeline, ChronosTokenizer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import T5ForConditionalGeneration

from tsprune.models import draws
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.chronos_decoding import quick_decoding
from tsprune.models.contexts import padded
from tsprune.models.finite import Broken, watched
from tsprune.models.forecaster import Forecast, SamplingForecaster
from tsprune.models.objects import network
from tsprune.models.pretrained import check_tokens, quiet_horizon, quietly, set_generation
from tsprune.models.stated import flag, mapping, real, require, whole_number, word
from tsprune.models.t5 import T5Forecaster, t5_anatomy, t5_config

# of chronos_config in config.json
_SETTINGS = {
    "tokenizer_class": word,
    "tokenizer_kwargs": mapping,
    **dict.fromkeys(("context_length", "prediction_length", "n_tokens", "n_special_tokens"), whole_number()),
    **dict.fromkeys(("pad_token_id", "eos_token_id"), whole_number(0)),
    "use_eos_token": flag,
    "model_type": word,
    "num_samples": whole_number(most=2**16),
    "temperature": real(1e-6, 1e6),
    "top_k": whole_number(),
    "top_p": real(1e-6, 1),
}
_ROWS = 320  # paths that are sampled together: each holds the keys and values of its whole history


@contextmanager
def shared_context(
    crossing: Sequence[nn.Module], decoder: nn.Module, noise: draws.Noise, samples: int
) -> Iterator[None]:
    """While it lasts, tokens are drawn from `noise`, and all paths of a window share its context.

    `generate` repeats the encoder's output for each of the window's paths, one after the other. Here
    cross-attention sees it once a window: it makes and caches keys and values of that, and takes the
    paths' queries for positions of one sequence. A step then reads the keys once, not once a path,
    the largest part of a step's cost.

    Calls of torch are looked at where one of them may be meant, in cross-attention and outside of the
    decoder: of a small model's step, looking at all of them would take a tenth.

    crossing : the modules of cross-attention
    """
    tokens, together = _InForce(draws.TokenDraws(noise, samples)), _InForce(_PathsTogether(samples))

    def begin(site: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        together.begin()
        return args, {**kwargs, "key_value_states": kwargs["key_value_states"][::samples]}

    hooks = [decoder.register_forward_pre_hook(tokens.end)]
    hooks += [decoder.register_forward_hook(tokens.begin, always_call=True)]
    for site in crossing:
        hooks += [site.register_forward_pre_hook(begin, with_kwargs=True)]
        hooks += [site.register_forward_hook(together.end, always_call=True)]
    try:
        tokens.begin()
        yield
    finally:
        tokens.end()
        for hook in hooks:
            hook.remove()


class _InForce:
    """A mode that hooks switch on and off; doing either twice is doing it once."""

    def __init__(self, mode: TorchFunctionMode) -> None:
        self._mode = mode
        self._on = False

    def begin(self, *_: Any) -> None:
        if not self._on:
            self._mode.__enter__()
            self._on = True

    def end(self, *_: Any) -> None:
        if self._on:
            self._on = False
            self._mode.__exit__(None, None, None)


class _PathsTogether(TorchFunctionMode):
    """Cross-attention of all paths of a window at once."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self._samples = samples

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._attended(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attended(
        self, func: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, **how: Any
    ) -> Tensor:
        """Attention of queries [windows * samples, heads, 1, head_dim] over [windows, heads, T, head_dim]."""
        mask = how.pop("attn_mask", None)
        paths = query.unflatten(0, (-1, self._samples)).squeeze(-2).transpose(1, 2)
        mask = None if mask is None else mask[:: self._samples]
        output: Tensor = func(paths, key, value, attn_mask=mask, **how)
        return output.transpose(1, 2).flatten(0, 1)[..., None, :]


class Chronos(T5Forecaster, SamplingForecaster):
    """`upstream` is the `ChronosPipeline`."""

    family = "chronos-t5"
    cached = True
    _quick = False
    upstream: ChronosPipeline
    module: T5ForConditionalGeneration

    def __init__(self, pipeline: ChronosPipeline, name: str) -> None:
        self.name = name
        self.upstream = pipeline
        self.module = pipeline.model.model.eval()
        ends = pipeline.model.config.use_eos_token
        self.anatomy = t5_anatomy(self.module.config, "lm_head", marks=int(ends))
        self.context_length = pipeline.model.config.context_length
        self.samples = pipeline.model.config.num_samples

    @contextmanager
    def quick(self) -> Iterator[None]:
        before, self._quick = self._quick, True
        try:
            yield
        finally:
            self._quick = before

    def _forecast(self, series: list[NDArray[np.float32]], horizon: int) -> Forecast:
        series = [x[-self.context_length :] for x in series]
        most = math.ceil(len(series) / math.ceil(len(series) * self.samples / _ROWS))
        if self._quick and (decoding := quick_decoding(self)) is not None:
            chunks = [series[start : start + most] for start in range(0, len(series), most)]
            return self.from_samples(np.concatenate([decoding.paths(chunk, horizon) for chunk in chunks]))
        sites = [site for _, site in self.anatomy.sites() if site.keys_from is not None and site.heads]
        crossing = [self.module.get_submodule(site.module) for site in sites]
        paths = []
        for start in range(0, len(series), most):
            chunk = series[start : start + most]
            noise = draws.Noise(chunk, self.seed)
            shared = shared_context(crossing, self.module.decoder, noise, self.samples)
            broken = Broken()  # paths with a token that was drawn from NaN, which is a token like others
            logits = watched([self.module.lm_head], broken, clean=False)
            with quiet_horizon(upstream_module.logger), shared, logits:
                drawn = self.upstream.predict(
                    torch.from_numpy(padded(chunk)), horizon, num_samples=self.samples
                )
            noise.require_used("chronos-forecasting or transformers")
            paths.append(broken.marked(drawn.flatten(0, 1)).view(drawn.shape).numpy())
        return self.from_samples(np.concatenate(paths))

    def _teacher_forced(self, series: list[NDArray[np.float32]]) -> Tensor:
        """Logits of the tokens of the contexts' last steps, given all before them: [B, steps, tokens].

        The encoder sees the history before these steps (as many as one pass forecasts, at most half of
        the context length).
        """
        limit = self.context_length
        steps = min(self.upstream.model.config.prediction_length, limit // 2)
        contexts = torch.from_numpy(padded([x[-limit:] for x in series]))
        if contexts.shape[-1] <= steps:
            contexts = torch.nn.functional.pad(contexts, (steps + 1 - contexts.shape[-1], 0), value=torch.nan)
        tokenizer = self.upstream.tokenizer
        tokens, mask, scale = tokenizer.context_input_transform(contexts[:, :-steps])
        labels, _, _ = tokenizer._input_transform(contexts[:, -steps:], scale)
        output: Tensor = self.module(
            input_ids=tokens.to(self.device),
            attention_mask=mask.to(self.device),
            decoder_input_ids=self.module._shift_right(labels.to(self.device)),
            use_cache=False,
        ).logits
        return output

    @classmethod
    def blank(cls, checkpoint: Checkpoint) -> Chronos:
        config = t5_config(checkpoint, _SETTINGS)
        limits = config.chronos_config["tokenizer_kwargs"]
        require(limits, {"low_limit": real(-1e9, 1e9), "high_limit": real(-1e9, 1e9)}, "tokenizer_kwargs")
        if not limits["low_limit"] < limits["high_limit"]:
            raise ValueError("low_limit is not below high_limit")
        model = quietly(lambda: T5ForConditionalGeneration(config))
        check_tokens(model, start=True)
        set_generation(model, checkpoint)
        return cls(_pipeline(model), checkpoint.name)

    @classmethod
    def adopt(cls, upstream: Any, name: str) -> Chronos:
        """The model of a `ChronosPipeline`, its `ChronosModel` or its network in memory."""
        if isinstance(upstream, ChronosPipeline):
            network(upstream.model.model, T5ForConditionalGeneration)
            return cls(upstream, name)
        return cls(_pipeline(network(upstream, T5ForConditionalGeneration, ChronosModel)), name)


def _pipeline(model: T5ForConditionalGeneration) -> ChronosPipeline:
    """The pipeline that config.json describes; raises if it does not."""
    config = ChronosConfig(**model.config.chronos_config)
    if config.model_type != "seq2seq":
        raise ValueError(f"model_type is {config.model_type!r}")
    tokenizer = getattr(upstream_module, config.tokenizer_class, None)
    if not (isinstance(tokenizer, type) and issubclass(tokenizer, ChronosTokenizer)):
        raise ValueError(f"{config.tokenizer_class} is no tokenizer")
    if config.n_tokens != model.config.vocab_size:
        raise ValueError(f"n_tokens is {config.n_tokens}, but vocab_size {model.config.vocab_size}")
    if config.n_tokens < config.n_special_tokens + 3:
        raise ValueError(f"{config.n_tokens} tokens of which {config.n_special_tokens} are special")
    return ChronosPipeline(config.create_tokenizer(), ChronosModel(config, model))
