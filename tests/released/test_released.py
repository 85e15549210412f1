"""Published checkpoints in their sizes, without memory: what the anatomy counts is what they have."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch_module

from tests.released.facts import RELEASED, UNKNOWN, Facts
from tsprune.anatomy import AttentionSite
from tsprune.models import FAMILIES, Forecaster
from tsprune.models.checkpoints import Checkpoint
from tsprune.models.skeleton import outlined

SIZES = {one.id: one.size for family in FAMILIES.values() for one in family.released}


def test_every_published_checkpoint_has_facts() -> None:
    assert set(SIZES) == set(RELEASED) | UNKNOWN
    for family in FAMILIES.values():
        for one in family.released:
            assert one.id in UNKNOWN or RELEASED[one.id].family == family.name


def built(name: str, facts: Facts) -> Forecaster:
    """The model of the released config.json, on the meta device."""
    shapes = upstream_shapes() if facts.family == "timesfm" else {}
    checkpoint = Checkpoint(name, Path(), facts.config, shapes)
    return outlined(lambda: FAMILIES[facts.family].forecaster.blank(checkpoint), 10**4)


def upstream_shapes() -> dict[str, tuple[int, ...]]:
    """Of TimesFM's weights: upstream has one size."""
    with torch.device("meta"):
        module = TimesFM_2p5_200M_torch_module()
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", RELEASED)
def test_the_anatomy_is_that_of_the_published_checkpoint(name: str) -> None:
    facts = RELEASED[name]
    model = built(name, facts)
    amount, unit = SIZES[name].split()
    # authors round to one or two digits, and leave out tied weights or not
    assert model.parameter_count == pytest.approx(float(amount) * {"M": 1e6, "B": 1e9}[unit], rel=0.05)
    assert facts.parameters in (None, model.parameter_count)
    anatomy = model.anatomy
    assert anatomy.d_model == facts.width
    assert {stack.name: len(stack.blocks) for stack in anatomy.stacks} == facts.layers
    heads = 0
    for stack in anatomy.stacks:
        roles = [site.role for block in stack.blocks for site in block.attention]
        assert roles == list(islice(cycle(facts.roles[stack.name]), len(roles)))
        assert all(block.mlp is not None for block in stack.blocks)
        for block in stack.blocks:
            for site in block.attention:
                assert (site.heads, site.head_dim) == (facts.heads, facts.head_dim)
                require_shapes(model, site)
                heads += site.heads
    assert len(anatomy.components("head")) == heads
    assert len(anatomy.components("mlp")) == sum(facts.layers.values())


def require_shapes(model: Forecaster, site: AttentionSite) -> None:
    """Every row and column of a sublayer's weights belongs to one head of one projection."""
    rows: dict[str, list[int]] = {}
    for projection in (site.query, site.key, site.value):
        found = [row for head in range(projection.heads) for row in projection.rows(head)]
        rows.setdefault(projection.module, []).extend(found)
    for path, of_heads in rows.items():
        weight = model.module.get_submodule(path).get_parameter("weight")
        assert weight.is_meta
        assert weight.shape[1] == model.anatomy.d_model
        assert sorted(of_heads) == list(range(weight.shape[0]))
    output = model.module.get_submodule(site.output).get_parameter("weight")
    assert output.shape == (model.anatomy.d_model, site.heads * site.head_dim)
