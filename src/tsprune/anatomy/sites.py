"""Where things are in an upstream model: the pieces that an Anatomy is made of.

Paths are dotted names below the model's torch module, as `get_submodule` takes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from tsprune.errors import TspruneError


@dataclasses.dataclass(frozen=True)
class Projection:
    """Which rows of a linear layer's weight [rows, d_model] make q, k or v of each head.

    A fused layer holds several projections one after the other; `start` is the first row of this one.
    Within a projection rows are head-major (row = head * head_dim + d) or, `interleaved`, head-minor
    (row = d * heads + head).
    """

    module: str
    heads: int
    head_dim: int
    start: int = 0
    interleaved: bool = False

    def rows(self, head: int) -> range:
        """Rows of the weight's `head`-th head (and of its entries in the bias), in order of d."""
        if self.interleaved:
            return range(self.start + head, self.start + self.width, self.heads)
        return range(self.start + head * self.head_dim, self.start + (head + 1) * self.head_dim)

    @property
    def width(self) -> int:
        """Number of rows."""
        return self.heads * self.head_dim


def _in_order(*projections: Projection) -> tuple[Projection, ...]:
    """The projections, with those of one layer one after the other."""
    rows: dict[str, int] = {}
    placed = []
    for one in projections:
        placed.append(dataclasses.replace(one, start=rows.get(one.module, 0)))
        rows[one.module] = placed[-1].start + one.width
    return tuple(placed)


@dataclasses.dataclass(frozen=True)
class Factor:
    """A parameter that multiplies q or k per dimension, independent of the data (norm, scale)."""

    parameter: str
    transform: Literal["identity", "softplus"] = "identity"


@dataclasses.dataclass(frozen=True)
class Size:
    """An attribute that upstream's code reads a size from.

    module : path of the module that has it ("" is the model itself)
    holds : width is heads * head_dim; widths is the list of the numbers of rows of q, k and v; layers is
        the depth of the stack
    """

    module: str
    name: str
    holds: Literal["heads", "key_heads", "heads_per_key_head", "width", "widths", "layers"]


@dataclasses.dataclass(frozen=True)
class PerHead:
    """A parameter, beside the projections, with one entry per head along dimension `dim`."""

    parameter: str
    dim: int


@dataclasses.dataclass(frozen=True)
class AttentionSite:
    """One attention sublayer. The input of `output` is [..., heads * head_dim], head-major.

    role : its part in the block, as in addresses: self, cross, time, group or variate
    module : path of the attention module
    output : path of the output projection
    query, key, value : where each head's projections are; with grouped queries key and value have
        fewer heads than the site, each serving `heads // key.heads` neighbouring query heads. Queries and
        keys may have another width than the values, whose width is `head_dim`
    gate : where the gate of each head is, which multiplies its output before `output`; None: there is none
    factors : per-dimension factors on q . k
    axis : queries and keys are positions in time, or series of one group
    keys_from : stack whose output gives the keys and values; None: the positions that the queries are at
    swapped : the projections see [T, B, features] instead of [B, T, features]
    folded : the projections see [B * T, series, features] where the block sees [B, series, T, features]
    others : paths of modules beside `module` that serve this sublayer only (its norms); each returns
        something of the shape of its input
    norm : which of `others` stands between the output projection and the residual stream, if one does
    unit_scaled : whether upstream divides the output projection's result, bias included, by the square root
        of its number of columns (unit scaling: Blake et al., arXiv 2303.11257)
    sizes, per_head : attributes and parameters that depend on the number of heads
    kept : numbers of the heads that are there, ascending; None: all of 0..heads-1
    """

    role: str
    module: str
    output: str
    heads: int
    head_dim: int
    query: Projection
    key: Projection
    value: Projection
    gate: Projection | None = None
    factors: tuple[Factor, ...] = ()
    axis: Literal["time", "series"] = "time"
    keys_from: str | None = None
    swapped: bool = False
    folded: bool = False
    others: tuple[str, ...] = ()
    norm: str | None = None
    unit_scaled: bool = False
    sizes: tuple[Size, ...] = ()
    per_head: tuple[PerHead, ...] = ()
    kept: tuple[int, ...] | None = None

    @classmethod
    def of_layers(
        cls,
        role: str,
        module: str,
        layers: Sequence[str],
        heads: int,
        head_dim: int,
        *,
        key_heads: int = 0,
        **rest: Any,
    ) -> AttentionSite:
        """A site with one linear layer each for q, k, v and the output.

        layers : names of the four layers in `module`
        key_heads : if queries are grouped
        rest : further fields
        """
        query, key, value, output = (f"{module}.{name}" for name in layers)
        keys, values = (Projection(path, key_heads or heads, head_dim) for path in (key, value))
        queries = Projection(query, heads, head_dim)
        return cls(role, module, output, heads, head_dim, queries, keys, values, **rest)

    @classmethod
    def of_fused(
        cls,
        role: str,
        module: str,
        layers: Sequence[str],
        heads: int,
        head_dim: int,
        *,
        key_heads: int = 0,
        query_dim: int = 0,
        interleaved: bool = False,
        **rest: Any,
    ) -> AttentionSite:
        """A site with one linear layer for q, k and v, in this order, and one for the output.

        layers : names of the two layers in `module`
        key_heads : if queries are grouped
        query_dim : of a query and a key, if it is not that of a value, `head_dim`
        interleaved : see `Projection`
        rest : further fields
        """
        fused, output = (f"{module}.{name}" for name in layers)
        shapes = (heads, query_dim), (key_heads, query_dim), (key_heads, head_dim)
        query, key, value = _in_order(
            *(Projection(fused, n or heads, size or head_dim, interleaved=interleaved) for n, size in shapes)
        )
        return cls(role, module, output, heads, head_dim, query, key, value, **rest)

    def with_heads(self, kept: tuple[int, ...], key_heads: int) -> AttentionSite:
        """The site with the heads of these numbers alone, and so many heads of keys and values."""
        counts = (self.query, len(kept)), (self.key, key_heads), (self.value, key_heads)
        query, key, value = _in_order(*(dataclasses.replace(one, heads=n) for one, n in counts))
        gate = self.gate and dataclasses.replace(self.gate, heads=len(kept))
        parts = {"query": query, "key": key, "value": value, "gate": gate}
        return dataclasses.replace(self, heads=len(kept), kept=kept, **parts)  # type: ignore[arg-type]

    @property
    def output_scale(self) -> float:
        """The factor on the product of the output projection's weight, and on its bias."""
        return (self.heads * self.head_dim) ** -0.5 if self.unit_scaled and self.heads else 1.0

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers, as in addresses, of the heads that are there, in the order of the weights."""
        return tuple(range(self.heads)) if self.kept is None else self.kept

    def position(self, head: int) -> int:
        """Which of the heads in the weights has the number `head`; TspruneError if none has."""
        if head not in self.numbers:
            raise TspruneError(f"{self.module} has no head {head}")
        return self.numbers.index(head)

    def columns(self, head: int) -> slice:
        """Columns of the output projection's weight that belong to the head with number `head`."""
        start = self.position(head) * self.head_dim
        return slice(start, start + self.head_dim)

    def key_head(self, head: int) -> int:
        """Position in the weights of the key/value head that serves the query head `head`."""
        return self.position(head) * self.key.heads // self.heads


@dataclasses.dataclass(frozen=True)
class MLPSite:
    """One MLP; `output` is the module whose output is the MLP's (before any norm that follows).

    others : paths of modules beside `output` that serve this MLP only; each takes and returns one tensor
    norm : which of `others` stands between the MLP and the residual stream, if one does
    experts : paths of the MLPs inside `output`, if it has several: it returns a weighted sum of the outputs
        of a few, chosen position by position. They are one component together
    """

    output: str
    others: tuple[str, ...] = ()
    norm: str | None = None
    experts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Block:
    """One layer of a stack: its attention sublayers in order of execution, then its MLP.

    mlp : None if it was removed
    number : as in addresses, if it is not the block's position in its stack
    across : if its tensors are [B * T, series, features] instead of [B * series, T, features]: T, of the
        sequence that `teacher_forced` and a forecast run
    """

    module: str
    attention: tuple[AttentionSite, ...]
    mlp: MLPSite | None
    number: int | None = None
    across: int = 0


@dataclasses.dataclass(frozen=True)
class SharedBias:
    """A table of position biases [buckets, heads] that all sublayers of one role of a stack use.

    role : of the sublayers; the first of them owns the table
    module : path of the table, an embedding
    numbers : of its heads, as in addresses
    """

    role: str
    module: str
    numbers: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TimeAxis:
    """Where the positions of a stack lie in time, in the sequence that `teacher_forced` runs.

    A position's time is the last step it stands for, in steps after the end of what the first stack
    is given as context: 0 is the last step there, earlier ones are negative.

    span : time steps a position stands for
    marks : positions after those of the context that stand for no time (end of sequence, register)
    future : positions after these that stand for the steps to forecast
    from_end : False if the first position is at time 0 and the others follow it (a decoder's: each is
        at the last step it has been given)
    """

    span: int
    marks: int = 0
    future: int = 0
    from_end: bool = True

    def times(self, positions: int) -> tuple[float, ...]:
        """Time of each of `positions` positions, NaN for marks; padding in front has times as well."""
        if not self.from_end:
            return tuple(float(index * self.span) for index in range(positions))
        past = positions - self.marks - self.future
        before = (float((index - past + 1) * self.span) for index in range(past))
        after = (float((index + 1) * self.span) for index in range(self.future))
        return (*before, *(float("nan") for _ in range(self.marks)), *after)


@dataclasses.dataclass(frozen=True)
class Stack:
    """Blocks that run one after the other; `module` wraps them all (None if nothing does).

    name : encoder or decoder in encoder-decoder models, else stack
    time : where its positions lie in time; None if unspecified
    causal : whether attention over time sees no later position
    sizes : attributes that hold the number of blocks
    per_layer : paths of parameters and buffers with an entry per block along their first dimension
    norm : path of the norm through which a later stack reads its stream, if there is one
    mixing : (address, path of a number tau) of every sublayer, removed ones included, in order of execution:
        the stream x becomes (tau y + x) / sqrt(1 + tau^2) where the sublayer adds y. A layer without
        sublayers then stays in its place. Empty: x becomes x + y
    """

    name: str
    blocks: tuple[Block, ...]
    module: str | None = None
    time: TimeAxis | None = None
    causal: bool = False
    sizes: tuple[Size, ...] = ()
    per_layer: tuple[str, ...] = ()
    bias: SharedBias | None = None
    norm: str | None = None
    mixing: tuple[tuple[str, str], ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Layer numbers, as in addresses, of the blocks that are there."""
        return tuple(i if block.number is None else block.number for i, block in enumerate(self.blocks))

    def numbered(self) -> tuple[tuple[int, Block], ...]:
        """(layer number, block) in order of execution."""
        return tuple(zip(self.numbers, self.blocks, strict=True))


@dataclasses.dataclass(frozen=True)
class Readout:
    """How the last stack's residual stream becomes the network's output, in `teacher_forced`.

    modules : paths of the modules it goes through, one after the other; an output that is wider than
        what the next module takes is cut into pieces of that width (one a time step)
    norm : path of the norm before them, if there is one
    position : which position of the sequence is read (from the end)
    scale : factor on the output of the norm
    tokens : whether the output is the logits of a vocabulary, not values
    patch : patch size that the last module takes beside its input, if it serves several
    others : paths of modules that read the same stream beside `modules`, at the same positions, for
        parts of the forecast that are not in `teacher_forced`
    only_position : whether upstream's forecast uses nothing that `modules` and `others` return elsewhere
    """

    modules: tuple[str, ...]
    norm: str | None = None
    position: int = -1
    scale: float = 1.0
    tokens: bool = False
    patch: int | None = None
    others: tuple[str, ...] = ()
    only_position: bool = False
