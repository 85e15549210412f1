"""Attribution of a forecast to what wrote it: embedding, heads, biases and MLPs of the last stack.

1. The residual stream at the position that is read is a sum: the embedding and what every sublayer
   wrote. A head wrote its columns of the output projection times its output; norms between a sublayer
   and the stream are frozen at the gain that they had.
2. The final norm is frozen as well, so what it hands to the readout is the same sum, scaled.
3. The readout's gradient is averaged along the straight path from nothing to that sum (integrated
   gradients, Sundararajan et al., arXiv 1703.01365). What a component wrote times this average is its
   contribution, and contributions add up to readout(stream) - readout(0): completeness, which is
   checked. For token models the readout is linear, and this is direct logit attribution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tsprune.anatomy import AttentionSite, Block, Component, Readout
from tsprune.capture import Point, recording
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import BATCH_SIZE, PER_CONFIGURATION, batched, sampled
from tsprune.explain.intervals import column_intervals, series_means
from tsprune.models.forecaster import Forecaster
from tsprune.stream import streams

COMPLETE = 1e-3
MOST_STEPS = 4096

Function = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Contributions to a scalar of the network's output, window by window.

    names : of the C parts, in order of execution: `embedding`, head and MLP addresses, and
        `decoder.3.cross.bias` for the bias of an output projection
    values : float64 [B, C], contributions
    total : float64 [B], readout(stream) - readout(0), which the contributions add up to
    writes : [B, C, d_model], what each part wrote to the stream
    stream : [B, d_model], the stream itself, which the writes add up to
    """

    names: tuple[str, ...]
    values: Tensor
    total: Tensor
    writes: Tensor
    stream: Tensor

    @property
    def shares(self) -> NDArray:  # type: ignore[type-arg]
        """Contributions over the total, [B, C]."""
        return (self.values / self.total[:, None]).numpy(force=True)


def contributions(model: Forecaster, contexts: Sequence[ArrayLike]) -> Attribution:
    """Attributes what the network says of each of B contexts to the parts of its last stack.

    contexts : B windows of one length

    The scalar is, for token models, the logit of the likeliest next token over the vocabulary's mean;
    for others, how far the output (all levels and steps, normalised) is from that of an empty stream,
    along that very direction.

    Raises TspruneError if the anatomy does not say how the stream is read, or if 4,096 steps of
    integration do not add up to within 1e-3 of the total.
    """
    readout = model.anatomy.readout
    if readout is None:
        raise TspruneError(f"{model.name}: its anatomy does not say how the residual stream is read")
    names, writes, stream = _written(model, contexts, readout)
    gain = _final_gain(model, readout, stream)
    normed = (stream * gain).double()
    function = _scalar(model, readout, normed)
    with torch.no_grad():
        total = function(normed) - function(torch.zeros_like(normed))
    scaled = (writes * gain[:, None]).double()
    values = _integrated(model, function, normed, scaled, total)
    return Attribution(names, values, total, writes, stream)


def attribution(
    model: Forecaster,
    suite: Suite,
    *,
    per_configuration: int = PER_CONFIGURATION,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of the forecast that each part wrote, over windows of a suite; see `contributions`.

    One row a part: part, kind (embedding, head, bias, mlp), layer (-1: the embedding), share (of the
    total; over all parts they sum to 1), low, high (95 % over series), and size: mean absolute share,
    which does not cancel over windows. Nulls: the shares of an idle part are 0, and 1 / parts
    is an even part's.

    Raises TspruneError as `contributions` does, or for a suite without windows.
    """
    suite.require_windows()
    chosen = sampled(suite, model, per_configuration)
    shares: list[Tensor] = []
    series: list[Tensor] = []
    names: tuple[str, ...] = ()
    for batch in batched(chosen, model, batch_size):
        found = contributions(model, batch.contexts)
        names = found.names
        shares.append(torch.from_numpy(found.shares))
        series.append(torch.from_numpy(batch.series))
    values, owners = torch.cat(shares).numpy(), torch.cat(series).numpy()
    mean, low, high = column_intervals(series_means(values, owners), seed)
    size, _, _ = column_intervals(series_means(abs(values), owners), seed)
    columns = {"part": names, "kind": [_kind(name) for name in names], "layer": [_layer(n) for n in names]}
    return pd.DataFrame({**columns, "share": mean, "low": low, "high": high, "size": size})


def _kind(name: str) -> str:
    if name == "embedding" or name.endswith(".bias"):
        return name.rpartition(".")[2]
    return Component.parse(name).kind


def _layer(name: str) -> int:
    return -1 if name == "embedding" else int(name.split(".")[1])


# --- 1. what was written -------------------------------------------------------------------------


def _points(block: Block) -> dict[str, Point]:
    """Where a block's writes are seen: inputs of output projections, outputs, and norms after them."""
    points = {}
    for site in block.attention:
        points[f"{site.kind} in"] = Point(site.output, "input", site.swapped)
        if site.norm is not None:
            points[f"{site.kind} out"] = Point(site.output, "output", site.swapped)
            points[f"{site.kind} normed"] = Point(site.norm, "output", site.swapped)
    if block.mlp is not None:
        points["mlp"] = Point(block.mlp.norm or block.mlp.output, "output")
    return points


def _written(
    model: Forecaster, contexts: Sequence[ArrayLike], readout: Readout
) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Names [C], writes [B, C, d_model] and their sum, the stream [B, d_model], at the position read."""
    stack = model.anatomy.stacks[-1]
    points = [_points(block) for block in stack.blocks]
    every = [point for of_block in points for point in of_block.values()]
    with torch.no_grad(), recording(model.module, every) as recorded, streams(model, stack) as stream:
        model.teacher_forced(contexts)

    def at(tensors: Sequence[Tensor], point: Point | None = None) -> Tensor:
        # a family may run several passes over a window: the first is the window as it is
        windows_first = tensors if point is None else [point.windows_first(x) for x in tensors]
        rows = torch.cat([x.flatten(0, -3)[:, readout.position] for x in windows_first])
        return rows[: len(contexts)]

    names, writes = ["embedding"], [at(stream[0])]
    for (layer, block), of_block in zip(stack.numbered(), points, strict=True):
        seen = {name: at(recorded[point], point) for name, point in of_block.items()}
        for site in block.attention:
            gain = _gain(seen[f"{site.kind} out"], seen[f"{site.kind} normed"]) if site.norm else None
            address = Component(stack.name, layer, site.kind).address
            for name, write in _site_writes(model, site, seen[f"{site.kind} in"]):
                names.append(f"{address}.{name}")
                writes.append(write if gain is None else write * gain)
        if block.mlp is not None:
            names.append(Component(stack.name, layer, mlp=True).address)
            writes.append(seen["mlp"])
    return tuple(names), torch.stack(writes, dim=1), at(stream[-1])


def _site_writes(model: Forecaster, site: AttentionSite, mixed: Tensor) -> list[tuple[str, Tensor]]:
    """What the heads, and the bias if there is one, wrote: [B, d_model] each, from `mixed` [B, features]."""
    projection = model.module.get_submodule(site.output)
    weight = projection.get_parameter("weight").detach()
    found = [
        (f"head.{head}", mixed[:, site.columns(head)] @ weight[:, site.columns(head)].T)
        for head in site.numbers
    ]
    bias = getattr(projection, "bias", None)
    if bias is not None:
        found.append(("bias", bias.detach().expand(len(mixed), -1)))
    return found


def _gain(before: Tensor, after: Tensor) -> Tensor:
    """What a norm multiplied each feature by; of a feature that was 0, nothing can be said, or need be."""
    return torch.where(before == 0, 0, after / torch.where(before == 0, 1, before))


# --- 2. how it is read ---------------------------------------------------------------------------


def _final_gain(model: Forecaster, readout: Readout, stream: Tensor) -> Tensor:
    """What the final norm and scale multiply the stream [B, d_model] by."""
    if readout.norm is None:
        return torch.full_like(stream, readout.scale)
    with torch.no_grad():
        normed = model.module.get_submodule(readout.norm)(stream)
    return _gain(stream, normed) * readout.scale


def read(model: Forecaster, readout: Readout, normed: Tensor) -> Tensor:
    """The network's output for what the final norm returned: [B, d_model] to [B, outputs]."""
    x = normed.to(next(model.module.parameters()).dtype)
    for number, path in enumerate(readout.modules):
        module = model.module.get_submodule(path)
        width = getattr(module, "in_features", x.shape[-1])
        if x.shape[-1] > width:
            x = x.unflatten(-1, (-1, width))
        last = number == len(readout.modules) - 1
        x = module(x, torch.tensor(readout.patch)) if last and readout.patch is not None else module(x)
    return x.flatten(1).double()


def _scalar(model: Forecaster, readout: Readout, normed: Tensor) -> Function:
    """What is attributed, as a function of what the final norm returned: [N * B, d_model] to [N * B]."""
    with torch.no_grad():
        output = read(model, readout, normed)
        if readout.tokens:
            likeliest = torch.nn.functional.one_hot(output.argmax(-1), output.shape[-1]).double()
            direction = likeliest - 1 / output.shape[-1]
        else:
            away = output - read(model, readout, torch.zeros_like(normed))
            direction = away / away.norm(dim=-1, keepdim=True)

    def function(x: Tensor) -> Tensor:
        found = read(model, readout, x)
        return (found * direction.repeat(len(found) // len(direction), 1)).sum(-1)

    return function


# --- 3. along the path ---------------------------------------------------------------------------


def _integrated(
    model: Forecaster, function: Function, normed: Tensor, scaled: Tensor, total: Tensor
) -> Tensor:
    """Contributions [B, C] of `scaled` writes [B, C, d_model]; midpoint rule, finer until it adds up."""
    steps = 1
    while steps <= MOST_STEPS:
        average = torch.zeros_like(normed)
        for part in torch.arange(steps).split(64):
            at = (part + 0.5) / steps
            path = (at[:, None, None] * normed).flatten(0, 1).requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(function(path).sum(), path)
            average += gradient.unflatten(0, (len(at), -1)).sum(0)
        values = torch.einsum("bcd,bd->bc", scaled, average / steps)
        if ((values.sum(-1) - total).abs() <= COMPLETE * total.abs()).all():
            return values
        steps *= 4
    raise TspruneError(
        f"{model.name}: contributions do not add up to the forecast within {COMPLETE:g} of it in "
        f"{MOST_STEPS} steps of integration"
    )
