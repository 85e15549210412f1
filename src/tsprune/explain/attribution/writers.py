"""Writers of a residual stream: the embedding, heads, biases of output projections, and MLPs.

A stream is the sum of their writes. A head writes its output times its columns of the output projection.
Norms between a sublayer and the stream are frozen at their gain. What is written is multiplied by the factors
of all later additions (`tsprune.hooks.mixing`).

In the context of an ablation, writes are those of the ablated model. A head has what replaced its output. The
heads of an attention sublayer that is ablated as a whole write nothing; what replaced the sublayer's output
counts as its bias.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor

from tsprune.anatomy import AttentionSite, Block, Component, Stack
from tsprune.hooks.capture import Point, point_in, projection_point, recording
from tsprune.hooks.mixing import scales
from tsprune.hooks.stream import streams
from tsprune.models.forecaster import Forecaster

EMBEDDING = "embedding"
_SIDES: tuple[Literal["input", "output"], ...] = ("input", "output")


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the parts that add up to a stream; ... stands for positions, absent if there is one.

    name : `embedding`, a head's or MLP's address, or `decoder.3.cross.bias`
    given : [B, ..., features], its output before `weight`
    weight : [d_model, features], the head's columns of the output projection; None: identity
    gain : [B, ..., d_model] of a norm on the way to the stream, and other factors; None: 1
    replaced : whether an ablation put `given` there, so that nothing the network read is in it
    """

    name: str
    given: Tensor
    weight: Tensor | None = None
    gain: Tensor | None = None
    replaced: bool = False

    @property
    def written(self) -> Tensor:
        """Its write to the stream, [B, ..., d_model]."""
        write = self.given if self.weight is None else self.given @ self.weight.T
        return write if self.gain is None else write * self.gain


def kind_of(name: str) -> str:
    """Kind of a part: embedding, bias, head or mlp."""
    return name.rpartition(".")[2] if name.endswith((EMBEDDING, ".bias")) else Component.parse(name).kind


def layer_of(name: str) -> int:
    """Layer of a part; -1: the embedding."""
    return -1 if name.endswith(EMBEDDING) else int(name.split(".")[1])


def first_pass(tensors: Sequence[Tensor], position: int | slice, windows: int) -> Tensor:
    """The windows' streams at a position [windows, d_model], or several [windows, T, d_model].

    tensors : by call, [..., T, d_model]

    A family may run several passes over a window: the first one is of the window unchanged.
    """
    return torch.cat([x.flatten(0, -3)[:, position] for x in tensors])[:windows]


class Writes:
    """Writes to the stream of one stack, in one run of the network."""

    def __init__(
        self,
        model: Forecaster,
        stack: Stack,
        recorded: Mapping[Point, Sequence[Tensor]],
        computed: Mapping[Point, Sequence[Tensor]],
        stream: Sequence[Sequence[Tensor]],
        windows: int,
    ) -> None:
        self._model, self._stack, self._windows = model, stack, windows
        self._recorded, self._computed, self._stream = recorded, computed, stream

    def stream(self, position: int | slice) -> Tensor:
        """The last layer's stream at a position [B, d_model], or several [B, T, d_model]."""
        return first_pass(self._stream[-1], position, self._windows)

    def parts(self, position: int | slice) -> Iterator[Part]:
        """Every part of `stream(position)`, in order of execution."""
        scale, left = scales(self._model, self._stack)
        embedding = first_pass(self._stream[0], position, self._windows)
        yield Part(EMBEDDING, embedding, gain=left.expand_as(embedding) if scale else None)
        for layer, block in self._stack.numbered():
            seen = {}
            for name, point in _points(block).items():
                tensors = [point.windows_first(x) for x in self._recorded[point]]
                seen[name] = first_pass(tensors, position, self._windows)
            for site in block.attention:
                sublayer = Component(self._stack.name, layer, site.role)
                yield from self._of_attention(block, site, sublayer, seen, scale.get(sublayer))
            if block.mlp is not None:
                mlp = Component(self._stack.name, layer, mlp=True)
                yield Part(mlp.address, seen["mlp"], gain=_scaled(None, scale.get(mlp), seen["mlp"].shape))

    def _of_attention(
        self,
        block: Block,
        site: AttentionSite,
        sublayer: Component,
        seen: Mapping[str, Tensor],
        factor: Tensor | None,
    ) -> Iterator[Part]:
        """Heads and bias of a sublayer; `factor` as of `scales`."""
        mixed, out = seen[f"{site.role} in"], seen[f"{site.role} out"]
        gain = gain_of(out, seen[f"{site.role} normed"]) if site.norm else None
        projection = self._model.module.get_submodule(site.output)
        weight = projection.get_parameter("weight").detach() * site.output_scale
        gain = _scaled(gain, factor, [*mixed.shape[:-1], len(weight)])
        whole = self._replaced(projection_point(block, site, "output"))
        before = projection_point(block, site, "input")
        for head in site.numbers:
            columns = site.columns(head)
            given = torch.zeros_like(mixed[..., columns]) if whole else mixed[..., columns]
            replaced = whole or self._replaced(before, columns)
            yield Part(f"{sublayer.address}.head.{head}", given, weight[:, columns], gain, replaced)
        bias = getattr(projection, "bias", None)
        if whole:
            yield Part(f"{sublayer.address}.bias", out, gain=gain, replaced=True)
        elif bias is not None:
            given = (bias.detach() * site.output_scale).expand(*mixed.shape[:-1], -1)
            yield Part(f"{sublayer.address}.bias", given, gain=gain)

    def _replaced(self, point: Point, columns: slice = slice(None)) -> bool:
        """Whether an ablation replaced any of the tensors at `point`, or these features of them."""
        pairs = zip(self._computed[point], self._recorded[point], strict=True)
        return any(
            one.data_ptr() != other.data_ptr()  # the hooks of an ablation pass on a copy
            and not torch.allclose(one[..., columns], other[..., columns], rtol=0, atol=0, equal_nan=True)
            for one, other in pairs
        )


@contextmanager
def recorded_writes(model: Forecaster, stack: Stack, windows: int) -> Iterator[Writes]:
    """Records the writes to the stream of `stack` while `windows` windows are run; read them afterwards."""
    every = {point for block in stack.blocks for point in _points(block).values()}
    sites = [(block, site) for block in stack.blocks for site in block.attention]
    ablated = [projection_point(*place, side) for place in sites for side in _SIDES]
    with ExitStack() as opened:
        computed = opened.enter_context(recording(model.module, ablated, first=True))
        recorded = opened.enter_context(recording(model.module, every))
        stream = opened.enter_context(streams(model, stack))
        yield Writes(model, stack, recorded, computed, stream, windows)


def _points(block: Block) -> dict[str, Point]:
    """Points that record a block's writes: inputs and outputs of output projections, and norms after them."""
    points = {}
    for site in block.attention:
        points[f"{site.role} in"] = projection_point(block, site, "input")
        points[f"{site.role} out"] = projection_point(block, site, "output")
        if site.norm is not None:
            points[f"{site.role} normed"] = point_in(block, site.norm, "output", swapped=site.swapped)
    if block.mlp is not None:
        points["mlp"] = point_in(block, block.mlp.norm or block.mlp.output, "output")
    return points


def _scaled(gain: Tensor | None, factor: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    """A gain times a factor, [B, ..., d_model]; None: 1."""
    if factor is None:
        return gain
    return factor.expand(shape) if gain is None else gain * factor


def gain_of(before: Tensor, after: Tensor) -> Tensor:
    """Factor by which a norm multiplied each feature; 0 for features of 0, whose factor is undefined."""
    return torch.where(before == 0, 0, after / torch.where(before == 0, 1, before))
