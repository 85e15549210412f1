"""Contributions of cross-attention, divided among the writers of the stream that it reads.

A cross-attention head writes W_O W_V sum_k a_k n(x_k): a_k is its attention to position k of the earlier
stack, x_k that stack's residual stream there, n its final norm. With the pattern a and the gain of n frozen,
the write is linear in x_k, and x_k is a sum of parts (`writers`). The contribution of a head is therefore
divided among the earlier stack's parts without remainder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tsprune.anatomy import Anatomy, Component, Stack
from tsprune.explain.attribution.writers import EMBEDDING, Part, Writes, gain_of, kind_of, recorded_writes
from tsprune.hooks.attention import AttentionMap, watching
from tsprune.models.forecaster import Forecaster

_Patterns = dict[Component, Tensor]


def crossing(name: str, anatomy: Anatomy) -> Component | None:
    """The head of cross-attention that a part's name addresses; None for other parts."""
    if kind_of(name) != "head":
        return None
    component = Component.parse(name)
    return None if anatomy.site(component).keys_from is None else component


def source_of(anatomy: Anatomy) -> Stack | None:
    """The stack whose stream the last stack reads; None if it reads only its own."""
    last = (pair for pair in anatomy.sites() if pair[0].stack == anatomy.stacks[-1].name)
    reading = (sublayer for sublayer, site in last if site.heads and site.keys_from is not None)
    return next(map(anatomy.key_stack, reading), None)


@contextmanager
def recorded_source(model: Forecaster, source: Stack, windows: int) -> Iterator[tuple[Writes, _Patterns]]:
    """Records the writes to the stream of `source`, and the attention of all sublayers that read it.

    Yields the writes, and the weights [B, heads, Q, K] by cross-attention sublayer.
    """
    patterns: _Patterns = {}

    def keep(found: AttentionMap) -> None:
        if model.anatomy.site(found.component).keys_from is not None:
            patterns.setdefault(found.component, found.weights[:windows])

    with recorded_writes(model, source, windows) as writes, watching(model, keep):
        yield writes, patterns


def divided(
    model: Forecaster,
    source: Stack,
    writes: Writes,
    patterns: _Patterns,
    *,
    heads: Sequence[Part],
    position: int,
    worth: Tensor,
) -> tuple[tuple[str, ...], Tensor]:
    """Contributions of `heads`, of cross-attention, divided among the parts of `source`.

    position : of the queries that is read
    worth : [B, d_model], contribution per unit of each feature of the last stack's stream

    Names [E] (the embedding's is `encoder.embedding`) and contributions float64 [B, E].
    """
    stream = writes.stream(slice(None))
    pull = torch.zeros_like(stream, dtype=torch.float64)
    for part in heads:
        component = crossing(part.name, model.anatomy)
        assert component is not None
        assert component.head is not None
        place = model.anatomy.site(component).position(component.head)
        attention = patterns[dataclasses.replace(component, head=None)][:, place, position]
        # an ablated head attends, but writes nothing
        attention = attention * (part.given != 0).any(-1, keepdim=True)
        pull += attention.double()[..., None] * _through(model, component, part, worth)[:, None]
    if source.norm is not None:
        with torch.no_grad():
            normed = model.module.get_submodule(source.norm)(stream)
        pull *= gain_of(stream, normed)
    names, values = [], []
    for part in writes.parts(slice(None)):
        names.append(f"{source.name}.{EMBEDDING}" if part.name == EMBEDDING else part.name)
        values.append((part.written * pull).sum((1, 2)))
    return tuple(names), torch.stack(values, dim=1)


def _through(model: Forecaster, head: Component, part: Part, worth: Tensor) -> Tensor:
    """Contribution per unit of each feature read by the head, at attention 1: [B, d_model]."""
    site = model.anatomy.site(head)
    assert head.head is not None
    assert part.weight is not None
    weight = model.module.get_submodule(site.value.module).get_parameter("weight").detach()
    value = weight[list(site.value.rows(site.key_head(head.head)))]  # [head_dim, d_model]
    at_head = worth if part.gain is None else worth * part.gain
    return at_head @ part.weight.double() @ value.double()
