"""Scores of activations: a planted model's are known by hand, and laws that hold for every model."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tests.planted import AVERAGE, BIAS, COPY, LAG, Planted
from tests.suites import configuration, small_suite, tiny
from tests.tiny import TINY, full_length, pristine, zeroed
from tsprune import ablate
from tsprune.anatomy import Component
from tsprune.data import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.hooks.capture import Point, point_of, recording
from tsprune.hooks.mixing import mixes
from tsprune.hooks.stream import streams
from tsprune.models import Forecaster
from tsprune.scores import SCORES, score_table
from tsprune.scores.activations import MAP_SCORES, STREAM_SCORES, WindowSums, influence

KINDS = ("head", "mlp", "attention", "layer")
BY = [*MAP_SCORES, *STREAM_SCORES]
LENGTH = 48
MODELS = [name for name in TINY if name != "tiny-chronos-bolt-cached"]


def scores(model: Forecaster, suite: Suite, **settings: int) -> pd.DataFrame:
    return score_table(model, suite, by=BY, kinds=KINDS, **settings).set_index("address")


# --- by hand -------------------------------------------------------------------------------------


def test_influence_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    y = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    found = influence(x, y).tolist()
    assert found[:3] == pytest.approx([0, 1 - 1 / math.sqrt(2), 2])
    assert math.isnan(found[3])


def test_means_are_over_windows_then_configurations() -> None:
    sums, head = WindowSums(), Planted().anatomy.components("head")[0]
    assert math.isnan(sums.mean("s", head))
    sums.start("a")
    sums.add("s", head, torch.tensor([1.0, 2.0, math.nan]))
    sums.add("s", head, torch.tensor([6.0]))
    sums.start("b")
    sums.add("s", head, torch.tensor([9.0]))
    sums.start("c")
    sums.add("s", head, torch.tensor([math.nan]))
    assert sums.mean("s", head) == (3 + 9) / 2


def walk(count: int = 2) -> Suite:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, LENGTH + 2)).cumsum(1).astype(np.float32)
    c = Configuration("w/D/short", "D", 2, 1, list(x[:, :LENGTH]), x[:, LENGTH:], np.arange(count))
    return Suite("walks", (c,))


def test_planted_heads_are_found() -> None:
    """49 positions. Head 0 sees each of the first LAG positions from two queries, 37 others from one."""
    suite = walk()
    table = scores(Planted(), suite)
    positions = LENGTH + 1
    copy, average = (table.loc[f"stack.0.self.head.{head}"] for head in range(2))
    assert average["attention_entropy"] == pytest.approx(math.log(positions))
    assert average["attention_stable_rank"] == pytest.approx(1, abs=1e-5)
    assert copy["attention_sharpness"] == pytest.approx(1, abs=1e-4)
    assert copy["attention_stable_rank"] == pytest.approx(positions / 2, rel=1e-4)
    # the energies are 2/49, LAG times, and 1/49
    singles = positions - 2 * LAG
    entropy = math.log(positions) - LAG * 2 / positions * math.log(2)
    assert copy["attention_entropic_rank"] == pytest.approx(math.exp(entropy), rel=1e-4)
    assert singles + LAG == positions - LAG

    x = np.concatenate([np.stack(suite.configurations[0].contexts), np.zeros((2, 1))], 1)  # the next: 0
    copied = np.concatenate([x[:, :LAG], x[:, :-LAG]], 1)
    mean = np.repeat(x.mean(1, keepdims=True), positions, 1)
    written = COPY * copied + AVERAGE * mean + BIAS
    norms = {
        "stack.0.self.head.0": COPY * copied,
        "stack.0.self.head.1": AVERAGE * mean,
        "stack.0.self": written,
        "stack.0.mlp": 0 * x,
        "stack.0": written,
    }
    for address, value in norms.items():
        assert table.loc[address, "output_norm"] == pytest.approx(abs(value).mean(), rel=1e-3, abs=1e-6)

    def cosines(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
        """The stream is (value, forecast, one-hot position)."""
        dot = before[0] * after[0] + before[1] * after[1] + 1
        size = np.sqrt((before**2).sum(0) + 1) * np.sqrt((after**2).sum(0) + 1)
        return float((1 - dot / size).mean())

    expected = cosines(np.stack([x, 0 * x]), np.stack([x, written]))
    assert table.loc["stack.0.self", "block_influence"] == pytest.approx(expected, rel=1e-3)
    assert table.loc["stack.0", "block_influence"] == pytest.approx(expected, rel=1e-3)
    assert table.loc["stack.0.mlp", "block_influence"] == pytest.approx(0, abs=1e-9)


# --- laws of every model -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Forecaster:
    return tiny(request.param)


def test_the_stream_is_the_sum_of_what_is_written_to_it(model: Forecaster) -> None:
    """What the scores stand on: a block returns what it was given plus what its sublayers wrote."""
    contexts = full_length(model, 2)
    for stack in model.anatomy.stacks:
        points: dict[Component, Point] = {}
        for layer, block in stack.numbered():
            for site in block.attention:
                component = Component(stack.name, layer, site.role)
                point = point_of(model.anatomy, component)
                points[component] = point._replace(path=site.norm, block="") if site.norm else point
            component = Component(stack.name, layer, mlp=True)
            assert block.mlp is not None
            path = block.mlp.norm or block.mlp.output
            points[component] = point_of(model.anatomy, component)._replace(path=path)
        factors = mixes(model, stack)
        with (
            torch.no_grad(),
            streams(model, stack) as seen,
            recording(model.module, points.values()) as written,
        ):
            model.teacher_forced(contexts)
        for place, layer in enumerate(stack.numbers):
            for call, (before, after) in enumerate(zip(seen[place], seen[place + 1], strict=True)):
                total = before.clone()
                for component, point in points.items():
                    if component.layer == layer:
                        kept, scale = (
                            (factors[component].kept, factors[component].written) if factors else (1, 1)
                        )
                        added = point.windows_first(written[point][call]).reshape(before.shape)
                        total = kept * total + scale * added
                torch.testing.assert_close(total, after, rtol=1e-4, atol=1e-5)


def test_scores_of_every_model_are_in_their_bounds(model: Forecaster) -> None:
    with pristine(model):
        table = scores(model, small_suite())
    heads = table[table["kind"] == "head"]
    over_time = heads[~heads["attention"].isin(["group", "variate"])]
    assert (heads["output_norm"] > 0).all()
    assert table["output_norm"].notna().all()
    others = table[table["kind"] != "head"]
    assert others["block_influence"].between(0, 2).all()
    assert heads["block_influence"].isna().all()
    assert over_time["attention_entropy"].notna().any()
    assert heads.drop(over_time.index)[list(MAP_SCORES)].isna().all(axis=None)
    assert over_time["attention_entropy"].dropna().gt(0).all()
    assert over_time["attention_sharpness"].dropna().between(0, 1).all()
    both = over_time.dropna(subset=["attention_stable_rank"])
    assert both["attention_stable_rank"].ge(1 - 1e-9).all()
    assert (both["attention_stable_rank"] <= both["attention_entropic_rank"] * (1 + 1e-9)).all()


def test_padding_and_company_change_nothing(model: Forecaster) -> None:
    """Windows of unlike lengths, each alone or all together, where the shorter ones are padded."""
    suite = Suite("s", (configuration("a/D/short", [60, 21, 33, 47], 5),))
    alone, together = (scores(model, suite, batch_size=size) for size in (4, 16))
    for name in BY:
        np.testing.assert_allclose(together[name], alone[name], rtol=2e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["mlp", "attention", "layer"])
def test_what_is_removed_has_no_influence(model: Forecaster, kind: str) -> None:
    target = model.anatomy.components(kind)[-1]
    with ablate(model, target):
        table = score_table(model, small_suite(), by=list(STREAM_SCORES), kinds=(kind,)).set_index("address")
    assert table.loc[target.address, "block_influence"] == pytest.approx(0, abs=1e-12)
    assert table.loc[target.address, "output_norm"] == 0
    assert (table.drop(index=target.address)["output_norm"] > 0).all()


def test_a_head_alone_writes_what_its_sublayer_does(model: Forecaster) -> None:
    """Without the other heads and the bias, and before a norm that follows."""
    suite = Suite("s", (configuration("a/D/short", [60, 33], 5),))
    for sublayer, site in model.anatomy.sites():
        if site.norm is not None:
            continue
        output = model.module.get_submodule(site.output)
        head = dataclasses.replace(sublayer, head=site.numbers[-1])
        rest = slice(0, site.columns(site.numbers[-1]).start)
        bias = getattr(output, "bias", None)
        bias = torch.zeros(1) if bias is None else bias
        with zeroed(output.weight, rest), zeroed(bias):
            table = score_table(model, suite, by=["output_norm"], kinds=("head", "attention"))
        found = table.set_index("address")["output_norm"]
        assert found[head.address] == pytest.approx(found[sublayer.address], rel=1e-4)
        assert found[dataclasses.replace(sublayer, head=0).address] == 0


# --- the pass ------------------------------------------------------------------------------------


def test_one_pass_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model, suite = tiny("tiny-timesfm"), small_suite()
    passes: list[int] = []
    whole = type(model).teacher_forced
    monkeypatch.setattr(
        type(model), "teacher_forced", lambda self, x: passes.append(len(x)) or whole(self, x)
    )
    table = scores(model, suite)
    windows = sum(len(c) for c in suite.configurations) - 1  # one has no history
    assert sum(passes) == windows
    for name in BY:
        kinds = [kind for kind in KINDS if kind in SCORES[name].kinds]
        one = score_table(model, suite, by=[name], kinds=kinds).set_index("address")[name]
        np.testing.assert_array_equal(one, table.loc[one.index, name])


def test_windows_without_history_say_nothing() -> None:
    suite = Suite("bare", (configuration("a/D/short", [0, 0], 5),))
    with pytest.raises(TspruneError, match="no window of bare can be forecast"):
        scores(tiny("tiny-timesfm"), suite)


def test_only_some_windows_are_looked_at() -> None:
    suite = Suite("s", (configuration("a/D/short", [60] * 9, 5),))
    model = tiny("tiny-timesfm")
    rows = np.zeros(9, dtype=bool)
    rows[[0, 4, 8]] = True
    chosen = Suite("s", (suite.configurations[0].select(rows),))
    pd.testing.assert_frame_equal(scores(model, suite, per_configuration=3), scores(model, chosen))
