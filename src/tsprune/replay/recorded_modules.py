"""Units: the modules whose calls are recorded, found from an Anatomy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from torch import nn

from tsprune.anatomy import Anatomy, Component
from tsprune.replay.recorded_calls import ANY_STEPS


class Sublayer(NamedTuple):
    """Paths of a sublayer: its attention module (None for an MLP) and its output module."""

    module: str | None
    output: str


@dataclasses.dataclass(frozen=True)
class StackUnits:
    """Paths of the units of one stack, in order of execution.

    module : wraps the whole stack, if there is such a module
    sublayers : by block
    cross : (layer, key or value projection of its cross-attention)
    """

    module: str | None
    blocks: tuple[str, ...]
    sublayers: tuple[tuple[Sublayer, ...], ...]
    cross: tuple[tuple[int, str], ...]

    @property
    def entry(self) -> str:
        """The block whose inputs decide whether the records of the stack may be used."""
        return self.blocks[0]

    @cached_property
    def inside(self) -> tuple[str, ...]:
        """The blocks and their sublayers, the entry first."""
        deeper = (path for block in self.sublayers for sublayer in block for path in sublayer if path)
        return tuple(dict.fromkeys((*self.blocks, *deeper)))


@dataclasses.dataclass(frozen=True)
class Units:
    """Paths of the units of one model.

    stacks : in order of execution
    outside : the largest modules that neither hold a block nor are inside one. Those of them that run before
        any block (patching, embedding, scaling) are unaffected by ablations
    across : of blocks and sublayers, by path, see `tsprune.anatomy.Block`; ANY_STEPS of folded ones
    """

    stacks: tuple[StackUnits, ...]
    outside: tuple[str, ...]
    across: Mapping[str, int]

    @property
    def paths(self) -> Iterator[str]:
        """The paths of all units."""
        yield from self.outside
        for stack in self.stacks:
            yield from (*filter(None, [stack.module]), *stack.inside, *(path for _, path in stack.cross))


def units_of(anatomy: Anatomy, root: nn.Module) -> Units:
    """The units of the model `root` that `anatomy` describes."""
    stacks = []
    across: dict[str, int] = {}
    for stack in anatomy.stacks:
        sublayers, cross = [], []
        for layer, block in enumerate(stack.blocks):
            inside = [Sublayer(site.module, site.output) for site in block.attention]
            sublayers.append((*inside, *([Sublayer(None, block.mlp.output)] if block.mlp else [])))
            if block.across:
                units = (block.module, *(path for sublayer in sublayers[-1] for path in sublayer if path))
                across |= dict.fromkeys(units, block.across)
            for site in block.attention:
                across |= dict.fromkeys((site.module, site.output) if site.folded else (), ANY_STEPS)
            sites = (site for site in block.attention if site.role == "cross" and site.heads)
            cross += [(layer, path) for site in sites for path in (site.key.module, site.value.module)]
        blocks = tuple(block.module for block in stack.blocks)
        stacks.append(StackUnits(stack.module or None, blocks, tuple(sublayers), tuple(cross)))
    paths = [path for stack in stacks for path in stack.blocks]
    return Units(tuple(stacks), tuple(_outside(root, paths)), across)


def _outside(root: nn.Module, blocks: list[str]) -> Iterator[str]:
    within = {id(part) for path in blocks for part in root.get_submodule(path).modules()}
    seen: set[int] = set()  # a shared embedding has several paths

    def walk(module: nn.Module, path: str) -> Iterator[str]:
        for name, child in module.named_children():
            below = f"{path}.{name}" if path else name
            held = {id(part) for part in child.modules()}
            if id(child) in within | seen:
                continue
            seen.add(id(child))
            if held & within:
                yield from walk(child, below)
            else:
                yield below

    return walk(root, "")


def position_of(anatomy: Anatomy, component: Component) -> tuple[int, int, int]:
    """(stack, block, sublayer) positions of the first computation that `component` changes."""
    block = anatomy.block(component)
    roles = [site.role for site in block.attention]
    sublayer = 0 if component.kind == "layer" else len(roles)
    if component.attention is not None:
        sublayer = roles.index(component.attention)
    stack = [stack.name for stack in anatomy.stacks].index(component.stack)
    return stack, anatomy.block_position(component), sublayer
