"""Planted differences are found by the tables of the three questions, and pages hold what the results say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsprune
from pretrain.laboratory import answers, findings, results
from pretrain.laboratory.plan import CONDITIONS, DEPTHS, NULL

ROWS = list(results.COLUMNS)


def planted(seeds: int = 3) -> pd.DataFrame:
    """Results in which the area falls by 0.1 with each doubling of depth, and MLPs carry 3 of 4 damages."""
    rng, rows, known = np.random.default_rng(0), [], []
    for condition in (c for c in CONDITIONS if c.architecture == "timesfm"):
        for seed in range(seeds):
            run = f"{condition.name}-s{seed}"
            known.append(
                {
                    "run": run,
                    "condition": condition.name,
                    "seed": seed,
                    "parameters": 1,
                    **{
                        name: getattr(condition, name)
                        for name in ("architecture", "layers", "width", "steps")
                    },
                }
            )
            area = 0.5 - 0.1 * np.log2(condition.layers / 8) + 0.002 * rng.standard_normal()
            parroting = rng.standard_normal()
            rows += [
                (run, "pocket", "redundancy", "area", "MASE", area),
                (run, "pocket", "set", "middle mlp", "MASE", np.expm1(0.3)),
                (run, "pocket", "set", "middle attention", "MASE", np.expm1(0.1)),
                (run, "chaos", "trait", "", "excess_parroting", parroting),
                (run, "chaos", "score", "", "CRPS", 1 - parroting),
            ]
    return pd.DataFrame(known).merge(pd.DataFrame(rows, columns=["run", *ROWS]), on="run")


def test_the_planted_slope_is_found_and_nothing_else() -> None:
    runs = answers.of_runs(planted())
    table, checks = answers.regression(runs)
    depth = table.loc["twice the depth"]
    assert depth["low"] < -0.1 < depth["high"] < -0.09
    others = table.drop(index=["the base", "twice the depth"])
    assert (others["coefficient"].abs() < 0.01).all()
    assert "mixed model" in checks[0]
    one_seed, checks = answers.regression(answers.of_runs(planted(1)))
    assert one_seed.loc["twice the depth", "coefficient"] == pytest.approx(-0.1, abs=0.01)
    assert "least squares" in checks[0]
    assert answers.regression(runs.iloc[:5])[1] == ["5 runs are too few for a regression"]


def test_damages_add_up_and_seeds_are_replicates() -> None:
    runs = answers.of_runs(planted())
    np.testing.assert_allclose(runs["mlp share"], 0.75)
    shown = answers.by_condition(runs, DEPTHS, {"middle mlp": "MLPs", "one mlp": "one"})
    assert shown.loc["depth-8", "MLPs"] == "0.300 (each)"
    assert shown.loc["depth-8", "one"] == "not measured"
    assert shown["seeds"].to_list() == [3, 3, 3]
    assert list(shown.index) == ["depth-8", "depth-16", "depth-4"]


def test_dose_and_response_is_one_of_conditions() -> None:
    found = answers.dose(answers.of_runs(planted()))
    assert list(found.index) == ["chaos"]
    decoders = [c for c in CONDITIONS if c.architecture == "timesfm" and c.question != NULL]
    assert found.loc["chaos", "conditions"] == len(decoders)
    assert found.loc["chaos", "rank correlation"].startswith("-1.00 [")


def test_pages_hold_what_the_results_say() -> None:
    """Run `python -m pretrain.laboratory results` after new results."""
    found = findings.blocks(tsprune.data.laboratory())
    pages = sorted(findings.FOLDER.glob("*.md"))
    assert [page.stem for page in pages] == ["architecture", "parroting", "redundancy"]
    for page in pages:
        text = page.read_text()
        assert findings.filled(text, found) == text, page.name
        assert f"({page.stem}.svg)" in text
        assert (page.parent / f"{page.stem}.svg").exists()
    with pytest.raises(tsprune.errors.TspruneError, match="no block 'other'"):
        findings.filled("<!-- other: begin -->\n<!-- other: end -->", found)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "find_spec", lambda package: None)
    with pytest.raises(tsprune.errors.TspruneError, match="need statsmodels; install it with: pip install"):
        findings.write(tsprune.data.laboratory(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_packaged_table_is_that_of_the_results() -> None:
    """Run `python -m pretrain.laboratory results` after new results."""
    pd.testing.assert_frame_equal(tsprune.data.laboratory(), results.published())


def test_the_depth_of_the_papers_claim_by_hand() -> None:
    """Damage 0.4 at 8 layers, halved with each doubling: log(1.06) is met at 8 * 0.4 / 0.0583 = 55 layers."""
    rng = np.random.default_rng(1)
    rows = [
        {"condition": f"depth-{layers}", "layers": layers, "paper": 3.2 / layers * np.exp(noise)}
        for layers in (4, 8, 16, 32)
        for noise in 0.02 * rng.standard_normal(3)
    ]
    other = {"condition": "wide", "layers": 2, "paper": 9.0}
    found = answers.paper_depth(pd.DataFrame([*rows, other]))
    assert found.startswith("Each doubling of the depth multiplies the damage by 0.50 (p = ")
    assert "12 runs of up to 32 layers" in found
    assert 52 <= int(found.split(" meets 6 % at ")[1].split()[0]) <= 58
    flat = pd.DataFrame(rows).assign(paper=0.4 * np.exp(0.02 * rng.standard_normal(12)))
    assert "at over 4096 layers [over 4096, over 4096]" in answers.paper_depth(flat)
    assert answers.paper_depth(pd.DataFrame(rows[:6])) == "Not measured yet."


def test_an_effect_of_accuracy_is_not_one_of_depth() -> None:
    """Deeper models that are worse, and an area that falls with log(MASE) by one to one."""
    rng, rows = np.random.default_rng(2), []
    for layers in (4, 8, 16):
        for _ in range(10):
            error = 0.1 * np.log2(layers / 8) + 0.05 * rng.standard_normal()
            rows.append(
                {
                    "condition": f"depth-{layers}",
                    "architecture": "timesfm",
                    "supervision": "base",
                    "layers": layers,
                    "width": 64,
                    "steps": 2500,
                    "pocket MASE": np.exp(error),
                    "area": 0.5 - error + 0.02 * rng.standard_normal(),
                }
            )
    table, _ = answers.regression(pd.DataFrame(rows))
    assert table.loc["twice the depth", "coefficient"] == pytest.approx(-0.1, abs=0.02)
    alike, _ = answers.regression(pd.DataFrame(rows), accuracy=True)
    assert abs(alike.loc["twice the depth", "coefficient"]) < 0.02
    assert alike.loc["log(MASE) of the whole model", "coefficient"] == pytest.approx(-1, abs=0.15)


def test_what_training_brought_back_by_hand() -> None:
    """Run a: CRPS 0.7, 1.1 as pruned, 0.8 trained: 0.3 of 0.4 came back; run b: 0.2 of 0.4."""
    values = {
        ("a", "nothing removed"): (0.7, 0.0),
        ("a", "carriers, as pruned"): (1.1, -0.2),
        ("a", "carriers, trained"): (0.8, -0.1),
        ("b", "nothing removed"): (0.8, 0.0),
        ("b", "carriers, as pruned"): (1.2, -0.2),
        ("b", "carriers, trained"): (1.0, -0.1),
    }
    rows = [
        (run, "pocket", "separation", unit, metric, value)
        for (run, unit), pair in values.items()
        for metric, value in zip(("CRPS", "excess_parroting", "MASE"), (*pair, 1.0), strict=True)
    ]
    found = answers.separation(pd.DataFrame(rows, columns=["run", *ROWS]))
    assert found.loc["carriers, trained", "CRPS that came back"].startswith("0.625 [")
    assert found.loc["carriers, trained", "parroting that came back"] == "0.500 (each)"
    assert set(found.loc[["nothing removed", "carriers, as pruned"], "CRPS that came back"]) == {""}
