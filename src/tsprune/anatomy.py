"""Anatomy: where the components of one model live, as data.

Everything else in the program (ablation, replay, scores, removal) is written once against these
descriptions. Paths are dotted names below the model's torch module, as `get_submodule` takes them.

What is left of a pruned model keeps its address: layer and head numbers are those of the original,
wherever the weights are now. So a plan, a table or a sweep made on the original still applies, and
plans can be carried out one after the other. `numbers` and `position` translate.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from tsprune.errors import TspruneError

Kind = Literal["head", "mlp", "attention", "layer"]
Architecture = Literal["encoder-decoder", "decoder-only", "encoder-only"]
KINDS: tuple[Kind, ...] = ("head", "mlp", "attention", "layer")

_ADDRESS = re.compile(
    r"(?P<stack>[a-z]+)\.(?P<layer>0|[1-9][0-9]*)"
    r"(?:\.(?:(?P<mlp>mlp)|(?!mlp\b)(?P<attention>[a-z]+)(?:\.head\.(?P<head>0|[1-9][0-9]*))?))?"
)


@dataclasses.dataclass(frozen=True)
class Component:
    """A thing that can be ablated, with a stable printable address.

    layer      `decoder.3`              attention sublayers and MLP of one block
    attention  `decoder.3.cross`        one attention sublayer
    head       `decoder.3.cross.head.5`
    mlp        `decoder.3.mlp`
    """

    stack: str
    layer: int
    attention: str | None = None
    head: int | None = None
    mlp: bool = False

    @property
    def kind(self) -> Kind:
        if self.mlp:
            return "mlp"
        if self.head is not None:
            return "head"
        return "attention" if self.attention else "layer"

    @property
    def address(self) -> str:
        parts = [self.stack, str(self.layer)]
        if self.mlp:
            parts.append("mlp")
        if self.attention:
            parts.append(self.attention)
        if self.head is not None:
            parts += ["head", str(self.head)]
        return ".".join(parts)

    @classmethod
    def parse(cls, address: str) -> Component:
        """The component at `address`; TspruneError if it is not an address."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise TspruneError(f"{address!r} is not an address; one looks like decoder.3.cross.head.5")
        head = match["head"]
        return cls(
            stack=match["stack"],
            layer=int(match["layer"]),
            attention=match["attention"],
            head=None if head is None else int(head),
            mlp=match["mlp"] is not None,
        )

    def __str__(self) -> str:
        return self.address


@dataclasses.dataclass(frozen=True)
class Projection:
    """Which rows of a linear layer's weight [rows, d_model] make q, k or v of each head.

    A fused layer holds `parts` projections one after the other; `part` says which this is. Within
    a projection rows are head-major (row = head * head_dim + d) or, `interleaved`, head-minor
    (row = d * heads + head).
    """

    module: str
    heads: int
    head_dim: int
    part: int = 0
    interleaved: bool = False

    def rows(self, head: int) -> range:
        """Rows of the weight's `head`-th head (and of its entries in the bias), in order of d."""
        start = self.part * self.heads * self.head_dim
        if self.interleaved:
            return range(start + head, start + self.heads * self.head_dim, self.heads)
        return range(start + head * self.head_dim, start + (head + 1) * self.head_dim)


@dataclasses.dataclass(frozen=True)
class Factor:
    """A parameter that multiplies q or k per dimension whatever the data are (norm, scale)."""

    parameter: str
    transform: Literal["identity", "softplus"] = "identity"


@dataclasses.dataclass(frozen=True)
class Size:
    """An attribute that upstream's code reads a size from.

    module : path of the module that has it ("" is the model itself)
    holds : width is heads * head_dim; layers is the depth of the stack
    """

    module: str
    name: str
    holds: Literal["heads", "key_heads", "heads_per_key_head", "width", "layers"]


@dataclasses.dataclass(frozen=True)
class PerHead:
    """A parameter, beside the projections, with one entry per head along dimension `dim`."""

    parameter: str
    dim: int


@dataclasses.dataclass(frozen=True)
class AttentionSite:
    """One attention sublayer. The input of `output` is [..., heads * head_dim], head-major.

    kind : self, cross, time, group or variate
    module : path of the attention module
    output : path of the output projection
    query, key, value : where each head's projections are; with grouped queries key and value have
        fewer heads than the site, each serving `heads // key.heads` neighbouring query heads
    factors : per-dimension factors on q . k
    swapped : the projections see [T, B, features] instead of [B, T, features]
    others : paths of modules beside `module` that serve this sublayer only (its norms); each returns
        something of the shape of its input
    norm : which of `others` stands between the output projection and the residual stream, if one does
    sizes, per_head : what else depends on the number of heads
    kept : numbers of the heads that are there, ascending; None: all of 0..heads-1
    """

    kind: str
    module: str
    output: str
    heads: int
    head_dim: int
    query: Projection
    key: Projection
    value: Projection
    factors: tuple[Factor, ...] = ()
    swapped: bool = False
    others: tuple[str, ...] = ()
    norm: str | None = None
    sizes: tuple[Size, ...] = ()
    per_head: tuple[PerHead, ...] = ()
    kept: tuple[int, ...] | None = None

    @property
    def over_time(self) -> bool:
        """Whether queries and keys are positions in time (else they are other series)."""
        return self.kind not in ("group", "variate")

    @property
    def reads_own_stack(self) -> bool:
        """Whether the keys are the positions that the queries are at (cross-attention: not)."""
        return self.kind != "cross"

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
    """

    output: str
    others: tuple[str, ...] = ()
    norm: str | None = None


@dataclasses.dataclass(frozen=True)
class Block:
    """One layer of a stack: its attention sublayers in order of execution, then its MLP.

    mlp : None if it was removed
    number : as in addresses, if it is not the block's position in its stack
    """

    module: str
    attention: tuple[AttentionSite, ...]
    mlp: MLPSite | None
    number: int | None = None


@dataclasses.dataclass(frozen=True)
class SharedBias:
    """A table of position biases [buckets, heads] that all sublayers of one kind of a stack use.

    kind : of the sublayers; the first of them owns the table
    module : path of the table, an embedding
    numbers : of its heads, as in addresses
    """

    kind: str
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
    time : where its positions lie in time; None if nobody has said
    causal : whether attention over time sees no later position
    sizes : attributes that hold the number of blocks
    """

    name: str
    blocks: tuple[Block, ...]
    module: str | None = None
    time: TimeAxis | None = None
    causal: bool = False
    sizes: tuple[Size, ...] = ()
    bias: SharedBias | None = None

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
    """

    modules: tuple[str, ...]
    norm: str | None = None
    position: int = -1
    scale: float = 1.0
    tokens: bool = False
    patch: int | None = None
    others: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """Stacks in order of execution; a later stack may read the output of an earlier one.

    removed : components of the original model that are no longer there
    readout : of the last stack; None if nobody has said
    """

    stacks: tuple[Stack, ...]
    d_model: int
    removed: tuple[Component, ...] = ()
    readout: Readout | None = None

    @property
    def architecture(self) -> Architecture:
        """What kind of transformer it is."""
        if len(self.stacks) > 1:
            return "encoder-decoder"
        return "decoder-only" if self.stacks[0].causal else "encoder-only"

    def stack(self, name: str) -> Stack:
        """The stack of this name; TspruneError if there is none."""
        for stack in self.stacks:
            if stack.name == name:
                return stack
        raise TspruneError(f"no stack {name!r}; this model has: {', '.join(s.name for s in self.stacks)}")

    def block(self, component: Component) -> Block:
        """The block that `component` belongs to."""
        return self.stack(component.stack).blocks[self.block_position(component)]

    def block_position(self, component: Component) -> int:
        """Where in its stack the block is that `component` belongs to; TspruneError if it is not there."""
        numbers = self.stack(component.stack).numbers
        if component.layer in numbers:
            return numbers.index(component.layer)
        raise self._absent(component, f"; its {component.stack} has {len(numbers)} layers")

    def site(self, component: Component) -> AttentionSite:
        """The attention sublayer of a head or attention component; TspruneError if it is not there."""
        for site in self.block(component).attention:
            if site.kind == component.attention and component.head in (None, *site.numbers):
                return site
        raise self._absent(component)

    def mlp(self, component: Component) -> MLPSite:
        """The MLP of the block that `component` belongs to; TspruneError if it is not there."""
        mlp = self.block(component).mlp
        if mlp is None:
            raise self._absent(dataclasses.replace(component, attention=None, head=None, mlp=True))
        return mlp

    def _absent(self, component: Component, detail: str = "") -> TspruneError:
        if component in self.removed:
            return TspruneError(f"{component} was already removed from this model")
        return TspruneError(f"{component} is not part of this model{detail}")

    def sites(self) -> Iterator[tuple[Component, AttentionSite]]:
        """Every attention sublayer, as a component and its description, in order of execution."""
        for stack in self.stacks:
            for layer, block in stack.numbered():
                for site in block.attention:
                    yield Component(stack.name, layer, site.kind), site

    @property
    def whole_layers(self) -> bool:
        """Whether nothing was removed but whole layers."""
        return not any(c.layer in self.stack(c.stack).numbers for c in self.removed)

    @property
    def equal_heads(self) -> int | None:
        """How many heads every attention sublayer has; None if they differ or a sublayer was removed."""
        missing = any(
            c.kind in ("attention", "mlp") and c.layer in self.stack(c.stack).numbers for c in self.removed
        )
        blocks = [block for stack in self.stacks for block in stack.blocks]
        counts = {site.heads for block in blocks for site in block.attention}
        return counts.pop() if len(counts) == 1 and not missing else None

    def key_stack(self, component: Component) -> Stack:
        """The stack whose positions are the keys of an attention sublayer (or of a head of it)."""
        if self.site(component).reads_own_stack:
            return self.stack(component.stack)
        names = [stack.name for stack in self.stacks]
        return self.stacks[names.index(component.stack) - 1]

    def components(self, kind: Kind | None = None) -> tuple[Component, ...]:
        """Every component (of one kind), in order of execution; heads before their MLP."""
        return tuple(c for c in self._walk() if kind is None or c.kind == kind)

    def _walk(self) -> Iterator[Component]:
        for stack in self.stacks:
            for layer, block in stack.numbered():
                yield Component(stack.name, layer)
                for site in block.attention:
                    yield Component(stack.name, layer, site.kind)
                    for head in site.numbers:
                        yield Component(stack.name, layer, site.kind, head)
                if block.mlp is not None:
                    yield Component(stack.name, layer, mlp=True)

    def select(self, what: Selection) -> tuple[Component, ...]:
        """The components that addresses or glob patterns name, in order of execution.

        A pattern is matched part by part, so `*` never crosses a dot: `decoder.*` are the
        decoder's layers, `decoder.*.cross.head.*` the heads of its cross-attention.

        Raises TspruneError if a pattern matches nothing, or only what was removed from the model.
        """
        every = self.components()
        chosen: set[Component] = set()
        for item in _as_patterns(what):
            found = [c for c in every if _matches(item, c.address)]
            if not found and any(_matches(item, c.address) for c in self.removed):
                raise TspruneError(f"{item} was already removed from this model")
            if not found:
                raise TspruneError(_no_match(item, [c.address for c in every]))
            chosen.update(found)
        return tuple(c for c in every if c in chosen)

    def expand(self, components: Iterable[Component]) -> tuple[Component, ...]:
        """Layers replaced by their sublayers; heads of a sublayer that is itself there dropped."""
        sublayers: dict[Component, None] = {}
        for component in components:
            if component.kind == "layer":
                block = self.block(component)
                for site in block.attention:
                    sublayers[dataclasses.replace(component, attention=site.kind)] = None
                if block.mlp is not None:
                    sublayers[dataclasses.replace(component, mlp=True)] = None
            else:
                sublayers[component] = None

        def covered(head: Component) -> bool:
            return dataclasses.replace(head, head=None) in sublayers

        return tuple(c for c in sublayers if c.kind != "head" or not covered(c))

    def middle_layers(self, stack: str) -> Sequence[int]:
        """Numbers of the layers at [L/4, 3L/4) of the L that are there, the paper's middle layers.

        The first and the last are never among them.
        """
        numbers = self.stack(stack).numbers
        count = len(numbers)
        middle = range(max(1, -(-count // 4)), min(count - 1, -(-3 * count // 4)))
        return middle if numbers == tuple(range(count)) else tuple(numbers[place] for place in middle)


Selection = str | Component | Iterable[str | Component]


def _as_patterns(what: Selection) -> Sequence[str]:
    if isinstance(what, str | Component):
        what = [what]
    return [str(item) for item in what]


def _matches(pattern: str, address: str) -> bool:
    wanted, parts = pattern.split("."), address.split(".")
    return len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))


def _no_match(pattern: str, addresses: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, addresses, n=3) or list(addresses[:3])
    return f"{pattern!r} matches no component; addresses look like {', '.join(near)}"
