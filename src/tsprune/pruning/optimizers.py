"""Optimizers of a recovery: Muon for matrices inside the blocks, AdamW for everything else."""

from __future__ import annotations

import torch
from torch import nn

from tsprune.choices import Precision
from tsprune.models.forecaster import Forecaster
from tsprune.precision import Muon


def optimizers(model: Forecaster, precision: Precision) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of linear maps inside the blocks, AdamW for all other parameters."""
    blocks = [block for stack in model.anatomy.stacks for block in stack.blocks]
    modules = [part for block in blocks for part in model.module.get_submodule(block.module).modules()]
    maps = {id(part.weight) for part in modules if isinstance(part, nn.Linear) and part.weight.numel()}
    parameters = list(model.module.parameters())
    matrices = [p for p in parameters if id(p) in maps]
    rest = [p for p in parameters if id(p) not in maps]
    adamw = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(matrices, precision=precision), adamw] if matrices else [adamw]
