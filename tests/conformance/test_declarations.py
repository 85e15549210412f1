"""The table of models (`tsprune models`) equals the facts: each tick in it is proved by other tests.

Forecasting, ablation, replay, pruning and saving are the laws, which run for every family. Variates run in
law 1 of each model with `multivariate`. For the families that declare them, past covariates run in
tests/models/test_covariates.py, test_moirai_moe.py, test_t0.py, test_timestral.py, test_timesfm3.py and
test_toto2.py, export in tests/models/test_graphs.py and tests/deployment/test_exported_sampler.py.
"""

from __future__ import annotations

from tests.capabilities import CAPABILITIES, Capabilities
from tests.tiny import TINY
from tests.upstream import UPSTREAM
from tsprune.models import FAMILIES, Forecaster, SamplingForecaster


def test_a_family_declares_what_its_models_are(model: Forecaster, able: Capabilities) -> None:
    family = FAMILIES[model.family]
    blocks = [block for stack in model.anatomy.stacks for block in stack.blocks]
    roles = dict.fromkeys(site.role for block in blocks for site in block.attention)
    assert family.attention == tuple(roles)
    assert family.samples == able.samples == isinstance(model, SamplingForecaster)
    assert (family.multivariate, family.past_covariates) == (model.multivariate, model.past_covariates)
    assert ("cross" in family.attention) == able.crosses
    assert bool({"group", "variate"} & set(family.attention)) == able.groups
    names = [stack.name for stack in model.anatomy.stacks]
    assert ("encoder-decoder" in family.architecture) == (names == ["encoder", "decoder"])
    if "decoder-only" in family.architecture:
        assert all(stack.causal for stack in model.anatomy.stacks)


def test_every_family_is_in_every_table() -> None:
    assert set(FAMILIES) == set(CAPABILITIES) == set(UPSTREAM)
    assert {f"tiny-{name}" for name in FAMILIES} <= set(TINY)


def test_every_family_has_published_checkpoints() -> None:
    for family in FAMILIES.values():
        sizes = []
        assert family.released, family.name
        for one in family.released:
            owner, _, name = one.id.partition("/")
            assert owner, one.id
            assert name, one.id
            assert one.licence
            amount, unit = one.size.split()
            sizes.append(float(amount) * {"M": 1, "B": 1000}[unit])
        assert sizes == sorted(sizes), family.name
