"""Optimizers of a recovery: every parameter has one."""

from __future__ import annotations

from tests.suites import tiny
from tsprune.pruning.optimizers import optimizers


def test_every_parameter_has_one_optimizer() -> None:
    for name in ("tiny-chronos-bolt", "tiny-toto", "tiny-moirai"):
        model = tiny(name)
        groups = [
            {id(p) for group in optimizer.param_groups for p in group["params"]}
            for optimizer in optimizers(model, "float32")
        ]
        assert sum(map(len, groups)) == len(set().union(*groups))
        assert set().union(*groups) == {id(p) for p in model.module.parameters()}
        site = model.anatomy.stacks[0].blocks[0].attention[0]
        assert id(model.module.get_submodule(site.output).weight) in groups[0]
        bias = model.anatomy.stacks[0].bias
        if bias is not None:
            assert id(model.module.get_submodule(bias.module).weight) in groups[1]
