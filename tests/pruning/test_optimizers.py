"""Optimizers of a recovery: every parameter has one, and heads are orthogonalised one by one."""

from __future__ import annotations

import pytest
import torch

from tests.suites import tiny
from tests.tiny import TINY
from tsprune import prune
from tsprune.precision import orthogonalised
from tsprune.pruning.optimizers import head_blocks, optimizers
from tsprune.pruning.surgery import model_copy

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("name", [name for name in TINY if not name.endswith("cached")])
def test_blocks_are_the_heads_that_pruning_cuts(name: str) -> None:
    """All projections have them; removing head 0 leaves the other blocks of each matrix as they were."""
    model = tiny(name)
    stack = model.anatomy.stacks[0]
    first = stack.blocks[0].attention[0]
    blocks = head_blocks(model)
    paths = {
        path
        for _, site in model.anatomy.sites()
        for path in (site.query.module, site.key.module, site.value.module, site.output)
    }
    assert {id(weight) for weight in blocks} == {id(model.module.get_submodule(p).weight) for p in paths}
    small = prune(model, f"{stack.name}.0.{first.role}.head.0")
    after = head_blocks(small)
    for path in (first.query.module, first.output):
        one, other = (m.module.get_submodule(path).weight for m in (model, small))
        kept = blocks[one].split(one.detach())
        fused = first.query.module == first.key.module and path != first.output
        gone = [part * first.heads for part in range(3)] if fused else [0]
        kept = kept[[place for place in range(len(kept)) if place not in gone]]
        assert torch.equal(after[other].split(other.detach()), kept)
        assert torch.equal(after[other].joined(kept), other)


def test_a_step_moves_every_head_by_itself() -> None:
    """Muon's first step from zero momentum is the orthogonalised gradient of each head."""
    model = model_copy(tiny("tiny-toto"))  # fused and interleaved
    (muon, _), blocks = optimizers(model, "float32"), head_blocks(model)
    weight, heads = next(iter(blocks.items()))
    before, gradient = weight.detach().clone(), torch.randn(weight.shape)
    weight.grad = gradient
    muon.param_groups[0]["lr"] = 1.0
    muon.step()
    moved = heads.split(before - weight.detach())
    for place, head in enumerate(heads.split(gradient)):
        expected = orthogonalised(head) * 0.2 * max(head.shape) ** 0.5
        torch.testing.assert_close(moved[place], expected, rtol=0, atol=1e-4)
