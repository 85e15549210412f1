"""Attribution of a forecast to what wrote it: embedding, heads, biases and MLPs.

1. The residual stream at the position that is read is a sum: the embedding and what every sublayer of
   the last stack wrote (`writes`).
2. The final norm is frozen, so what it hands to the readout is the same sum, scaled.
3. The readout's gradient is averaged along the straight path from nothing to that sum (integrated
   gradients, Sundararajan et al., arXiv 1703.01365). What a component wrote times this average is its
   contribution, and contributions add up to readout(stream) - readout(0): completeness, which is
   checked. For token models the readout is linear, and this is direct logit attribution.
4. Only the last stack writes to the stream that is read. What an encoder found reaches it through the
   decoder's cross-attention, and counts as written by the heads that fetched it; what these
   contributed is then divided once more, among the parts of the encoder that wrote what was fetched
   (`fetched`).

All of it is direct: what a component does to the attention, norms and input of others counts as theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tsprune.anatomy import Readout
from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import PER_CONFIGURATION, SAMPLED_BATCH, Owners, batched, sampled
from tsprune.explain.attribution.cross_attention import crossing, divided, recorded_source, source_of
from tsprune.explain.attribution.writers import gain_of, kind_of, layer_of, recorded_writes
from tsprune.models.forecaster import Forecaster

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
    sources : of the E parts of the stack that cross-attention reads, named alike; none without one
    fetched : float64 [B, E], what the heads of cross-attention contributed, divided among these
    """

    names: tuple[str, ...]
    values: Tensor
    total: Tensor
    writes: Tensor
    stream: Tensor
    sources: tuple[str, ...]
    fetched: Tensor

    @property
    def shares(self) -> NDArray[np.float64]:
        """Contributions over the total, [B, C + E]: of `names`, then of `sources`."""
        values = torch.cat([self.values, self.fetched], dim=1)
        return np.asarray((values / self.total[:, None]).numpy(force=True))


def contributions(model: Forecaster, contexts: Sequence[ArrayLike]) -> Attribution:
    """Attributes what the network says of each of B contexts to the parts of its stacks.

    contexts : B windows of one length

    The scalar is, for token models, the logit of the likeliest next token over the vocabulary's mean;
    for others, how far the output (all levels and steps, normalised) is from that of an empty stream,
    along that very direction.

    Raises TspruneError if the anatomy does not say how the stream is read, if 4,096 steps of
    integration do not add up to within 1e-3 of the total, or what was fetched not to that within 1e-3.
    """
    anatomy = model.anatomy
    readout, source = anatomy.readout, source_of(anatomy)
    if readout is None:
        raise TspruneError(f"{model.name}: its anatomy does not say how the residual stream is read")
    with torch.no_grad(), ExitStack() as watched:
        written = watched.enter_context(recorded_writes(model, anatomy.stacks[-1], len(contexts)))
        fetching = (
            None if source is None else watched.enter_context(recorded_source(model, source, len(contexts)))
        )
        model.teacher_forced(contexts)
    stream, parts = written.stream(readout.position), tuple(written.parts(readout.position))
    writes = torch.stack([part.written for part in parts], dim=1)
    gain = _final_gain(model, readout, stream)
    normed = (stream * gain).double()
    function = _scalar(model, readout, normed)
    with torch.no_grad():
        total = function(normed) - function(torch.zeros_like(normed))
    gradient = _average_gradient(model, function, normed, total)
    worth = gradient * gain
    values = torch.einsum("bcd,bd->bc", writes.double(), worth)
    sources: tuple[str, ...] = ()
    fetched = values[:, :0]
    if source is not None and fetching is not None:
        heads = [place for place, part in enumerate(parts) if crossing(part.name, anatomy) is not None]
        sources, fetched = divided(
            model,
            source,
            *fetching,
            heads=[parts[place] for place in heads],
            position=readout.position,
            worth=worth,
        )
        _check_fetched(model, fetched, values[:, heads], total)
    return Attribution(tuple(part.name for part in parts), values, total, writes, stream, sources, fetched)


def _check_fetched(model: Forecaster, fetched: Tensor, heads: Tensor, total: Tensor) -> None:
    if ((fetched.sum(-1) - heads.sum(-1)).abs() > COMPLETE * total.abs()).any():
        raise TspruneError(
            f"{model.name}: what cross-attention fetched does not add up to what its heads contributed "
            f"within {COMPLETE:g} of the forecast; its anatomy may not say which norm stands between"
        )


@checked
def attribution(
    model: Forecaster,
    suite: Suite,
    *,
    per_configuration: int = PER_CONFIGURATION,
    batch_size: int = SAMPLED_BATCH,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of the forecast that each part of the model wrote, over windows of a suite.

    See `contributions`. The parts of the last stack wrote all of it: their shares sum to 1. Those of an
    encoder sum to the share of the decoder's cross-attention heads, who fetched what they wrote.

    One row a part: part, stack, kind (embedding, head, bias, mlp), layer (-1: the embedding), share (of
    the total), low, high (95 % over configurations), and size: mean absolute share, which does not cancel
    over windows. Nulls: the shares of an idle part are 0, and an even part's are what its stack sums to
    over the number of its parts.

    Raises TspruneError as `contributions` does, or for a suite without windows.
    """
    suite.require_windows()
    chosen = sampled(suite, model, per_configuration)
    shares, owners = [], Owners()
    parts: list[tuple[str, str]] = []
    for batch in batched(chosen, model, batch_size):
        found = contributions(model, batch.contexts)
        names = [stack.name for stack in model.anatomy.stacks]
        parts = [(name, names[-1]) for name in found.names]
        parts += [(name, name.split(".")[0]) for name in found.sources]
        shares.append(found.shares)
        owners.add(batch)
    values = np.concatenate(shares)
    shared = owners.sample(values).estimates(seed=seed)
    size = owners.sample(abs(values)).means()
    columns = {
        "part": [name for name, _ in parts],
        "stack": [stack for _, stack in parts],
        "kind": [kind_of(name) for name, _ in parts],
        "layer": [layer_of(name) for name, _ in parts],
    }
    share = {"share": shared.value, "low": shared.low, "high": shared.high, "size": size}
    return pd.DataFrame(columns | share)


# --- how the stream is read ---------------------------------------------------------------------------


def _final_gain(model: Forecaster, readout: Readout, stream: Tensor) -> Tensor:
    """What the final norm and scale multiply the stream [B, d_model] by."""
    if readout.norm is None:
        return torch.full_like(stream, readout.scale)
    with torch.no_grad():
        normed = model.module.get_submodule(readout.norm)(stream)
    return gain_of(stream, normed) * readout.scale


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


# --- along the path ---------------------------------------------------------------------------


def _average_gradient(model: Forecaster, function: Function, normed: Tensor, total: Tensor) -> Tensor:
    """Of `function` along the path from 0 to `normed`, [B, d_model]: midpoint rule, finer till it sums up."""
    steps = 1
    while steps <= MOST_STEPS:
        average = torch.zeros_like(normed)
        for part in torch.arange(steps).split(64):
            at = (part + 0.5) / steps
            path = (at[:, None, None] * normed).flatten(0, 1).requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(function(path).sum(), path)
            average += gradient.unflatten(0, (len(at), -1)).sum(0)
        average /= steps
        if (((normed * average).sum(-1) - total).abs() <= COMPLETE * total.abs()).all():
            return average
        steps *= 4
    raise TspruneError(
        f"{model.name}: contributions do not add up to the forecast within {COMPLETE:g} of it in "
        f"{MOST_STEPS} steps of integration"
    )
