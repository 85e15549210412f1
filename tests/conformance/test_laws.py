"""Every model obeys the laws of `tsprune.testing`, check by check."""

from __future__ import annotations

import pytest
from torch import nn

from tests.capabilities import CAPABILITIES
from tsprune.models import Forecaster, SamplingForecaster
from tsprune.testing.ablation_checks import last_linears
from tsprune.testing.conformance import LAWS
from tsprune.testing.subject import Check, Subject

# names in the upstream modules, written down again on purpose: the laws find both by running the model
LAST_OF_MLP = {
    "chronos-bolt": ".wo",
    "chronos-t5": ".wo",
    "chronos2": ".mlp.wo",
    "timesfm": ".ff1",
    "toto": ".mlp.2",
    "t0": ".mlp.2",
    "timestral": ".mlp.w3",
    "toto2": ".ffn.fc2",
    "timesfm3": ".ff1",
    "moirai": ".fc2",
    "moirai2": ".fc2",
    "moirai-moe": ".fc2",
}

EXPERTS = {"moirai-moe": 32}


@pytest.mark.parametrize("check", [check for law in LAWS for check in law.checks], ids=lambda c: c.__name__)
def test_law(check: Check, subject: Subject) -> None:
    check(subject)


def test_a_model_is_capable_of_what_its_family_is(model: Forecaster) -> None:
    """Other tests are skipped by this table, so that a wrong anatomy cannot skip its own."""
    able, readout = CAPABILITIES[model.family], model.anatomy.readout
    assert isinstance(model, SamplingForecaster) == able.samples
    assert model.anatomy.tokens == able.tokens
    assert any(site.keys_from is not None for _, site in model.anatomy.sites()) == able.crosses
    assert any(site.axis == "series" for _, site in model.anatomy.sites()) == able.groups
    assert (readout is not None and readout.only_position) == able.reads_one_position


def test_the_last_linear_layer_of_an_mlp_is_upstreams(model: Forecaster) -> None:
    for component in model.anatomy.components("mlp"):
        block = model.module.get_submodule(model.anatomy.block(component).module)
        suffix = LAST_OF_MLP[model.family]
        named = [part for name, part in block.named_modules() if f".{name}".endswith(suffix)]
        assert len(named) == EXPERTS.get(model.family, 1)
        assert all(isinstance(part, nn.Linear) for part in named)
        found = last_linears(model, component)
        assert [id(part) for part in found] == [id(part) for part in named]
