"""The time left of a sweep: ablations cost by their depth, and the estimate is right early."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suites import configuration, small_suite, tiny
from tsprune.anatomy import Component
from tsprune.data import Suite
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Total
from tsprune.sweeps import run, single_ablations
from tsprune.sweeps.cell_plan import make_plan
from tsprune.sweeps.pace import Pace, batch_size, deepest_first, reached
from tsprune.sweeps.sweep_result import CLEAN

MODELS = ("tiny-chronos-bolt", "tiny-timesfm", "tiny-chronos-t5", "tiny-toto")


def cost(ablation: Ablation) -> float:
    """Seconds of a forecast: an encoder of two layers costs 6, all else 0.1."""
    if ablation == CLEAN:
        return 6.1
    first = min(c.layer if c.stack == "encoder" else 2 for c in ablation.components)
    return 0.1 + 3 * (2 - first)


def depths(model: Forecaster) -> dict[Component, float]:
    return {c: 1 - cost(Ablation((c,))) / 6.1 for c in model.anatomy.components()}


def test_the_size_of_a_batch_by_hand() -> None:
    """Steps of two histories and forecasts, and of the calls; decoded steps weigh a hundred times as much."""
    suite = Suite("two", (configuration("a/D/short", [60, 60], horizon=5),))
    (batch,) = make_plan(tiny("tiny-timesfm"), suite, [], batch_size=2).batches
    calls = 4500
    assert batch_size(batch) == 2 * 60 + 2 * 5 + calls
    assert batch_size(batch, stepwise=True) == 2 * 60 + 100 * 2 * 5 + calls


def test_a_worked_example() -> None:
    """Encoder units come first and cost 60 times a decoder's; the estimate is right all the same."""
    model = tiny("tiny-chronos-bolt")
    suite = Suite("two", (configuration("a/D/short", [60] * 6, horizon=5),))
    ablations = [*single_ablations(model, "head").values(), *single_ablations(model, "mlp").values()]
    plan = make_plan(model, suite, ablations, batch_size=2)
    now = [0.0]
    seen: list[tuple[float, float]] = []

    def report(done: int, total: int) -> None:
        assert isinstance(total, Total)
        seen.append((now[0], total.seconds_left))

    pace = Pace(plan, report, lambda: now[0])
    for unit in plan.units():
        pace.timed(depths(model))
        for ablation in deepest_first(unit.ablations, depths(model)):
            now[0] += cost(ablation)
            pace.done(unit, [ablation])
    whole = seen[-1][0]
    assert whole == pytest.approx(3 * sum(map(cost, (CLEAN, *ablations))))
    assert seen[-1][1] == 0.0
    ratios = [left / (whole - at) for at, left in seen if 0.1 * whole <= at < whole]
    assert len(ratios) > 50
    assert max(np.log(ratios), key=abs) == pytest.approx(0, abs=np.log(1.1))
    naive = next(at * (len(seen) - n) / n / (whole - at) for n, (at, _) in enumerate(seen, 1) if at > 9)
    assert naive > 1.5  # by counts alone


@pytest.mark.parametrize("name", MODELS)
def test_depth_follows_the_order_of_execution(name: str) -> None:
    model = tiny(name)
    with reached(model) as found:
        model.forecast([np.sin(np.arange(60.0)).astype(np.float32)], 5)
    assert set(found) == set(model.anatomy.components())
    for stack in model.anatomy.stacks:
        mlps = [found[c] for c in model.anatomy.components("mlp") if c.stack == stack.name]
        assert mlps == sorted(mlps)
    assert 0 < min(found.values()) < max(found.values()) < 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())


def test_the_deepest_ablation_comes_first_and_changes_nothing() -> None:
    one, two, three = (Ablation((Component("stack", n, mlp=True),)) for n in range(3))
    at = {Component("stack", n, mlp=True): depth for n, depth in enumerate((0.1, 0.8, 0.5))}
    assert deepest_first([one, CLEAN, two, three], at) == [CLEAN, two, one, three]
    assert deepest_first([CLEAN], at) == [CLEAN]
    assert deepest_first([], at) == []


def test_every_forecast_is_counted_and_the_end_has_no_time_left() -> None:
    model = tiny("tiny-timesfm")
    mlps = list(single_ablations(model, "mlp").values())
    seen: list[tuple[int, Total]] = []
    run(model, small_suite(), mlps, batch_size=2, progress=lambda _, done, total: seen.append((done, total)))  # type: ignore[arg-type]
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {int(total) for _, total in seen} == {len(seen)}
    assert seen[-1][1].seconds_left == 0.0
    assert all(total.seconds_left > 0 for _, total in seen[:-1])
