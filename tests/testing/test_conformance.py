"""`check_conformance` names the law that a wrong description breaks, and reports what it could not check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.suites import tiny
from tsprune.anatomy import Anatomy, AttentionSite, Block
from tsprune.errors import TspruneError
from tsprune.models import Forecaster
from tsprune.testing import LAWS, Conformance, Finding, Subject
from tsprune.testing.conformance import broken_checks

BY_NUMBER = {law.number: law for law in LAWS}


@pytest.fixture
def model() -> Iterator[Forecaster]:
    loaded = tiny("tiny-timesfm")
    kept = loaded.anatomy
    yield loaded
    loaded.anatomy = kept


def changed(anatomy: Anatomy, change: Callable[[Block], Block]) -> Anatomy:
    """Every block of an anatomy changed."""
    stacks = (dataclasses.replace(s, blocks=tuple(map(change, s.blocks))) for s in anatomy.stacks)
    return dataclasses.replace(anatomy, stacks=tuple(stacks))


def of_sites(change: Callable[[AttentionSite], dict[str, Any]]) -> Callable[[Block], Block]:
    def of_block(block: Block) -> Block:
        sites = tuple(dataclasses.replace(site, **change(site)) for site in block.attention)
        return dataclasses.replace(block, attention=sites)

    return of_block


def unused_mlp(block: Block) -> Block:
    assert block.mlp is not None
    return dataclasses.replace(block, mlp=dataclasses.replace(block.mlp, output="tokenizer.dropout"))


WRONG: dict[str, tuple[int, Callable[[Block], Block]]] = {
    "another module's output projection": (3, of_sites(lambda s: {"output": s.module + ".key_ln"})),
    "heads of another size": (8, of_sites(lambda s: {"heads": 2, "head_dim": 12})),
    "an MLP that is left out": (3, lambda block: dataclasses.replace(block, mlp=None)),
    "a module off the way to the forecast": (4, unused_mlp),
    "a size that is left out": (6, of_sites(lambda s: {"sizes": ()})),
    "rows in another order": (
        8,
        of_sites(lambda s: {"query": dataclasses.replace(s.query, interleaved=True)}),
    ),
    "a norm of q and k that is left out": (8, of_sites(lambda s: {"factors": s.factors[1:]})),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_description_breaks_its_law(wrong: str, model: Forecaster) -> None:
    number, change = WRONG[wrong]
    model.anatomy = changed(model.anatomy, change)
    assert broken_checks(BY_NUMBER[number], Subject(model, one_pass=4))


def test_the_report_says_which_law_is_broken_and_what_was_not_checked() -> None:
    findings = (Finding(LAWS[0], {}), Finding(LAWS[2], {"some_check": "stack.0 differs"}))
    report = Conformance("mine", findings, ("forecasts_are_upstreams: pass `upstream`",))
    assert str(report).splitlines() == [
        "mine: does not conform",
        f"ok     law 1: {LAWS[0].title}",
        f"BROKEN law 3: {LAWS[2].title}",
        "         some_check: stack.0 differs",
        f"         usual cause: {LAWS[2].hint}",
        "not checked: forecasts_are_upstreams: pass `upstream`",
    ]
    with pytest.raises(TspruneError, match="BROKEN law 3"):
        report.require()
    Conformance("mine", findings[:1]).require()
