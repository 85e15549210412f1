"""Multivariate windows: forecast together by the models that do so, and scored as gluonts scores them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from gluonts.dataset.common import ListDataset
from gluonts.dataset.split import split
from gluonts.ev.metrics import MASE, MeanWeightedSumQuantileLoss
from gluonts.model import evaluate_forecasts
from gluonts.model.forecast import QuantileForecast
from numpy.typing import NDArray

from tests.tiny import few_samples, write_bolt, write_chronos2, write_moirai, write_toto
from tsprune.data import from_arrays
from tsprune.data.split import calibration_mask
from tsprune.data.suite import Suite
from tsprune.evaluation import evaluate, shared_batches
from tsprune.evaluation.batching import ReadTogether, reading_of
from tsprune.evaluation.metrics import CRPS_LEVELS
from tsprune.evaluation.sampling import sampled
from tsprune.evaluation.single_series import unmeasured, unread
from tsprune.hooks.ablation import Ablation, ablate
from tsprune.models import Forecaster, load
from tsprune.scores import score_table, screen
from tsprune.sweeps import CLEAN, run, sweep

HORIZON, LENGTH = 4, 70
WRITERS = {"chronos2": write_chronos2, "toto": write_toto, "moirai": write_moirai, "bolt": write_bolt}


def arrays() -> list[NDArray[np.float64]]:
    """Two series of 3 variates and one of 2, with gaps; the last one has nothing known in one variate."""
    rng = np.random.default_rng(0)
    found = [rng.standard_normal((variates, LENGTH)).cumsum(1) + 30 for variates in (3, 3, 2)]
    found[0][1, 20:24] = found[1][2, -2] = np.nan
    return found


def suite() -> Suite:
    return from_arrays(arrays(), freq="h", horizon=HORIZON, season=6, windows=2)


@pytest.fixture(scope="module", params=["chronos2", "toto", "moirai", "bolt"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    path: Path = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](path)
    return few_samples(load(str(path), device="cpu"))


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Forecaster:
    path = tmp_path_factory.mktemp("chronos2")
    write_chronos2(path)
    return load(str(path), device="cpu")


def test_variates_of_a_window_share_a_group() -> None:
    (c,) = suite().configurations
    assert c.num_variates == 3
    assert [rows.tolist() for rows in c.together] == [
        [0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11], [12, 14], [13, 15]
    ]  # fmt: skip
    assert c.entities.tolist() == [0] * 6 + [3] * 6 + [6] * 4
    assert not suite().univariate().multivariate
    assert suite().fingerprint != suite().univariate().fingerprint


def test_a_batch_holds_whole_contexts_of_as_many_variates() -> None:
    c = suite().configurations
    batches = shared_batches(c, context_length=48, batch_size=7, reading=ReadTogether(variates=True))
    assert [[x.shape for x in batch.contexts] for batch in batches] == [[(3, 48)] * 2] * 2 + [[(2, 48)] * 2]
    single = shared_batches(c, context_length=48, batch_size=7)
    assert sum(len(batch) for batch in batches) == sum(len(batch) for batch in single) == 16
    assert all(x.ndim == 1 for batch in single for x in batch.contexts)


def test_a_variate_without_history_leaves_the_others_together() -> None:
    missing = arrays()
    missing[0][0, : LENGTH - HORIZON] = np.nan
    data = from_arrays(missing, freq="h", horizon=HORIZON, season=6, windows=1)
    batches = shared_batches(
        data.configurations, context_length=48, batch_size=9, reading=ReadTogether(variates=True)
    )
    assert [x.shape for batch in batches for x in batch.contexts] == [(2, 48), (2, 48), (3, 48)]


def test_scores_are_gluonts_over_all_dimensions(model: Forecaster) -> None:
    """Each window forecast by one call of the model on [V, T]; gluonts' metrics of these forecasts."""
    entries = [{"start": "2020-01-01", "target": x.astype(np.float32)} for x in arrays()[:2]]
    data = ListDataset(entries, freq="h", one_dim_target=False)
    _, template = split(data, offset=-2 * HORIZON)
    test = template.generate_instances(prediction_length=HORIZON, windows=2)
    forecasts = []
    for entry in test.input:
        found = model.forecast([entry["target"]], HORIZON).quantiles  # [V, Q, H]
        keys = [str(level) for level in CRPS_LEVELS]
        start = entry["start"] + entry["target"].shape[-1]
        forecasts.append(QuantileForecast(found.transpose(1, 2, 0), start, keys))
    metrics = [MASE("0.5"), MeanWeightedSumQuantileLoss(quantile_levels=list(CRPS_LEVELS))]
    expected = evaluate_forecasts(
        forecasts, test_data=test, metrics=metrics, axis=None, mask_invalid_label=True, seasonality=6
    )
    data_of_two = from_arrays(arrays()[:2], freq="h", horizon=HORIZON, season=6, windows=2)
    scores = evaluate(model, data_of_two)
    assert scores["MASE"][0] == pytest.approx(float(expected["MASE[0.5]"].iloc[0]), rel=2e-6)
    assert scores["CRPS"][0] == pytest.approx(
        float(expected["mean_weighted_sum_quantile_loss"].iloc[0]), rel=2e-6
    )


def test_only_models_that_read_variates_together_depend_on_groups(model: Forecaster) -> None:
    together, alone = (evaluate(model, data) for data in (suite(), suite().univariate()))
    assert (together["MASE"][0] != alone["MASE"][0]) == model.multivariate
    assert (together["CRPS"][0] != alone["CRPS"][0]) == model.multivariate


def test_a_sweep_is_a_loop_over_contexts(model: Forecaster) -> None:
    ablations = [Ablation((c,)) for c in model.anatomy.components("head")]
    data = suite()
    result = run(model, data, ablations, keep=[*ablations, CLEAN], batch_size=12)
    (c,) = data.configurations
    batches = shared_batches(
        [c], context_length=model.context_length, batch_size=12, reading=reading_of(model)
    )
    for ablation in [CLEAN, *ablations]:
        kept = result.forecasts[ablation, c.name]
        for batch in batches:
            with ablate(model, ablation.components):
                expected = model.forecast(batch.contexts, HORIZON).quantiles
            np.testing.assert_array_equal(kept.quantiles[batch.rows], expected)


def test_heads_over_series_matter_more_when_there_are_several(grouped: Forecaster) -> None:
    """With one key, their attention weights are 1 whatever their queries and keys are."""
    queries = grouped.module.get_submodule("encoder.block.0.layer.1.self_attention.q")
    contexts = arrays()[:1]
    clean = [grouped.forecast(x, HORIZON).quantiles for x in (contexts, list(contexts[0]))]
    kept = queries.weight.detach().clone()
    try:
        queries.weight.data *= -2
        changed = [grouped.forecast(x, HORIZON).quantiles for x in (contexts, list(contexts[0]))]
    finally:
        queries.weight.data.copy_(kept)
    assert not np.array_equal(changed[0], clean[0])
    np.testing.assert_array_equal(changed[1], clean[1])


def test_scores_of_activations_and_gradients_see_variates(grouped: Forecaster) -> None:
    names = ["attention_sharpness", "output_norm", "screening", "first_order"]
    data = suite()
    together, alone = (score_table(grouped, x, by=names) for x in (data, data.univariate()))
    series = together["attention"] == "group"
    assert alone.loc[series, "attention_sharpness"].isna().all()
    assert together.loc[series, "attention_sharpness"].between(0, 1).all()
    assert (together.loc[series, "screening"] != alone.loc[series, "screening"]).all()


def test_curvature_is_of_what_a_component_changes_in_all_variates(grouped: Forecaster) -> None:
    """First order: the sum over all variates of gradient x activation, from one context alone."""
    data = from_arrays(arrays()[:1], freq="h", horizon=HORIZON, season=6, windows=1)
    frame = screen(grouped, data, components="stack.*.group.head.*")
    assert np.isfinite(frame["crps_change"]).all()


def test_a_note_names_heads_that_single_series_do_not_measure(grouped: Forecaster) -> None:
    data = suite()
    (note,) = sweep(grouped, data.univariate(), components="stack.2.group.head.*").notes
    assert "9 heads of group attention" in note
    assert "--target" in note
    assert sweep(grouped, data, components="stack.2.group.head.*").notes == ()


def test_a_model_without_such_heads_needs_no_note(model: Forecaster) -> None:
    over_series = model.family in ("chronos2", "toto")
    assert bool(unmeasured(model, suite().univariate())) == over_series


def test_parts_of_a_suite_keep_variates_together() -> None:
    (c,) = suite().configurations
    mask = calibration_mask(c, 0.5, seed=1)
    for rows in c.together:
        assert len(set(mask[rows])) == 1
    one = from_arrays(arrays()[:1], freq="h", horizon=HORIZON, season=6, windows=3).configurations[0]
    by_time = calibration_mask(one, 0.5, seed=0)
    assert by_time.reshape(3, 3).tolist() == [[True, True, False]] * 3
    for count in range(1, 17):
        for drawn in suite().sample(count, seed=count).configurations:
            assert {len(rows) for rows in drawn.together} <= {2, 3}
            assert len(drawn) <= max(count, 3)


def test_sampled_windows_keep_variates_together(model: Forecaster) -> None:
    few = sampled(suite(), model, per_configuration=2).configurations[0]
    assert len(few) == (3 + 2 if model.multivariate else 2)


# --- past covariates -----------------------------------------------------------------------------


def covaried() -> Suite:
    """Two series of 2 variates with 2 past covariates, and gaps in both."""
    past = [np.random.default_rng(seed).standard_normal((2, LENGTH)).cumsum(1) for seed in (1, 2)]
    past[0][1, 30:] = np.nan
    data = [array[:2] for array in arrays()[:2]]
    return from_arrays(data, covariates=past, freq="h", horizon=HORIZON, season=6, windows=2)


def test_batches_count_covariates_and_cut_them_as_contexts() -> None:
    c = covaried().configurations
    batches = shared_batches(c, context_length=48, batch_size=8, reading=ReadTogether(True, True))
    assert [[np.shape(x) for x in batch.contexts] for batch in batches] == [[(4, 48)] * 2] * 2
    assert [len(batch) for batch in batches] == [4, 4]
    unread = shared_batches(c, context_length=48, batch_size=8, reading=ReadTogether(variates=True))
    assert [[np.shape(x) for x in batch.contexts] for batch in unread] == [[(2, 48)] * 4]
    assert batches[0].fingerprint != unread[0].select(range(4)).fingerprint


def test_a_sweep_reads_past_covariates_as_a_loop_does(model: Forecaster) -> None:
    data = covaried()
    (c,) = data.configurations
    ablations = [Ablation((component,)) for component in model.anatomy.components("mlp")]
    result = run(model, data, ablations, keep=[*ablations, CLEAN], batch_size=12)
    for ablation in [CLEAN, *ablations]:
        kept = result.forecasts[ablation, c.name]
        for batch in shared_batches(
            [c], context_length=model.context_length, batch_size=12, reading=reading_of(model)
        ):
            with ablate(model, ablation.components):
                expected = model.forecast(batch.contexts, HORIZON).quantiles
            np.testing.assert_array_equal(kept.quantiles[batch.rows], expected)
    plain = dataclasses.replace(data, configurations=(dataclasses.replace(c, covariates=None),))
    without = run(model, plain, [], keep=[CLEAN], batch_size=12).forecasts[CLEAN, c.name].quantiles
    same = np.array_equal(result.forecasts[CLEAN, c.name].quantiles, without)
    assert same != model.past_covariates
    assert unread(model, data) == () if model.past_covariates else "reads no past" in unread(model, data)[0]


def test_activations_and_gradients_read_covariates(grouped: Forecaster) -> None:
    names = ["output_norm", "screening"]
    found = score_table(grouped, covaried(), by=names)
    plain = [dataclasses.replace(c, covariates=None) for c in covaried().configurations]
    without = score_table(grouped, Suite("plain", tuple(plain)), by=names)
    assert (found["screening"] != without["screening"]).any()
    assert np.isfinite(found["output_norm"]).all()
