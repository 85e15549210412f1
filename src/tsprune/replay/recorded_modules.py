"""Units: the modules whose calls are recorded, found from an Anatomy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch import nn

from tsprune.anatomy import Anatomy, Block, Component, Stack


@dataclasses.dataclass(frozen=True)
class Sublayer:
    """A sublayer of a block: an attention module, or (module None) an MLP, and its output module."""

    module: str | None
    output: str

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.output,) if self.module is None else (self.module, self.output)


@dataclasses.dataclass(frozen=True)
class Units:
    """Paths of the units of one model.

    names : of the stacks, in order of execution
    stacks : of each stack, the module that wraps it, if one does
    blocks : of each stack, in order of execution
    sublayers : of each block of a stack, in order of execution
    cross : of each stack, (layer, key or value projection of its cross-attention)
    outside : the largest modules that neither hold a block nor are in one; those among them that run
        before any block (patching, embedding, scaling) see nothing that an ablation changes
    """

    names: tuple[str, ...]
    stacks: dict[str, str]
    blocks: dict[str, tuple[str, ...]]
    sublayers: dict[str, tuple[tuple[Sublayer, ...], ...]]
    cross: dict[str, tuple[tuple[int, str], ...]]
    outside: tuple[str, ...]

    def entry(self, stack: str) -> str:
        """The block whose inputs decide whether the records of a stack may be used."""
        return self.blocks[stack][0]

    def inside(self, stack: str) -> tuple[str, ...]:
        """The blocks of a stack and their sublayers; its entry first."""
        deeper = (path for block in self.sublayers[stack] for x in block for path in x.paths)
        return tuple(dict.fromkeys((*self.blocks[stack], *deeper)))

    @property
    def paths(self) -> tuple[str, ...]:
        """Of all units."""
        inside = (path for name in self.names for path in self.inside(name))
        cross = (path for pairs in self.cross.values() for _, path in pairs)
        return (*self.outside, *self.stacks.values(), *inside, *cross)


def units_of(anatomy: Anatomy, root: nn.Module) -> Units:
    """The units of the model `root` that `anatomy` describes."""
    stacks = anatomy.stacks
    blocks = {stack.name: tuple(block.module for block in stack.blocks) for stack in stacks}
    return Units(
        names=tuple(stack.name for stack in stacks),
        stacks={stack.name: stack.module for stack in stacks if stack.module},
        blocks=blocks,
        sublayers={stack.name: tuple(_sublayers(block) for block in stack.blocks) for stack in stacks},
        cross={stack.name: tuple(_cross(stack)) for stack in stacks},
        outside=tuple(_outside(root, [path for paths in blocks.values() for path in paths])),
    )


def _sublayers(block: Block) -> tuple[Sublayer, ...]:
    attention = (Sublayer(site.module, site.output) for site in block.attention)
    return (*attention, *([Sublayer(None, block.mlp.output)] if block.mlp else []))


def _cross(stack: Stack) -> Iterator[tuple[int, str]]:
    for layer, block in enumerate(stack.blocks):
        for site in block.attention:
            if site.role == "cross" and site.heads:
                yield from ((layer, projection.module) for projection in (site.key, site.value))


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
    """(stack, block, sublayer) positions of where `component` first changes anything."""
    block = anatomy.block(component)
    kinds = [site.role for site in block.attention]
    sublayer = 0 if component.kind == "layer" else len(kinds)
    if component.attention is not None:
        sublayer = kinds.index(component.attention)
    stack = [stack.name for stack in anatomy.stacks].index(component.stack)
    return stack, anatomy.block_position(component), sublayer
