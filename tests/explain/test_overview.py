"""All tables of a model at once, side by side and by themselves."""

from __future__ import annotations

import numpy as np

from tests.suites import configuration, tiny
from tests.toy import Toy
from tsprune.data import Suite
from tsprune.explain import attention, attribution, overview
from tsprune.explain.overview import STEPS

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128, 75], 12),))


def test_tables_agree_with_what_makes_them() -> None:
    model = tiny("tiny-timesfm")
    steps: list[str] = []
    found = overview(model, SUITE, progress=lambda step, done, total: steps.append(step))
    assert tuple(dict.fromkeys(steps)) == STEPS
    assert found.skipped[0][0] == "induction"  # a context of four patches
    heads = found.heads
    assert heads["address"].tolist() == [c.address for c in model.anatomy.components("head")]
    np.testing.assert_array_equal(heads["sharpness"], attention(model, SUITE).heads["sharpness"])
    shares = attribution(model, SUITE).set_index("part")["share"]
    np.testing.assert_allclose(heads["share"], shares[heads["address"]])
    assert heads[["mase", "parroting", "stable_rank"]].notna().all(axis=None)
    assert set(found.verdicts["trait"]) == {"parroting", "seasonality"}
    assert len(found.tables()) == 16
    assert found.mechanism["claim"].tolist()[-1] == "all three"
    assert set(found.correlations["measure"]) >= {"stable_rank", "sharpness", "size"}
    assert {r for one in found.portraits for r in one.reasons} >= {"the sharpest", "the most diffuse"}
    assert (found.windows, found.draws, found.samples) == (4, 5, None)


def test_without_effects() -> None:
    found = overview(tiny("tiny-chronos-bolt"), SUITE, effects=False)
    assert "parroting" not in found.heads
    assert len(found.effects) == len(found.verdicts) == 0
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
