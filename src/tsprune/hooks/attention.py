"""Attention maps of every head on data, recomputed from the queries and keys that the model uses.

All families attend through torch's `scaled_dot_product_attention`, with final queries and keys (rotated,
normalised, scaled) and with position biases in the mask. Intercepting that call therefore gives the maps as
they are applied; the attention module that is running identifies the sublayer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster, NotFiniteError


@dataclasses.dataclass(frozen=True)
class AttentionMap:
    """The maps of one attention sublayer in one call, for N rows (windows, unless it attends over series).

    A sublayer may attend for some of its queries at a time, to some keys: its map has all queries and keys.

    component : the attention sublayer, e.g. `decoder.3.cross`
    weights : float [N, heads, Q, K], heads in the order of the site's `numbers`; rows sum to 1, or are 0 if
        no key is allowed
    allowed : bool, broadcasts to `weights`; keys that the masks leave to a query
    value : [N, heads, K, head_dim], which the weights mix
    times : [Q] and [K] on the CPU, time steps of queries and keys (see `TimeAxis`), NaN where undefined
    """

    component: Component
    weights: Tensor
    allowed: Tensor
    value: Tensor
    times: tuple[Tensor, Tensor]

    @property
    def lags(self) -> Tensor:
        """Steps from each key to each query, [Q, K], NaN where undefined; on the device of `weights`."""
        queries, keys = self.times
        return (queries[:, None] - keys).to(self.weights.device)

    @property
    def real(self) -> Tensor:
        """Queries that are not padding, bool [N, heads, Q].

        In self-attention over time, these are the positions that the last one may attend to, because all
        series end there and padding comes first. In other attention, all queries count.
        """
        allowed = self.allowed.expand_as(self.weights)
        if self.component.attention in ("self", "time") and allowed.shape[-2] == allowed.shape[-1]:
            return allowed[..., -1, :]
        return torch.ones(allowed.shape[:-1], dtype=torch.bool, device=allowed.device)

    @property
    def counted(self) -> Tensor:
        """Queries that are `real` and have at least two keys to choose from, bool [N, heads, Q]."""
        return self.real & (self.choices > 1)

    @property
    def choices(self) -> Tensor:
        """Number of keys that each query may attend to, [N, heads, Q]."""
        return self.allowed.expand_as(self.weights).sum(-1)

    @property
    def entropy(self) -> Tensor:
        """Entropy of every row in nats, between 0 and log(`choices`), [N, heads, Q]."""
        entropy: Tensor = torch.special.entr(self.weights).sum(-1)
        return entropy

    @property
    def sharpness(self) -> Tensor:
        """1 - entropy / log(choices), [N, heads, Q] (arXiv 2602.01605): 0 if even, 1 for a single key."""
        return 1 - self.entropy / self.choices.clamp_min(2).log()


Watcher = Callable[[AttentionMap], None]
_Weighed = tuple[Tensor, Tensor, Tensor]  # weights and allowed keys [N, heads, Q, K], values


def require_heads(model: Forecaster) -> None:
    """Raises TspruneError if the model has no attention head (left)."""
    if not model.anatomy.components("head"):
        raise TspruneError(f"{model.name} has no attention heads left to examine")


@contextmanager
def watching(model: Forecaster, each: Watcher) -> Iterator[None]:
    """Calls `each` with every attention map that is applied while the context lasts.

    Maps are made one at a time, without autograd, and are not kept. Their times are valid for
    `teacher_forced` passes only.

    Raises NotFiniteError if attention weights are not finite, and TspruneError on leaving if an attention
    sublayer ran without `scaled_dot_product_attention` (a checkpoint loaded with eager attention).
    """
    mode = _Interception(model, each)
    with model.alone(keeps=True), ExitStack() as hooks:
        for component, site in model.anatomy.sites():
            if site.heads:  # without heads, only the output bias is left
                module = model.module.get_submodule(site.module)
                hooks.callback(module.register_forward_pre_hook(partial(mode.enter, component)).remove)
                hooks.callback(module.register_forward_hook(mode.leave).remove)
        with mode:
            yield
    if mode.unseen:
        raise TspruneError(
            f"{model.name}: {mode.unseen[0]} ran without torch's scaled_dot_product_attention; set "
            'attn_implementation to "sdpa" in its config.json to examine its attention'
        )


class _Interception(TorchFunctionMode):
    """Passes every torch call on, and maps the attention calls of each sublayer when it returns."""

    def __init__(self, model: Forecaster, each: Watcher) -> None:
        super().__init__()
        self._anatomy = model.anatomy
        self._name = model.name
        self._each = each
        self._running: Component | None = None
        self._found: list[_Weighed] = []  # by the sublayer that is running
        self.unseen: list[Component] = []

    def enter(self, component: Component, *_: Any) -> None:
        self._running, self._found = component, []

    def leave(self, *_: Any) -> None:
        component, found = self._running, self._found
        self._running, self._found = None, []
        if component is not None and not found:
            self.unseen.append(component)
        elif component is not None:
            with torch.no_grad():
                self._each(self._map(component, _joined(found)))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and self._running is not None:
            with torch.no_grad():
                self._found.append(self._weighed(self._running, *args, **kwargs))
        return func(*args, **kwargs)

    def _weighed(
        self, component: Component, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kw: Any
    ) -> _Weighed:
        weights, allowed = attention_weights(query, key, *args, **kw)
        if not bool(torch.isfinite(weights).all()):
            raise NotFiniteError(f"{self._name}: the attention of {component} is not finite")
        heads = self._anatomy.site(component).heads
        if value.shape[:-2] != weights.shape[:-2]:  # grouped queries
            value = value.repeat_interleave(heads // value.shape[-3], dim=-3)
        merged = weights.shape[0], heads, *weights.shape[-2:]
        values = value.reshape(*merged[:2], *value.shape[-2:])
        return weights.reshape(merged), allowed.expand_as(weights).reshape(merged), values

    def _map(self, component: Component, weighed: _Weighed) -> AttentionMap:
        weights, allowed, value = weighed
        stacks = self._anatomy.stack(component.stack), self._anatomy.key_stack(component)
        times = []
        for stack, count in zip(stacks, weights.shape[-2:], strict=True):
            axis = stack.time if self._anatomy.site(component).axis == "time" else None
            times.append(torch.tensor((math.nan,) * count if axis is None else axis.times(count)))
        return AttentionMap(component, weights, allowed, value, (times[0], times[1]))


def _joined(calls: Sequence[_Weighed]) -> _Weighed:
    """Calls for queries that follow each other as one; the keys of each are the first of the longest's."""
    if len(calls) == 1:
        return calls[0]
    value = max((value for _, _, value in calls), key=lambda x: x.shape[-2])
    missing = [(0, value.shape[-2] - weights.shape[-1]) for weights, _, _ in calls]
    weights, allowed = (
        torch.cat([pad(call[part], last) for call, last in zip(calls, missing, strict=True)], -2)
        for part in (0, 1)
    )
    return weights, allowed, value


def attention_weights(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """The weights that `scaled_dot_product_attention` gives the values, from its other arguments.

    query : [..., Q, d]; key : [..., K, d]; attn_mask : bool (True: allowed) or added to the logits

    Returns weights [..., Q, K], zero in rows without an allowed key, and bool `allowed`, which broadcasts
    to them. Formula: softmax(q . k * scale + mask), scale 1/sqrt(d) by default (torch's documentation).
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    logits = query.float() @ key.float().mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    allowed = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            allowed = allowed & attn_mask
        else:
            # masks are the type's smallest number or -inf; position biases are far larger
            allowed = allowed & (attn_mask > torch.finfo(attn_mask.dtype).min / 2)
            logits = logits + attn_mask.float()
    weights = logits.masked_fill(~allowed, -torch.inf).softmax(-1)
    return weights.masked_fill(~allowed, 0), allowed
