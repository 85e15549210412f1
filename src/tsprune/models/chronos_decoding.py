"""Chronos-T5's paths by a loop of our own: upstream's draws, in about a third of the time of `generate`.

Products of matrices as small as a step's take less time than the modules around them. Here

1. weights are transposed beforehand, and scaled by the norm before; projections of one input are one product;
2. the paths of a window share the keys and values of its context;
3. a module is called only where hooks wait: output projections and MLPs, the places of heads and MLPs.

Logits are upstream's up to rounding. A path is another one only if a draw falls that near to the border
between two tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tsprune.errors import TspruneError
from tsprune.models.absent import Nothing
from tsprune.models.contexts import padded
from tsprune.models.draws import Noise
from tsprune.models.sampled_tokens import TokenSampling
from tsprune.models.t5 import AbsentT5Attention

if TYPE_CHECKING:
    from tsprune.models.chronos import Chronos


_KEPT: WeakKeyDictionary[Chronos, QuickDecoding] = WeakKeyDictionary()


def token_sampling(model: Chronos, heads: int) -> TokenSampling:
    """How `model` draws paths.

    heads : of the decoder's cache, in all layers together

    Raises TspruneError for a model that samples in other ways than with a temperature and `top_k`.
    """
    settings = model.upstream.model.config
    if settings.top_p < 1:
        raise TspruneError(f"{model.name} samples with top_p {settings.top_p:g}; it is not exported")
    network: Any = model.module
    limits = settings.tokenizer_kwargs
    return TokenSampling(
        samples=model.samples,
        seed=model.seed,
        history=model.context_length,
        steps=settings.prediction_length,
        tokens=settings.n_tokens,
        special=settings.n_special_tokens,
        pad=settings.pad_token_id,
        end=settings.eos_token_id,
        ends=settings.use_eos_token,
        begin=network.config.decoder_start_token_id,
        low=limits["low_limit"],
        high=limits["high_limit"],
        temperature=settings.temperature,
        most_likely=settings.top_k,
        heads=heads,
        head_dim=network.config.d_kv,
    )


def quick_decoding(model: Chronos) -> QuickDecoding | None:
    """The loop for `model`; None where it would not compute what upstream does.

    Hooks on a module that the loop does not call would wait in vain, and replaced projections are not known.
    """
    decoder: Any = model.module.decoder
    if model.device.type != "cpu" or model.upstream.model.config.top_p < 1:
        return None
    heard = {id(module) for block in decoder.block for module in _called(block)}
    for module in decoder.modules():
        plain = type(module) is nn.Linear or not hasattr(module, "weight") or module.weight.ndim != 2
        if not (plain or isinstance(module, nn.Embedding)) or (_awaited(module) and id(module) not in heard):
            return None
    weights = [*model.module.parameters()]
    found = _KEPT.get(model)
    if found is None or not found.made_of(weights):
        found = _KEPT[model] = QuickDecoding(model, weights)
    found.sampling = token_sampling(model, heads=1)
    return found


class QuickDecoding:
    """The paths of a Chronos-T5 with the weights that it had when this was made, on a CPU."""

    sampling: TokenSampling

    @torch.no_grad()
    def __init__(self, model: Chronos, weights: Sequence[Tensor]) -> None:
        self._made_of = [(weight, weight._version) for weight in weights]
        self._network: Any = model.module
        self._tokenizer = model.upstream.tokenizer
        decoder = self._network.decoder
        self._normed = _Norm(decoder.final_layer_norm)
        self._layers = [_Layer(block, decoder.config.d_kv, self._normed) for block in decoder.block]
        biased = [layer.own for layer in self._layers if layer.own is not None]
        self._biased = next((site for site in biased if site.has_relative_attention_bias), None)
        last = decoder.final_layer_norm
        scale = decoder.config.d_model**-0.5 if decoder.config.tie_word_embeddings else 1.0
        self._head = scale * _product(last, self._network.lm_head)

    def made_of(self, weights: Sequence[Tensor]) -> bool:
        """Whether these are the weights, and none was changed in place since."""
        same = (
            old is now and count == now._version
            for (old, count), now in zip(self._made_of, weights, strict=False)
        )
        return len(weights) == len(self._made_of) and all(same)

    @torch.no_grad()
    def paths(self, series: Sequence[NDArray[np.float32]], horizon: int) -> NDArray[np.float32]:
        """Paths [B, S, horizon], NaN where a logit is not finite; long horizons go on from their median."""
        how, context = self.sampling, padded(series)
        noise, parts = Noise(series, how.seed), list[NDArray[np.float32]]()
        while (left := horizon - sum(part.shape[2] for part in parts)) > 0:
            tokens, observed, scale = self._tokenizer.context_input_transform(torch.from_numpy(context))
            drawn, finite = self._decoded(tokens, observed, noise, min(left, how.steps))
            values = self._tokenizer.output_transform(torch.from_numpy(drawn), scale).numpy()
            parts.append(np.where(finite[..., None], values, np.float32(np.nan)))
            ordered = np.sort(parts[-1], axis=1)  # torch's median is the lower one of two
            context = np.concatenate([context, ordered[:, (how.samples - 1) // 2]], axis=1)
        return np.concatenate(parts, axis=2)

    def _decoded(
        self, tokens: Tensor, observed: Tensor, noise: Noise, steps: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens [B, S, steps], and paths [B, S] whose logits are all finite."""
        samples = self.sampling.samples
        encoded = self._network.encoder(input_ids=tokens, attention_mask=observed)
        bias = None if self._biased is None else self._biased.compute_bias(steps, steps)[0]
        unseen = None if observed.all() else torch.where(observed, 0.0, -torch.inf)[:, None, None]
        for layer in self._layers:
            layer.begin(encoded.last_hidden_state, samples, steps)
        shape = len(tokens), samples
        last, found = np.full(shape, self.sampling.begin, dtype=np.int64), []
        finite = np.ones(shape, dtype=bool)
        for place in range(steps):
            x = functional.embedding(torch.from_numpy(last.ravel()), self._network.shared.weight)
            for layer in self._layers:
                x = layer.step(x, place, bias, unseen)
            logits = (self._normed(x) @ self._head).view(*shape, -1).numpy()
            finite &= np.isfinite(logits.max(axis=-1)) & np.isfinite(logits.min(axis=-1))
            last = self.sampling.drawn(logits, noise.uniform(samples).numpy())
            found.append(last)
        return np.stack(found, axis=2), finite


class _Norm:
    """`x` [R, d] over its root mean square, by a product: of so few rows it is quicker than `rms_norm`."""

    def __init__(self, norm: Any) -> None:
        width = len(norm.weight)
        self._epsilon = norm.weight.new_tensor(norm.variance_epsilon)
        self._mean = norm.weight.new_full((width, 1), 1 / width)

    def __call__(self, x: Tensor) -> Tensor:
        return x * torch.addmm(self._epsilon, x.square(), self._mean).rsqrt_()


def _called(block: Any) -> list[nn.Module]:
    """The modules of a block that the loop calls if hooks wait."""
    own, other = block.layer[0].SelfAttention, block.layer[1].EncDecAttention
    names = ("o", "k", "v")
    crossing = [getattr(other, name) for name in names if hasattr(other, name)]
    return [block.layer[2].DenseReluDense, *crossing, *([own.o] if hasattr(own, "o") else [])]


class _Layer:
    """One block of the decoder. `begin` comes before the steps of a pass.

    own, other : the modules of self- and cross-attention; None without heads
    """

    def __init__(self, block: Any, dim: int, normed: _Norm) -> None:
        first, second, last = block.layer
        self.own, self.other = (
            None if isinstance(site, AbsentT5Attention) else site
            for site in (first.SelfAttention, second.EncDecAttention)
        )
        self._mlp: Any = last.DenseReluDense
        self._dim, self._norm, self._normed = dim, last.layer_norm, normed
        if self.own is not None:
            parts = (self.own.q, self.own.k, self.own.v)
            self._inputs = torch.stack([_product(first.layer_norm, part) for part in parts])
            self._own_output = _product(None, self.own.o)
        if self.other is not None:
            self._query = _product(second.layer_norm, self.other.q)
            self._other_output = _product(None, self.other.o)
        self._dense = None
        if (wi := getattr(self._mlp, "wi", None)) is not None:
            self._dense = _product(self._norm, wi), _product(None, self._mlp.wo)

    def begin(self, encoded: Tensor, samples: int, steps: int) -> None:
        """Keys and values of the context `encoded` [B, T, d_model], and room for those of the steps."""
        self._samples = samples
        if self.own is not None:
            heads = self.own.q.out_features // self._dim
            shape = len(encoded) * samples * heads, steps, self._dim
            self._keys, self._values = encoded.new_empty(shape), encoded.new_empty(shape)
        if self.other is not None:
            keys, values = (
                part(encoded).unflatten(-1, (-1, self._dim)) for part in (self.other.k, self.other.v)
            )
            self._cross_keys = keys.permute(0, 2, 3, 1).contiguous()
            self._cross_values = values.transpose(1, 2).contiguous()

    def step(self, x: Tensor, place: int, bias: Tensor | None, unseen: Tensor | None) -> Tensor:
        """The residual stream [R, d_model] of all paths after this block.

        bias : [heads, steps, steps]; unseen : [B, 1, 1, T], -inf where the context is missing
        """
        if self.own is not None:
            x = _added(x, self._attended(x, place, bias), self.own.o, self._own_output)
        if self.other is not None:
            x = _added(x, self._crossed(x, unseen), self.other.o, self._other_output)
        if isinstance(self._mlp, Nothing):
            return x
        if self._dense is None or _awaited(self._mlp):
            written: Tensor = self._mlp((self._normed(x) * self._norm.weight)[:, None])
            return x + written[:, 0]
        wi, wo = self._dense
        written = self._mlp.act(self._normed(x) @ wi)
        return torch.addmm(x, written, wo)

    def _attended(self, x: Tensor, place: int, bias: Tensor | None) -> Tensor:
        rows, until = len(x), place + 1
        parts = torch.bmm(self._normed(x).expand(3, -1, -1), self._inputs).view(3, -1, self._dim)
        self._keys[:, place], self._values[:, place] = parts[1], parts[2]
        logits = torch.bmm(parts[0, :, None], self._keys[:, :until].transpose(1, 2))
        if bias is not None:
            now = bias[:, place, None, :until]
            chosen = getattr(self.own, "selected_heads", None)  # of a pruned model
            logits.view(rows, -1, 1, until).add_(now if chosen is None else now[chosen])
        read: Tensor = torch.bmm(logits.softmax(-1), self._values[:, :until])
        return read.view(rows, -1)

    def _crossed(self, x: Tensor, unseen: Tensor | None) -> Tensor:
        query = (self._normed(x) @ self._query).view(-1, self._samples, self._query.shape[1])
        logits = query.unflatten(-1, (-1, self._dim)).transpose(1, 2) @ self._cross_keys
        if unseen is not None:
            logits += unseen
        read: Tensor = logits.softmax(-1) @ self._cross_values
        return read.transpose(1, 2).reshape(len(x), -1)


def _product(norm: Any, linear: Any) -> Tensor:
    """Weights [inputs, outputs] of a linear module, scaled by those of the norm before."""
    weight: Tensor = linear.weight.T
    scaled: Tensor = weight if norm is None else norm.weight[:, None] * weight
    return scaled.contiguous()


def _awaited(module: nn.Module) -> bool:
    """Whether hooks wait for a call of `module`."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def _added(x: Tensor, written: Tensor, output: nn.Module, weight: Tensor) -> Tensor:
    """The stream [R, d_model] with what an output projection makes of `written` [R, width]."""
    if _awaited(output):
        projected: Tensor = output(written[:, None])
        return x + projected[:, 0]
    return torch.addmm(x, written, weight)
