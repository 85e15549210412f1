"""A whole study: complete tables, no forecast twice, and models too small for some questions."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.suites import small_suite
from tests.sweeping import Counting
from tests.tiny import TINY, pristine
from tests.toy import Toy
from tsprune import study
from tsprune.data import Suite, split
from tsprune.errors import TspruneError
from tsprune.evaluation import evaluate
from tsprune.models import Forecaster, load
from tsprune.pruning import Plan, compare, heads_at, prune
from tsprune.run_options import RunOptions
from tsprune.scores import rank
from tsprune.studies import Study
from tsprune.studies.experiments import study_plan
from tsprune.studies.score_agreement import measure_scores
from tsprune.studies.study_result import TABLES, plan_files, results_table, write_results
from tsprune.sweeps import sweep

NAMES = ["tiny-chronos-bolt", "tiny-timesfm"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Forecaster]:
    loaded = []
    for name in NAMES:
        directory = tmp_path_factory.mktemp(name)
        TINY[name](directory)
        loaded.append(load(str(directory), device="cpu"))
    return loaded


@pytest.fixture(scope="module")
def counted(models: list[Forecaster]) -> list[Counting]:
    return [Counting(model) for model in models]


@pytest.fixture(scope="module")
def found(counted: list[Counting]) -> Study:
    with pristine(counted[0]), pristine(counted[1]):
        return study(counted, small_suite(), max_loss=0.02, seed=3, explain=False)


def test_how_many_paths_were_drawn_is_stated(tmp_path: Path) -> None:
    TINY["tiny-moirai"](tmp_path)
    suite = small_suite().only(["first/D/short"])
    named = study([str(tmp_path)], suite, samples=3, explain=False)
    assert named.models[0].samples == 3
    assert named.manifest["arguments"]["samples"] == {str(tmp_path): 3}  # type: ignore[index]
    loaded = load(str(tmp_path), device="cpu", samples=2)
    assert study([loaded], suite, explain=False).models[0].samples == 2  # a loaded model keeps its own


def test_models_that_state_quantiles_draw_nothing(found: Study) -> None:
    assert [one.samples for one in found.models] == [None, None]
    assert found.manifest["arguments"]["samples"] == {}  # type: ignore[index]


def test_tables_are_complete(found: Study, models: list[Forecaster]) -> None:
    assert [one.name for one in found.models] == [model.name for model in models]
    for one, model in zip(found.models, models, strict=True):
        anatomy = model.anatomy
        assert one.family == model.family
        assert one.parameters == model.parameter_count
        assert one.baseline["configuration"].tolist() == ["first/D/short", "second/D/short"]
        assert one.heads["address"].tolist() == [c.address for c in anatomy.components("head")]
        blocks = [
            (c.stack, c.layer, u) for c in anatomy.components("layer") for u in ("heads", "mlp", "both")
        ]
        assert list(one.layers[["stack", "layer", "unit"]].itertuples(index=False, name=None)) == blocks
        assert len(one.heads_at) == 2 * len(anatomy.components("attention"))
        strategies = {"high-to-low", "low-to-high", "svd-high-to-low", "svd-low-to-high", "random"}
        # the one middle layer of the tiny Bolt is in its decoder, whose maps have a single row
        maps = one.architecture == "decoder-only"
        assert set(one.pruning["strategy"]) == {s for s in strategies if maps or "svd" not in s}
        assert {"head", "mlp"} == set(one.agreement["kind"])
        assert one.score_windows == 4  # half of the series, but for a window without history
        low, high = one.mase_interval
        assert low <= one.mase_ratio <= high
        assert set(one.pruning["percent"]) >= {30, 50}
        kinds = {(c.stack, c.attention) for c in anatomy.components("attention")}
        assert len(one.rank_correlation) == 4 * len(kinds)
        assert len(one.examples) == 1  # of one configuration: both have the same frequency
        for table in (one.layers, one.heads, one.pruning):
            changes = table[["mase_change", "crps_change", "spearman_distance"]]
            assert np.isfinite(changes).all(axis=None)


def test_tables_are_what_the_single_commands_find(found: Study, models: list[Forecaster]) -> None:
    suite = small_suite()
    for one, inner in zip(found.models, models, strict=True):
        model = Counting(inner)  # as in the study: other models would be given other batches
        singles = sweep(model, suite, kind="head")
        np.testing.assert_array_equal(one.heads["mase_change"], singles["mase_change"])
        mlps = sweep(model, suite, kind="mlp")
        of_mlps = one.layers[one.layers["unit"] == "mlp"]
        np.testing.assert_array_equal(of_mlps["crps_change"], mlps["crps_change"])
        alone = heads_at(model, suite, max_loss=0.02, seed=3).frame
        pd.testing.assert_frame_equal(one.heads_at[alone.columns], alone)
        scored = evaluate(model, suite)
        np.testing.assert_array_equal(one.baseline["MASE_ratio"], scored["MASE_ratio"])
        assert one.mase_ratio == pytest.approx(float(np.sqrt(scored["MASE_ratio"].prod())))


def test_equal_ablations_are_forecast_once(found: Study, counted: list[Counting]) -> None:
    assert len(found.models) == 2
    for one, model in zip(found.models, counted, strict=True):
        ranking, alone = rank(model), Counting(model.inner)
        scores = measure_scores(alone, small_suite(), RunOptions(seed=3))
        removed = len(one.removals)
        assert removed > 0
        cells = 1 + len(study_plan(model.anatomy, ranking, 3, scores.by_maps(ranking)).ablations())
        # the scores; per batch (one a configuration) every cell of the sweep, the baseline's among them, and
        # of the sweep of removals; two counts of the time of a forecast;
        # these models have too few middle MLPs for the headline's second sweep
        assert model.calls == alone.calls + 2 * cells + 2 * (1 + removed) + 2


def test_removals_grow_and_the_plan_is_the_chosen_one(
    found: Study, models: list[Forecaster], tmp_path: Path
) -> None:
    for one, model in zip(found.models, models, strict=True):
        sets = [frozenset(text.split()) for text in one.removals["components"]]
        assert all(small < large for small, large in itertools.pairwise(sets))
        assert [len(some) for some in sets] == (one.removals["heads"] + one.removals["mlps"]).tolist()
        assert one.removals["saving"].is_monotonic_increasing
        # the loss is that of the report half, measured anew by pruning
        last = prune(model, one.removals["components"].iloc[-1].split())
        change = compare(model, last, split(small_suite(), seed=3)[1], seed=3).change["MASE"]
        assert one.removals["mase_change"].iloc[-1] == pytest.approx(change.value, abs=1e-4)
        assert one.removals["chosen"].sum() == (one.plan is not None)
        if one.plan is not None:
            (addresses,) = one.removals.loc[one.removals["chosen"], "components"]
            assert {component.address for component in one.plan.components} == set(addresses.split())
    write_results(found, tmp_path)
    for place, name in plan_files(found).items():
        loaded = Plan.load(tmp_path / name)
        assert loaded == found.models[place].plan
        assert prune(models[place], loaded).parameter_count < models[place].parameter_count


def test_claims_about_each_model_and_all(found: Study) -> None:
    names = [one.name for one in found.models]
    assert [claim.model for claim in found.claims] == [names[0]] * 9 + [names[1]] * 9 + ["all"]
    assert found.claims[-1].verdict in ("confirmed", "refuted", "undecided")
    headline = [c for c in found.claims if c.statement.startswith("Middle layers")]
    assert [c.verdict for c in headline] == ["not applicable"] * 2


def test_what_was_left_out_is_listed_once(found: Study) -> None:
    assert sorted(found.skipped) == [
        ("second/D/short, window 1", "no history before the window"),
        ("third/D/short", "no series is long enough"),
    ]


def test_the_manifest_tells_what_was_run(found: Study, models: list[Forecaster]) -> None:
    manifest = json.loads(json.dumps(found.manifest))
    suite = small_suite()
    assert manifest["suite"] == {"name": "small", "windows": len(suite), "fingerprint": suite.fingerprint}
    assert manifest["arguments"]["seed"] == 3
    assert manifest["arguments"]["max_loss"] == 0.02
    assert manifest["arguments"]["models"] == [model.name for model in models]
    for model in models:
        weights = (Path(model.name) / "model.safetensors").read_bytes()
        assert manifest["checkpoints"][model.name] == hashlib.sha256(weights).hexdigest()
    assert {"python", "torch", "tsprune", "numpy"} <= manifest["versions"].keys()


def test_the_example_is_of_the_pruned_forecast(found: Study) -> None:
    for one in found.models:
        (example,) = one.examples
        assert example.configuration in ("first/D/short", "second/D/short")
        assert example.before.shape == example.after.shape == (9, len(example.target))
        assert not np.array_equal(example.before, example.after)


def assert_same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Equal to the last bit, but for how a missing value is spelt."""
    plain = [x.astype(object).where(x.notna(), None).reset_index(drop=True) for x in (a, b)]
    pd.testing.assert_frame_equal(*plain, check_exact=True)


def test_results_survive_the_round_trip(found: Study, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "study"
    write_results(found, directory)
    write_results(found, directory)  # replaces
    files = ["manifest.json", "results.parquet", *plan_files(found).values()]
    assert sorted(path.name for path in directory.iterdir()) == sorted(files)
    table = pd.read_parquet(directory / "results.parquet")
    assert_same(table, results_table(found))
    for one in found.models:
        for name in TABLES:
            rows = table[(table["model"] == one.name) & (table["experiment"] == name)]
            original = getattr(one, name)
            assert_same(rows[original.columns], original)
    assert (table["experiment"] == "claims").sum() == len(found.claims)
    assert json.loads((directory / "manifest.json").read_text()) == found.manifest


def test_a_study_of_a_trained_model_answers_the_headline_claim() -> None:
    model = load("bundled:timesfm", device="cpu")
    small = small_suite()
    suite = Suite("one", (small.configurations[0].select(np.array([True, False, True, False, False])),))
    seen: list[tuple[str, int, int]] = []
    one = study([model], suite, explain=False, progress=lambda *step: seen.append(step))
    headline = next(c for c in one.claims if c.statement.startswith("Middle layers"))
    assert headline.verdict == "undecided"  # a single window on the report side says nothing
    assert "[no interval]" in headline.evidence
    heads = len(model.anatomy.components("head"))
    assert f"{round(0.28 * heads)} of {heads} heads" in headline.evidence
    names = "scoring", "activations", "screening", "ablating", "headline", "removing", "intervals", "done"
    stages = [f"bundled:timesfm: {stage}" for stage in names]
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == stages
    counted = [(done, total) for stage, done, total in seen if stage == stages[3]]
    total = counted[-1][1]
    assert counted == [(done, total) for done in range(1, total + 1)]


def test_a_model_without_middle_layers_is_no_failure() -> None:
    found = study([Toy()], small_suite())
    assert found.models[0].pruning.empty
    assert found.models[0].examples == ()
    assert found.models[0].sha256 == ""
    verdicts = {c.statement[:20]: c.verdict for c in found.claims}
    applicable = [start for start, verdict in verdicts.items() if verdict != "not applicable"]
    assert "First and last layer" in applicable
    assert not [start for start in applicable if "Stable-rank" in start or "Middle" in start]
    assert len(results_table(found)) > 0


def test_mistakes_are_named() -> None:
    with pytest.raises(TspruneError, match="no model 'nonsense'"):
        study(["nonsense"], small_suite())
    with pytest.raises(TspruneError, match="no windows"):
        study([Toy()], Suite("empty", ()))
