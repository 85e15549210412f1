"""All tables of a model at once, side by side and by themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from tests.suites import ORBITS, configuration, tiny
from tests.toy import Toy
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.explain import (
    EXPLANATION_TABLES,
    attention,
    attribution,
    chaotic_mechanism,
    chaotic_traits,
    overview,
)
from tsprune.explain.mechanism_claims import CLAIMS
from tsprune.explain.overview import STAGES, windows_to_forecast

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128, 75], 12),))


def test_tables_agree_with_what_makes_them() -> None:
    model = tiny("tiny-timesfm")
    steps: list[str] = []
    found = overview(model, SUITE, trajectories=ORBITS, progress=lambda step, done, total: steps.append(step))
    assert tuple(dict.fromkeys(steps)) == STAGES
    assert found.skipped[0][0] == "induction"  # a context of four patches
    heads = found.heads
    assert heads["address"].tolist() == [c.address for c in model.anatomy.components("head")]
    np.testing.assert_array_equal(heads["sharpness"], attention(model, SUITE).heads["sharpness"])
    shares = attribution(model, SUITE).set_index("part")["share"]
    np.testing.assert_allclose(heads["share"], shares[heads["address"]])
    assert heads[["mase", "parroting", "stable_rank"]].notna().all(axis=None)
    assert set(found.by_share["trait"]) == {"parroting", "seasonality"}
    assert len(found.tables()) == 19
    pd.testing.assert_frame_equal(found.chaos, chaotic_traits(model, ORBITS))
    named = heads.set_index("address")["sharpness"].to_dict()
    pd.testing.assert_frame_equal(found.chaos_mechanism, chaotic_mechanism(model, ORBITS, named))
    assert found.mechanism["claim"].unique().tolist() == list(CLAIMS)
    assert set(found.correlations["measure"]) >= {"stable_rank", "sharpness", "size"}
    assert {r for one in found.portraits for r in one.reasons} >= {"the sharpest", "the most diffuse"}
    assert (found.windows, found.forecast_windows, found.draws, found.samples) == (4, 4, 5, None)


def test_without_effects() -> None:
    found = overview(tiny("tiny-chronos-bolt"), SUITE, effects=False)
    assert "parroting" not in found.heads
    assert len(found.effects) == len(found.by_share) == len(found.chaos) == 0
    assert not found.skipped
    assert found.heads["followed_score"].notna().any()
    sure = found.heads["followed_sure"].dropna()
    assert sure.between(0, 1).all()
    assert all("parroting" not in reason for one in found.portraits for reason in one.reasons)


def test_what_the_anatomy_does_not_say_is_left_out() -> None:
    """The toy takes contexts of one length."""
    suite = Suite("s", (configuration("a/D/short", [9, 9, 9], 3),))
    found = overview(Toy(), suite, effects=False)
    assert [part for part, _ in found.skipped] == ["induction", "attribution"]
    assert found.heads["sharpness"].between(0, 1).all()
    assert len(found.lens) == 3


@pytest.mark.parametrize(("name", "windows"), [("tiny-chronos-t5", 2), ("tiny-chronos-bolt", 16)])
def test_models_of_tokens_are_forecast_on_fewer_windows(name: str, windows: int) -> None:
    assert windows_to_forecast(tiny(name), 16) == windows
    assert windows_to_forecast(tiny(name), 1) == 1


def test_a_model_of_tokens_is_explained_whole() -> None:
    """Sampled paths, a lens of tokens, and every head's effect on the few windows that are forecast."""
    suite = Suite("s", (configuration("a/D/short", [60, 48, 48, 75], 6),))
    orbits = dataclasses.replace(ORBITS, configurations=ORBITS.configurations[:1])
    found = overview(
        tiny("tiny-chronos-t5"), suite, per_configuration=4, shares=[0.4], draws=1, trajectories=orbits
    )
    assert (found.windows, found.forecast_windows) == (4, 1)
    assert found.heads[["share", "size", "mase"]].notna().all(axis=None)
    assert found.lens[["entropy", "vocabulary", "peaks"]].notna().all(axis=None)
    assert found.induction["followed_score"].notna().any()
    assert set(found.effects["which"]) == {"sharp", "diffuse", "random"}
    assert set(found.chaos_mechanism["claim"]) == set(CLAIMS[1:])
    assert not found.skipped


def test_the_schemas_describe_every_table() -> None:
    """Tables with rows have the columns of their schema, in its order; a made-up column is refused."""
    found = overview(tiny("tiny-timesfm"), SUITE, shares=[0.4], draws=1)
    for name, table in found.tables().items():
        names = EXPLANATION_TABLES[name].names
        assert [column for column in names if column in table] == table.columns.tolist()
    with pytest.raises(TspruneError, match="unknown column 'sharp'"):
        EXPLANATION_TABLES["heads"].checked(found.heads.assign(sharp=1))
