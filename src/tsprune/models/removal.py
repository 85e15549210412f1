"""Physical removal: one pass over the Anatomy that takes components out of a model.

1. The result is described first: sublayers without the heads that go, blocks without the sublayers
   that go, stacks without the blocks that have nothing left.
2. Heads are cut out: rows of their query, key and value projections, columns of the output
   projection, entries of per-head parameters; the attributes that upstream reads sizes from follow.
3. A sublayer that goes is replaced by a module that computes nothing, the norms that serve it only by
   identities. Where all heads go but the output projection has a bias, that bias stays.
4. Empty blocks leave their list, so the paths of later ones move up (their addresses stay), and with them
   their entries of tensors with one for every block. Those that multiply the stream stay in their place,
   and do that alone.
5. A position bias shared by a stack goes to its first sublayer that is left, with the heads in use.
6. The family adapts upstream's code to sublayers of unlike sizes (`Forecaster.adapt`).
7. Weights that are scaled for their new width are stored in float32 from then on: the half precision of the
   original holds its own weights exactly, but not their products.

The result computes what the model computes under a zero ablation of the same components.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from tsprune.anatomy import Anatomy, AttentionSite, Block, Component, SharedBias, Stack
from tsprune.errors import TspruneError
from tsprune.models.absent import Nothing
from tsprune.models.forecaster import Forecaster


def remove(model: Forecaster, components: Iterable[Component]) -> None:
    """Takes `components` out of `model`, in place; `model.anatomy` then describes the result.

    Raises TspruneError, before anything is changed, for a component that is not there, a stack that
    would lose its last layer, or key/value heads that would serve unlike numbers of query heads.
    """
    before = model.anatomy
    rests = _rests(model, components)
    tables = {
        stack.name: model.module.get_submodule(stack.bias.module) for stack in before.stacks if stack.bias
    }
    for stack in before.stacks:
        for block, rest in zip(stack.blocks, rests[stack.name], strict=True):
            if rest is not None or stack.mixing:
                _apply(model, block, rest or dataclasses.replace(block, attention=(), mlp=None))
    stacks = tuple(_closed_up(model.module, stack, rests[stack.name]) for stack in before.stacks)
    stacks = tuple(_with_bias(model.module, stack, tables.get(stack.name)) for stack in stacks)
    left = dataclasses.replace(before, stacks=stacks)
    there = frozenset(left.components())
    lost = tuple(c for c in before.components() if c not in there)
    model.anatomy = dataclasses.replace(left, removed=(*before.removed, *lost))
    model.adapt()
    _store_exactly(model, before)


def _store_exactly(model: Forecaster, before: Anatomy) -> None:
    """Marks the weights that were scaled to be stored in float32."""
    heads = {site.output: site.heads for _, site in before.sites()}
    scaled = {
        id(parameter)
        for _, site in model.anatomy.sites()
        if site.unit_scaled and site.heads != heads[site.output]
        for parameter in model.module.get_submodule(site.output).parameters()
    }
    names = [name for name, x in model.saved_module.named_parameters() if id(x) in scaled]
    if model.stored:
        model.stored = {**model.stored, **dict.fromkeys(names, torch.float32)}


def components_left(model: Forecaster, components: Iterable[Component]) -> frozenset[Component]:
    """The components that `model` would have without `components`; nothing is changed.

    Raises TspruneError as `remove` does.
    """
    rests = _rests(model, components)
    stacks = (
        dataclasses.replace(stack, blocks=tuple(filter(None, rests[stack.name])))
        for stack in model.anatomy.stacks
    )
    return frozenset(dataclasses.replace(model.anatomy, stacks=tuple(stacks)).components())


def _rests(model: Forecaster, components: Iterable[Component]) -> dict[str, list[Block | None]]:
    """The remaining part of every block, by stack."""
    before = model.anatomy
    gone = frozenset(before.expand(components))
    for component in gone:  # those that are not there raise
        _ = before.mlp(component) if component.kind == "mlp" else before.site(component)
    rests = {
        stack.name: [_rest(model, stack.name, *at, gone) for at in stack.numbered()]
        for stack in before.stacks
    }
    for name, blocks in rests.items():
        if not any(blocks):
            raise TspruneError(f"nothing would be left of the {name}; keep at least one layer of it")
    return rests


def _rest(
    model: Forecaster, stack: str, layer: int, block: Block, gone: frozenset[Component]
) -> Block | None:
    """The remaining part of `block`, with the old paths; None: nothing."""
    sites = []
    for site in block.attention:
        if Component(stack, layer, site.role) in gone:
            continue
        kept = tuple(h for h in site.numbers if Component(stack, layer, site.role, h) not in gone)
        if kept or model.module.get_submodule(site.output).bias is not None:
            sites.append(_with_heads(site, kept))
    mlp = None if Component(stack, layer, mlp=True) in gone else block.mlp
    if not sites and mlp is None:
        return None
    return dataclasses.replace(block, attention=tuple(sites), mlp=mlp, number=layer)


def _with_heads(site: AttentionSite, kept: tuple[int, ...]) -> AttentionSite:
    if kept == site.numbers:
        return site
    key_heads = len({site.key_head(head) for head in kept})
    served = [sum(site.key_head(head) == key for head in kept) for key in range(site.key.heads)]
    if len({count for count in served if count}) > 1:
        raise TspruneError(
            f"heads of {site.module} share keys and values: remove as many heads from each group, "
            f"or whole groups (of {site.heads // site.key.heads} neighbouring heads)"
        )
    return site.with_heads(kept, key_heads)


def _apply(model: Forecaster, block: Block, rest: Block) -> None:
    left = {site.role: site for site in rest.attention}
    for site in block.attention:
        if site.role not in left:
            _replace_attention(model, site, None)
        elif left[site.role].heads != site.heads:
            _cut_heads(model.module, site, left[site.role])
            if not left[site.role].heads:
                _replace_attention(model, site, model.module.get_submodule(site.output))
    if block.mlp is not None and rest.mlp is None:
        model.module.set_submodule(block.mlp.output, Nothing())
        _bypass(model.module, block.mlp.others)


def _replace_attention(model: Forecaster, site: AttentionSite, output: Any) -> None:
    """`output` : the output projection, without columns, if its bias is to stay."""
    name = "" if output is None else site.output.rpartition(".")[2]
    model.module.set_submodule(site.module, model.absent(output, name))
    _bypass(model.module, site.others)


def _bypass(module: nn.Module, paths: Iterable[str]) -> None:
    for path in paths:
        module.set_submodule(path, nn.Identity())


def _cut_heads(module: nn.Module, before: AttentionSite, after: AttentionSite) -> None:
    """Makes the weights of one sublayer those of `after`, a subset of the heads of `before`."""
    places = [before.position(head) for head in after.numbers]
    key_places = sorted({before.key_head(head) for head in after.numbers})
    rows: dict[str, set[int]] = {}
    parts = [(before.query, places), (before.key, key_places), (before.value, key_places)]
    for projection, heads in [*parts, *([(before.gate, places)] if before.gate else [])]:
        rows.setdefault(projection.module, set()).update(
            row for head in heads for row in projection.rows(head)
        )
    for path, chosen in rows.items():  # ascending rows keep either order of heads and dimensions
        _keep(module.get_submodule(path), 0, sorted(chosen))
    size = before.head_dim
    columns = [column for place in places for column in range(place * size, (place + 1) * size)]
    output = module.get_submodule(before.output)
    _keep(output, 1, columns)
    if before.unit_scaled:  # by another number of columns than before
        with torch.no_grad():
            for parameter in output.parameters():
                parameter.mul_(before.output_scale / after.output_scale)
    for per_head in before.per_head:
        owner, _, name = per_head.parameter.rpartition(".")
        _shrink(module.get_submodule(owner), name, per_head.dim, places)
    if after.heads:
        values = {
            "heads": after.heads,
            "key_heads": after.key.heads,
            "heads_per_key_head": after.heads // after.key.heads,
            "width": after.heads * size,
            "widths": [part.width for part in (after.query, after.key, after.value)],
        }
        for attribute in after.sizes:
            setattr(module.get_submodule(attribute.module), attribute.name, values[attribute.holds])


def _keep(linear: nn.Module, dim: int, indices: list[int]) -> None:
    """Rows (dim 0) or columns (dim 1) of a linear layer."""
    _shrink(linear, "weight", dim, indices)
    if dim == 0 and linear.bias is not None:
        _shrink(linear, "bias", 0, indices)
    setattr(linear, ("out_features", "in_features")[dim], len(indices))


def _shrink(owner: nn.Module, name: str, dim: int, indices: list[int]) -> None:
    """Entries along a dimension of a parameter or a buffer."""
    old = getattr(owner, name)
    chosen = old.detach().index_select(dim, torch.tensor(indices, dtype=torch.long, device=old.device))
    if isinstance(old, nn.Parameter):
        chosen = nn.Parameter(chosen, requires_grad=old.requires_grad)
    setattr(owner, name, chosen)


def _closed_up(module: nn.Module, stack: Stack, rests: list[Block | None]) -> Stack:
    """`stack` without its empty blocks, in the module and as a description."""
    if stack.mixing:
        return dataclasses.replace(stack, blocks=tuple(filter(None, rests)))
    paths = [block.module for block in stack.blocks]
    parent = paths[0].rpartition(".")[0]
    kept = [rest for rest in rests if rest is not None]
    blocks = [module.get_submodule(rest.module) for rest in kept]
    module.set_submodule(parent, nn.ModuleList(blocks))
    for size in stack.sizes:
        setattr(module.get_submodule(size.module), size.name, len(blocks))
    places = [place for place, rest in enumerate(rests) if rest is not None]
    if len(places) < len(rests):
        for path in stack.per_layer:
            owner, _, name = path.rpartition(".")
            _shrink(module.get_submodule(owner), name, 0, places)
    moved = tuple(_moved(rest, rest.module, path) for rest, path in zip(kept, paths, strict=False))
    in_place = [block.number for block in moved] == list(range(len(moved)))
    if in_place:  # without numbers, an intact stack equals upstream's
        moved = tuple(dataclasses.replace(block, number=None) for block in moved)
    return dataclasses.replace(stack, blocks=moved)


def _with_bias(module: nn.Module, stack: Stack, table: nn.Module | None) -> Stack:
    """`stack` with its shared position bias in the first sublayer that uses it."""
    if stack.bias is None or table is None:
        return stack
    bias = stack.bias
    sites = [site for block in stack.blocks for site in block.attention if site.role == bias.role]
    if not sites:
        return dataclasses.replace(stack, bias=None)
    used = sorted({head for site in sites for head in site.numbers})
    if used != list(bias.numbers):
        _shrink(table, "weight", 1, [bias.numbers.index(head) for head in used])
    name = bias.module.rpartition(".")[2]
    module.get_submodule(sites[0].module).add_module(name, table)
    shared = SharedBias(bias.role, f"{sites[0].module}.{name}", tuple(used))
    return dataclasses.replace(stack, bias=shared)


def _moved(value: Any, old: str, new: str) -> Any:
    """A description with every path at or below `old` moved to `new`."""
    if isinstance(value, str):
        return new + value[len(old) :] if value == old or value.startswith(f"{old}.") else value
    if isinstance(value, tuple):
        return tuple(_moved(item, old, new) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        changes = {field.name: _moved(getattr(value, field.name), old, new) for field in fields}
        return dataclasses.replace(value, **changes)
    return value
