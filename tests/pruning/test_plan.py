"""Plans: round trips, and one clear line for a plan that does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.suites import tiny
from tests.tiny import TINY
from tests.toy import Toy
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.models import Forecaster, load
from tsprune.pruning import Plan, prune


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    """A model whose file is there, so that its weights can be told from others."""
    directory = tmp_path_factory.mktemp("model")
    TINY["tiny-timesfm"](directory)
    return load(str(directory), device="cpu")


components = st.builds(
    Component,
    stack=st.sampled_from(["encoder", "decoder", "stack"]),
    layer=st.integers(0, 30),
    attention=st.sampled_from(["self", "cross", "time"]),
    head=st.none() | st.integers(0, 30),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
plans = st.builds(
    Plan,
    model=st.text(),
    family=st.text(),
    components=st.lists(components).map(tuple),
    checkpoint=st.text("0123456789abcdef", max_size=64),
    provenance=st.dictionaries(st.text(), values, max_size=3),
)


@given(plan=plans)
def test_round_trip(plan: Plan) -> None:
    assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_can_be_read_by_people(model: Forecaster, tmp_path: Path) -> None:
    plan = Plan.of(model, ["stack.1.self.head.*", "stack.0.mlp"], strategy="stable rank", budget=0.1)
    plan.save(tmp_path / "plan.json")
    stated = json.loads((tmp_path / "plan.json").read_text())
    assert stated["version"] == 1
    assert stated["family"] == "timesfm"
    assert stated["components"] == ["stack.0.mlp", *(f"stack.1.self.head.{i}" for i in range(3))]
    assert stated["provenance"] == {"strategy": "stable rank", "budget": 0.1}
    assert len(stated["checkpoint"]) == 64
    assert '\n    "stack.0.mlp",\n' in (tmp_path / "plan.json").read_text()
    assert Plan.load(tmp_path / "plan.json") == plan


def test_a_plan_is_shown_in_a_line_and_as_a_table(model: Forecaster) -> None:
    plan = Plan.of(model, ["stack.1.self.head.*", "stack.0.mlp"], objective="flops", expected_saving=0.25)
    assert repr(plan) == f"Plan({model.name}, 4 components: 1 mlp, 3 heads, saves 25.0 % of flops)"
    assert plan.frame["address"].tolist() == [component.address for component in plan.components]
    assert (
        repr(dataclasses.replace(plan, model="<m>", components=(), provenance={}))
        == "Plan(<m>, no components)"
    )
    shown = dataclasses.replace(plan, model="<m>")._repr_html_()
    assert "&lt;m&gt;" in shown
    assert "stack.1.self.head.2" in shown


def test_a_plan_prunes_as_its_components_do(model: Forecaster) -> None:
    plan = Plan.of(model, "stack.1.self.head.1", why="a test")
    by_plan, by_address = prune(model, plan), prune(model, "stack.1.self.head.1")
    assert by_plan.anatomy == by_address.anatomy
    assert by_plan.origin is not None
    assert by_plan.origin.provenance == {"why": "a test"}
    assert by_plan.origin.components == plan.components
    with pytest.raises(TspruneError, match=r"^stack\.1\.self\.head\.1 was already removed from this model$"):
        prune(by_plan, plan)
    later = Plan.of(model, "stack.2.mlp")  # made on the original, for what is left
    twice = prune(by_plan, later)
    assert twice.origin is not None
    assert [str(c) for c in twice.origin.components] == ["stack.1.self.head.1", "stack.2.mlp"]
    assert Plan.of(twice, "stack.0.mlp").checkpoint == plan.checkpoint


def test_a_plan_for_another_model(model: Forecaster) -> None:
    plan = Plan.of(model, "stack.1.mlp")
    with pytest.raises(TspruneError, match=r"^the plan is for a timesfm model"):
        prune(tiny("tiny-chronos2"), plan)
    with pytest.raises(TspruneError, match=r"^the plan is for the weights of .*which are not those of"):
        prune(model, dataclasses.replace(plan, checkpoint="0" * 64))
    assert prune(model, dataclasses.replace(plan, checkpoint="")).anatomy.removed
    too_deep = dataclasses.replace(plan, components=(Component("stack", 9, mlp=True),))
    with pytest.raises(TspruneError, match=r"stack\.9\.mlp"):
        prune(model, too_deep)


def test_a_model_without_a_file_has_no_checksum() -> None:
    assert Plan.of(Toy(), "stack.0.mlp").checkpoint == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a plan"),
        ("[]", "not a JSON object"),
        ("{}", "no 'version'"),
        ('{"version": 2}', "version 2; this tsprune reads 1"),
        ('{"version": 1, "model": "m", "family": "f", "components": "stack.0"}', "not a list"),
        ('{"version": 1, "model": "m", "family": "f", "components": ["x"]}', "'x' is not an address"),
        ('{"version": 1, "model": "m", "family": "f"}', "no 'components'"),
        ('{"version": 1, "model": "m", "family": "f", "components": [], "provenance": 3}', "not a plan"),
    ],
)
def test_what_is_no_plan(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(TspruneError) as caught:
        Plan.load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TspruneError, match=r"^there is no plan "):
        Plan.load(tmp_path / "none.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TspruneError, match=r"cannot read the plan .*not a text file"):
        Plan.load(tmp_path / "binary")
