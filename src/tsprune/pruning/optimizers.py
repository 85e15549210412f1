"""Optimizers of a recovery: Muon for matrices inside the blocks, AdamW for everything else."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

from tsprune.anatomy import AttentionSite
from tsprune.choices import Precision
from tsprune.models.forecaster import Forecaster
from tsprune.precision import Blocks, Muon


def optimizers(model: Forecaster, precision: Precision) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of linear maps inside the blocks, head by head, AdamW for other parameters."""
    blocks = [block for stack in model.anatomy.stacks for block in stack.blocks]
    modules = [part for block in blocks for part in model.module.get_submodule(block.module).modules()]
    maps = {id(part.weight) for part in modules if isinstance(part, nn.Linear) and part.weight.numel()}
    parameters = list(model.module.parameters())
    matrices = [p for p in parameters if id(p) in maps]
    rest = [p for p in parameters if id(p) not in maps]
    adamw = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)
    if not matrices:
        return [adamw]
    return [Muon(matrices, precision=precision, blocks=head_blocks(model)), adamw]


def head_blocks(model: Forecaster) -> dict[Tensor, Blocks]:
    """Weights of attention projections -> heads: rows of query, key and value, columns of the output."""
    found: dict[Tensor, Blocks] = {}
    for _, site in model.anatomy.sites():
        for path, heads in _heads(site).items():
            weight = model.module.get_submodule(path).weight
            rows = sorted(chain.from_iterable(heads))
            dim = 1 if path == site.output else 0
            equal = len(set(map(len, heads))) == 1
            if equal and isinstance(weight, Tensor) and rows == list(range(weight.shape[dim])):
                found[weight] = Blocks(dim, torch.tensor(heads, device=weight.device))
    return found


def _heads(site: AttentionSite) -> dict[str, list[list[int]]]:
    """Path of a linear layer -> indices of each head, of all projections that a fused layer holds."""
    found: dict[str, list[list[int]]] = {}
    for projection in (site.query, site.key, site.value):
        heads = (list(projection.rows(head)) for head in range(projection.heads))
        found.setdefault(projection.module, []).extend(heads)
    size = site.head_dim
    found[site.output] = [list(range(head * size, (head + 1) * size)) for head in range(site.heads)]
    return found
