"""One model described as a whole, and how its components are found in it."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Literal

from tsprune.anatomy.component import Component, Kind, Selection, as_patterns, matches
from tsprune.anatomy.sites import AttentionSite, Block, MLPSite, Readout, Stack
from tsprune.errors import TspruneError

Architecture = Literal["encoder-decoder", "decoder-only", "encoder-only"]


@dataclasses.dataclass(frozen=True, repr=False)
class Anatomy:
    """Stacks in order of execution; a later stack may read the output of an earlier one.

    removed : components of the original model that are no longer there
    readout : of the last stack; None if unspecified
    """

    stacks: tuple[Stack, ...]
    d_model: int
    removed: tuple[Component, ...] = ()
    readout: Readout | None = None

    @property
    def architecture(self) -> Architecture:
        """The kind of transformer."""
        if len(self.stacks) > 1:
            return "encoder-decoder"
        return "decoder-only" if self.stacks[0].causal else "encoder-only"

    def with_positions(self, count: int) -> Anatomy:
        """The anatomy of sequences of so many positions, which `Block.across` states."""
        stacks = []
        for stack in self.stacks:
            blocks = (dataclasses.replace(x, across=count if x.across else 0) for x in stack.blocks)
            stacks.append(dataclasses.replace(stack, blocks=tuple(blocks)))
        return dataclasses.replace(self, stacks=tuple(stacks))

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
            if site.role == component.attention and component.head in (None, *site.numbers):
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
                    yield Component(stack.name, layer, site.role), site

    @property
    def tokens(self) -> bool:
        """Whether forecasts are in tokens of a vocabulary: decoded value by value, a pass a step."""
        return self.readout is not None and self.readout.tokens

    @property
    def whole_layers(self) -> bool:
        """Whether nothing was removed but whole layers."""
        return not any(c.layer in self.stack(c.stack).numbers for c in self.removed)

    @property
    def equal_heads(self) -> int | None:
        """How many heads every attention sublayer has; None if they differ or a sublayer was removed."""
        sublayers = (c for c in self.removed if c.kind in ("attention", "mlp"))
        missing = any(c.layer in self.stack(c.stack).numbers for c in sublayers)
        counts = {site.heads for _, site in self.sites()}
        return counts.pop() if len(counts) == 1 and not missing else None

    def key_stack(self, component: Component) -> Stack:
        """The stack whose positions are the keys of an attention sublayer (or of a head of it)."""
        if self.site(component).keys_from is None:
            return self.stack(component.stack)
        names = [stack.name for stack in self.stacks]
        return self.stacks[names.index(component.stack) - 1]

    def components(self, kind: Kind | None = None) -> tuple[Component, ...]:
        """Every component (of one kind), in order of execution; heads before their MLP."""
        found = []
        for stack in self.stacks:
            for layer, block in stack.numbered():
                found.append(Component(stack.name, layer))
                for site in block.attention:
                    found.append(Component(stack.name, layer, site.role))
                    found += [Component(stack.name, layer, site.role, head) for head in site.numbers]
                if block.mlp is not None:
                    found.append(Component(stack.name, layer, mlp=True))
        return tuple(c for c in found if kind is None or c.kind == kind)

    def select(self, what: Selection) -> tuple[Component, ...]:
        """The components that addresses or glob patterns name, in order of execution.

        A pattern is matched part by part, so `*` never crosses a dot: `decoder.*` are the
        decoder's layers, `decoder.*.cross.head.*` the heads of its cross-attention.

        Raises TspruneError if a pattern matches nothing, or only what was removed from the model.
        """
        every = self.components()
        chosen: set[Component] = set()
        for item in as_patterns(what):
            found = [c for c in every if matches(item, c.address)]
            if not found and any(matches(item, c.address) for c in self.removed):
                raise TspruneError(f"{item} was already removed from this model")
            if not found:
                addresses = [c.address for c in every]
                near = difflib.get_close_matches(item, addresses, n=3) or addresses[:3]
                raise TspruneError(f"{item!r} matches no component; addresses look like {', '.join(near)}")
            chosen.update(found)
        return tuple(c for c in every if c in chosen)

    def expand(self, components: Iterable[Component]) -> tuple[Component, ...]:
        """Layers replaced by their sublayers; heads of a sublayer that is itself there dropped."""
        sublayers: dict[Component, None] = {}
        for component in components:
            parts = [component]
            if component.kind == "layer":
                block = self.block(component)
                parts = [dataclasses.replace(component, attention=site.role) for site in block.attention]
                parts += [dataclasses.replace(component, mlp=True)] if block.mlp is not None else []
            sublayers |= dict.fromkeys(parts)
        covered = {
            c for c in sublayers if c.kind == "head" and dataclasses.replace(c, head=None) in sublayers
        }
        return tuple(c for c in sublayers if c not in covered)

    def middle_layers(self, stack: str) -> Sequence[int]:
        """Numbers of the layers at [L/4, 3L/4) of the L that are there, the paper's middle layers.

        The first and the last are never among them.
        """
        numbers = self.stack(stack).numbers
        count = len(numbers)
        middle = range(max(1, -(-count // 4)), min(count - 1, -(-3 * count // 4)))
        return middle if numbers == tuple(range(count)) else tuple(numbers[place] for place in middle)

    @property
    def brief(self) -> str:
        """The architecture and the number of components, e.g. "decoder-only, 4 layers, 16 heads, 4 MLPs"."""
        counts = Counter(component.kind for component in self.components())
        kinds: dict[Kind, str] = {"layer": "layers", "head": "heads", "mlp": "MLPs"}
        return ", ".join([self.architecture, *(f"{counts[kind]} {name}" for kind, name in kinds.items())])

    def __repr__(self) -> str:
        """A tree of stacks and layers; layers of the same sublayers share a line."""
        lines = [f"{self.brief}, width {self.d_model}"]
        for stack in self.stacks:
            lines.append(f"  {stack.name}{' (causal)' if stack.causal else ''}")
            runs = groupby(enumerate(stack.numbered()), key=lambda at: (_inside(at[1][1]), at[1][0] - at[0]))
            for (inside, _), layers in runs:
                numbers = [number for _, (number, _) in layers]
                where = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
                lines.append(f"    {where}: {inside}")
        if self.removed:
            lines.append(f"  removed: {len(self.removed)} components")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def _inside(block: Block) -> str:
    sites = [f"{site.role} ({site.heads} heads of {site.head_dim})" for site in block.attention]
    if block.mlp is None:
        return ", ".join(sites)
    experts = len(block.mlp.experts)
    return ", ".join([*sites, f"mlp ({experts} experts)" if experts else "mlp"])
