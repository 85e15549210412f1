"""A frontier of a tiny model: its points, the folder it leaves, and going on from there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsprune
from tests.suites import small_suite
from tsprune.data import split
from tsprune.deployment import Exported
from tsprune.errors import TspruneError
from tsprune.frontiers import Frontier, measure_frontier
from tsprune.models import Forecaster
from tsprune.pruning import compare

Pair = tuple[Forecaster, Exported]
QUICK = {"batches": (1, 2), "rounds": 3, "savings": (0.1, 0.3)}


def measured(deployed: Pair, folder: Path, **how: object) -> Frontier:
    chosen = {"runtimes": ("torch", "onnx-fp32"), **QUICK, **how}
    return tsprune.frontier(deployed[0], folder, suite=small_suite(), **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def first(deployed: Pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Frontier, Path]:
    """A frontier, and its folder; the original is exported already, pruned versions are not."""
    folder = tmp_path_factory.mktemp("frontier") / "out"
    shutil.copytree(deployed[1].name, folder / "exports" / "original-fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tsprune.frontiers.frontier_points.exports", refuse)
        return measured(deployed, folder), folder


def refuse(*_: object, **__: object) -> None:
    raise TspruneError("not exported in this test")


def test_points(deployed: Pair, first: tuple[Frontier, Path]) -> None:
    found, _ = first
    frame = found.frame
    torch_ = ["original", "pruned 10 %", "pruned 30 %"]
    points = [*((name, "torch") for name in torch_[:1]), ("original", "onnx-fp32")]
    points += [(name, "torch") for name in torch_[1:]]
    assert list(zip(frame["weights"], frame["runtime"], strict=True)) == [p for p in points for _ in (1, 2)]
    assert frame["batch"].tolist() == [1, 2] * 4
    whole = frame[frame["runtime"] == "torch"].set_index(["weights", "batch"])
    assert (whole.loc["original", ["mase_change", "mase_low", "mase_high"]] == 0).all(axis=None)
    exported = frame[frame["runtime"] == "onnx-fp32"]
    assert (exported["mase_change"].abs() < 1e-4).all()
    sizes = whole["parameters"].groupby("weights", sort=False).first()
    assert sizes.is_monotonic_decreasing
    assert frame["unbeaten"].any()
    skipped = dict(found.skipped)
    assert skipped["pruned 30 % by onnx-fp32"] == "not exported in this test"
    assert found.headline.startswith("Batch 1, for a loss of at most 0")


def test_losses_are_those_of_the_half_that_chose_nothing(
    deployed: Pair, first: tuple[Frontier, Path]
) -> None:
    found, folder = first
    pruned = tsprune.load(folder / "models" / "pruned-30")
    change = compare(deployed[0], pruned, split(small_suite())[1]).change["MASE"]
    row = found.frame[found.frame["weights"] == "pruned 30 %"].iloc[0]
    np.testing.assert_allclose(
        row[["mase_change", "mase_low", "mase_high"]].astype(float),
        [change.value, change.low, change.high],
        rtol=1e-3,  # weights of the file are those of the original's type
        atol=1e-6,
    )


def test_it_goes_on_and_measures_nothing_twice(
    deployed: Pair, first: tuple[Frontier, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, folder = first
    monkeypatch.setattr(measure_frontier, "timed_in_turns", refuse)
    monkeypatch.setattr("tsprune.frontiers.frontier_points.exports", refuse)
    again = measured(deployed, folder)
    pd.testing.assert_frame_equal(again.frame, before.frame)
    with pytest.raises(TspruneError, match="holds a frontier of another seed; name a new folder"):
        measured(deployed, folder, seed=1)
    with pytest.raises(TspruneError, match="other batches or rounds"):
        measured(deployed, folder, rounds=4)


def test_all_versions_take_turns(
    deployed: Pair, first: tuple[Frontier, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each version is timed before any is timed again, so that other work which comes or goes touches all."""
    shutil.copytree(first[1], tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "times")
    order: list[tuple[str, int]] = []  # name of the version, rounds

    def watched(original: Forecaster, model: Forecaster, **how: int) -> np.ndarray:
        if len(order) == 10:
            raise KeyboardInterrupt
        order.append((model.name, how["rounds"]))
        return np.ones((2, how["rounds"]))

    monkeypatch.setattr(measure_frontier, "timed_in_turns", watched)
    with pytest.raises(KeyboardInterrupt):
        measured(deployed, tmp_path / "out", runtimes=("torch",))
    assert order[::2] == order[1::2]  # both batches
    versions = [version for version, _ in order[::2]]
    assert versions == [*versions[:3], *versions[:2]]
    assert len({*versions}) == 3
    assert {rounds for _, rounds in order} == {1}
    order.clear()
    assert len(measured(deployed, tmp_path / "out", runtimes=("torch",)).frame) == 6
    assert len(order) == 3 * 2 * 3 - 10  # versions, batches, rounds


def test_siblings_recovery_and_what_cannot_be_made(deployed: Pair, tmp_path: Path) -> None:
    deployed[0].save(tmp_path / "sibling")
    smaller = tsprune.prune(deployed[0], ["encoder.1.mlp"])
    smaller.save(tmp_path / "out" / "models" / "pruned-10")
    found = measured(
        deployed,
        tmp_path / "out",
        runtimes=("torch",),
        against=(str(tmp_path / "sibling"), str(tmp_path / "none")),
        savings=(0.1,),
        recover_steps=2,
        batches=(1,),
    )
    names = found.frame["weights"].tolist()
    assert names == ["original", "pruned 10 %", "pruned 10 %, 2 steps of recovery", str(tmp_path / "sibling")]
    assert abs(found.frame["mase_change"].iloc[-1]) < 1e-3
    assert str(tmp_path / "none") in dict(found.skipped)
    assert not list((tmp_path / "out" / "models").glob("*.state"))


def test_versions_by_plans(deployed: Pair, tmp_path: Path) -> None:
    model, out = deployed[0], tmp_path / "out"
    plans = [tsprune.Plan.of(model, part) for part in ("encoder.1.mlp", "decoder.1.mlp", "encoder.1.mlp")]
    plans[1].save(tmp_path / "plan.json")
    quick = {"runtimes": ("torch",), "savings": (), "batches": (1,)}
    found = measured(deployed, out, plans=[plans[0], tmp_path / "plan.json", plans[2]], **quick)
    assert found.frame["weights"].tolist() == ["original", *2 * ["without 1 mlp"]]  # one plan came twice
    places = sorted((out / "models").iterdir())
    kept = {tsprune.load(place).origin.components for place in places}  # type: ignore[union-attr]
    assert kept == {(*model.origin.components, *plan.components) for plan in plans}  # type: ignore[union-attr]
    other = tsprune.Plan("elsewhere", "timesfm-2.5", (), "00")
    with pytest.raises(TspruneError, match="timesfm"):
        measured(deployed, out, plans=[other], **quick)


def test_the_cost_of_recovery_grows_with_its_steps(deployed: Pair) -> None:
    few, many = (measure_frontier.recovery_seconds(deployed[0], small_suite(), steps) for steps in (1, 10**6))
    assert 0 < few < many / 1000


def test_mistakes(deployed: Pair, tmp_path: Path) -> None:
    for wrong, words in (
        ({"savings": (1.5,)}, "savings"),
        ({"savings": 0.3}, "savings"),
        ({"runtimes": ("tensorrt",)}, "unknown runtime 'tensorrt'"),
        ({"recover_steps": -1}, "recover_steps"),
        ({"metric": "RMSE"}, "RMSE"),
        ({"rounds": 0}, "rounds"),
    ):
        with pytest.raises(TspruneError, match=words):
            measured(deployed, tmp_path / "out", **wrong)
    assert not (tmp_path / "out" / "scores").exists()
