"""What a component saves: differences of real models, and parts counted once."""

from __future__ import annotations

import pytest

from tests.suites import tiny
from tsprune import prune
from tsprune.anatomy import Component
from tsprune.cost.flops import flops
from tsprune.errors import TspruneError
from tsprune.pruning.savings import ComponentClass, Savings, is_inside, measure_savings

parse = Component.parse


@pytest.mark.parametrize("name", ["tiny-chronos-bolt", "tiny-timesfm", "tiny-toto"])
def test_parameters_are_those_of_the_pruned_model(name: str) -> None:
    model = tiny(name)
    savings = measure_savings(model, "parameters")
    first = model.anatomy.stacks[0].name
    for component in model.anatomy.components():
        # what is in the first layers is not like the rest in T5: it owns the shared position bias
        if component.layer == 0 or component.kind == "layer" or component.stack != first:
            continue
        smaller = prune(model, [component])
        saved = 1 - smaller.parameter_count / model.parameter_count
        assert savings.of(component) == pytest.approx(saved, abs=1e-9), component


def test_operations_are_those_of_the_pruned_model() -> None:
    model = tiny("tiny-timesfm")
    savings = measure_savings(model, "flops")
    mlp, head = parse("stack.1.mlp"), parse("stack.1.self.head.0")
    assert savings.of(mlp) > savings.of(head) > 0
    series = [[float(x % 7) for x in range(64)]] * 4

    def count(patterns: list[str]) -> int:
        smaller = prune(model, patterns) if patterns else model
        return flops(lambda: smaller.forecast(series, 8))

    # shares of a shorter context are not quite those of a longer one, but MLPs have no context
    assert count(["stack.1.mlp"]) < count([])


def test_parts_are_saved_once() -> None:
    share = {
        ComponentClass("stack", None, "layer"): 0.20,
        ComponentClass("stack", None, "mlp"): 0.10,
        ComponentClass("stack", "self", "attention"): 0.08,
        ComponentClass("stack", "self", "head"): 0.03,
    }
    savings = Savings("parameters", share)
    layer, mlp, sublayer = parse("stack.1"), parse("stack.1.mlp"), parse("stack.1.self")
    first, second = parse("stack.1.self.head.0"), parse("stack.1.self.head.1")
    elsewhere = parse("stack.2.mlp")
    assert savings.of(layer, [elsewhere]) == pytest.approx(0.20)
    assert savings.of(layer, [mlp, first]) == pytest.approx(0.07)
    assert savings.of(layer, [sublayer, first, second, mlp]) == pytest.approx(0.02)
    assert savings.of(sublayer, [first, second]) == pytest.approx(0.02)
    assert savings.of(sublayer, [first, second, parse("stack.1.self.head.2")]) == 0.0
    assert savings.of(mlp, [mlp]) == pytest.approx(0.10)  # it is not inside itself


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("stack.1.mlp", "stack.1", True),
        ("stack.1.self.head.2", "stack.1", True),
        ("stack.1.self.head.2", "stack.1.self", True),
        ("stack.1.self", "stack.1", True),
        ("stack.1", "stack.1", False),
        ("stack.1", "stack.1.self", False),
        ("stack.1.mlp", "stack.1.self", False),
        ("stack.1.mlp", "stack.2", False),
        ("decoder.1.cross.head.2", "decoder.1.self", False),
        ("encoder.1.mlp", "decoder.1", False),
    ],
)
def test_what_is_inside_what(inner: str, outer: str, expected: bool) -> None:
    assert is_inside(parse(inner), parse(outer)) is expected


def test_milliseconds_are_measured_for_every_class() -> None:
    model = tiny("tiny-timesfm")
    savings = measure_savings(model, "latency")
    assert set(savings.share) == {ComponentClass.of(c) for c in model.anatomy.components()}
    assert all(0 <= share < 1 for share in savings.share.values())
    assert savings.share[ComponentClass("stack", None, "layer")] > 0.02  # of two or more layers


def test_an_unknown_objective() -> None:
    with pytest.raises(TspruneError, match="unknown objective 'beauty'; one of: latency, flops, parameters"):
        measure_savings(tiny("tiny-timesfm"), "beauty")  # type: ignore[arg-type]
