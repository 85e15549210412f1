"""Attribution of a forecast to its writers: embedding, heads, biases and MLPs.

1. The residual stream at the position that is read is a sum of writes: of the embedding and of every sublayer
   of the last stack (`writers`).
2. The final norm is frozen, so the input of the readout is the same sum, scaled.
3. The readout's gradient is averaged along the straight path from zero to that sum (integrated gradients,
   Sundararajan et al., arXiv 1703.01365). The write of a component times this average is its contribution.
   Contributions add up to readout(stream) - readout(0); this completeness is checked. For token models the
   readout is linear, and the result is direct logit attribution.
4. Only the last stack writes to the stream that is read. The content of an encoder reaches it through
   cross-attention and is attributed to the heads that fetch it. Their contributions are then divided among
   the parts of the encoder: a head writes W_O W_V sum_k a_k n(x_k). a_k is its attention to position k of the
   encoder, x_k the residual stream there, n the encoder's final norm. With the pattern a and the gain of n
   frozen, the write is linear in x_k, which is a sum of parts, so the division leaves no remainder.

The attribution is direct: effects of a component on attention, norms and inputs of other components count as
theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tsprune.anatomy import Anatomy, Component, Readout, Stack
from tsprune.arguments import checked
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.evaluation.sampling import PER_CONFIGURATION, Owners, SampledWindows
from tsprune.explain.attribution.writers import (
    EMBEDDING,
    Part,
    Writes,
    gain_of,
    kind_of,
    layer_of,
    recorded_writes,
)
from tsprune.explain.window_means import of_batches
from tsprune.hooks.attention import AttentionMap, watching
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import Options, RunOptions
from tsprune.schema import Column, Schema, estimated

COMPLETE = 1e-3
_MOST_STEPS = 4096

_Function = Callable[[Tensor], Tensor]
_Patterns = dict[Component, Tensor]

ATTRIBUTION = Schema(
    "attribution",
    Column("part", "embedding, address of a head or MLP, or decoder.3.cross.bias", dtype="text"),
    Column("stack", "of the part", dtype="text"),
    Column("kind", "embedding, head, bias or mlp", dtype="text"),
    Column("layer", "of the part; -1: the embedding", dtype="count"),
    *estimated("share", "of the forecast, or of the content fetched from an encoder", "share", limits=""),
    Column("size", "mean absolute share; windows do not cancel", "share"),
)


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Contributions to a scalar of the network's output, window by window.

    names : names of the C parts, in order of execution: `embedding`, head and MLP addresses, and
        `decoder.3.cross.bias` for the bias of an output projection
    values : float64 [B, C], contributions
    total : float64 [B], readout(stream) - readout(0), the sum of the contributions
    writes : [B, C, d_model], write of each part to the stream
    stream : [B, d_model], the stream, the sum of the writes
    sources : names of the E parts of the stack that cross-attention reads; empty without such a stack
    fetched : float64 [B, E], contributions of cross-attention heads, divided among `sources`
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
        """Contributions divided by the total, [B, C + E]: of `names`, then of `sources`."""
        values = torch.cat([self.values, self.fetched], dim=1)
        return np.asarray((values / self.total[:, None]).numpy(force=True))


def contributions(model: Forecaster, contexts: Sequence[ArrayLike]) -> Attribution:
    """Attributes the network's output for each of B contexts to the parts of its stacks.

    contexts : B windows of one length

    The attributed scalar of token models is the logit of the likeliest next token minus the mean logit. For
    other models it is the distance of the output (all levels and steps, normalised) from the output of an
    empty stream, along the direction of that difference.

    Raises TspruneError if the anatomy has no readout, or if contributions do not add up to the total within
    1e-3 of it, with 4,096 steps of integration or in the division among an encoder's parts.
    """
    anatomy = model.anatomy
    readout, source = anatomy.readout, source_of(anatomy)
    if readout is None:
        raise TspruneError(f"{model.name}: its anatomy does not describe how the residual stream is read")
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
        # an ablated head attends, but writes nothing that it read
        heads = [
            place
            for place, part in enumerate(parts)
            if crossing(part.name, anatomy) is not None and not part.replaced
        ]
        sources, fetched = divided(
            model,
            source,
            *fetching,
            heads=[parts[place] for place in heads],
            position=readout.position,
            worth=worth,
        )
        if ((fetched.sum(-1) - values[:, heads].sum(-1)).abs() > COMPLETE * total.abs()).any():
            raise TspruneError(
                f"{model.name}: the parts of the encoder do not add up to the contributions of "
                f"cross-attention within {COMPLETE:g} of the forecast; a norm between them may be missing "
                "from its anatomy"
            )
    return Attribution(tuple(part.name for part in parts), values, total, writes, stream, sources, fetched)


@checked
def attribution(
    model: Forecaster, suite: Suite, *, per_configuration: int = PER_CONFIGURATION, **options: Unpack[Options]
) -> pd.DataFrame:
    """Share of the forecast that each part of the model wrote, over windows of a suite.

    Arguments as of `attention`; method as of `contributions`. One row per part; columns in `ATTRIBUTION`. The
    shares of the last stack sum to 1. The shares of an encoder sum to those of the decoder's cross-attention
    heads, which fetch its content. Nulls: an idle part has a share of 0; equal parts have their stack's sum
    divided by their number.

    Raises TspruneError as `contributions` does, or for a suite without windows.
    """
    chosen, owners = RunOptions(**options), Owners()
    shares, parts = [], pd.DataFrame()

    def attributed(batch: SampledWindows) -> Attribution:
        return contributions(model, batch.contexts)

    for found in of_batches(attributed, model, suite, per_configuration, chosen, owners, "attribution"):
        shares.append(found.shares)
        last = model.anatomy.stacks[-1].name
        parts = pd.DataFrame({"part": [*found.names, *found.sources]})
        parts["stack"] = [*[last] * len(found.names), *(name.split(".")[0] for name in found.sources)]
    parts["kind"], parts["layer"] = parts["part"].map(kind_of), parts["part"].map(layer_of)
    values = np.concatenate(shares)
    shared = owners.sample(values).estimates(seed=chosen.seed).columns("share", limits="")
    return ATTRIBUTION.checked(parts.assign(**shared, size=owners.sample(abs(values)).means()))


# --- cross-attention, divided among the writers of the stream that it reads ----------------------------


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
        assert part.weight is not None
        site = model.anatomy.site(component)
        place = site.position(component.head)
        attention = patterns[dataclasses.replace(component, head=None)][:, place, position]
        weight = model.module.get_submodule(site.value.module).get_parameter("weight").detach()
        value = weight[list(site.value.rows(site.key_head(component.head)))]  # [head_dim, d_model]
        at_head = worth if part.gain is None else worth * part.gain
        # contribution per unit of each feature that the head reads, at attention 1
        through = at_head @ part.weight.double() @ value.double()
        pull += attention.double()[..., None] * through[:, None]
    if source.norm is not None:
        with torch.no_grad():
            normed = model.module.get_submodule(source.norm)(stream)
        pull *= gain_of(stream, normed)
    names, values = [], []
    for part in writes.parts(slice(None)):
        names.append(f"{source.name}.{EMBEDDING}" if part.name == EMBEDDING else part.name)
        values.append((part.written * pull).sum((1, 2)))
    return tuple(names), torch.stack(values, dim=1)


# --- how the stream is read ---------------------------------------------------------------------------


def _final_gain(model: Forecaster, readout: Readout, stream: Tensor) -> Tensor:
    """Factor of the final norm and scale on the stream [B, d_model]."""
    if readout.norm is None:
        return torch.full_like(stream, readout.scale)
    with torch.no_grad():
        normed = model.module.get_submodule(readout.norm)(stream)
    return gain_of(stream, normed) * readout.scale


def read(model: Forecaster, readout: Readout, normed: Tensor) -> Tensor:
    """The network's output for the normed stream: [B, d_model] to [B, outputs]."""
    x = normed.to(model.dtype)
    for number, path in enumerate(readout.modules):
        module = model.module.get_submodule(path)
        width = getattr(module, "in_features", x.shape[-1])
        if x.shape[-1] > width:
            x = x.unflatten(-1, (-1, width))
        if number == len(readout.modules) - 1 and readout.patch is not None:
            x = module(x, torch.tensor(readout.patch, device=x.device))
        else:
            x = module(x)
    return x.flatten(1).double()


def _scalar(model: Forecaster, readout: Readout, normed: Tensor) -> _Function:
    """The attributed scalar as a function of the normed stream: [N * B, d_model] to [N * B]."""
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


def _average_gradient(model: Forecaster, function: _Function, normed: Tensor, total: Tensor) -> Tensor:
    """Mean gradient of `function` on the path from 0 to `normed`, [B, d_model].

    Midpoint rule, refined until contributions add up to `total`.
    """
    steps = 1
    while steps <= _MOST_STEPS:
        average = torch.zeros_like(normed)
        for part in torch.arange(steps, device=normed.device).split(64):
            at = (part + 0.5) / steps
            path = (at[:, None, None] * normed).flatten(0, 1).requires_grad_()
            with torch.enable_grad(), model.exact_gradients():
                (gradient,) = torch.autograd.grad(function(path).sum(), path)
            average += gradient.unflatten(0, (len(at), -1)).sum(0)
        average /= steps
        if (((normed * average).sum(-1) - total).abs() <= COMPLETE * total.abs()).all():
            return average
        steps *= 4
    raise TspruneError(
        f"{model.name}: contributions do not add up to the forecast within {COMPLETE:g} of it in "
        f"{_MOST_STEPS} steps of integration"
    )
