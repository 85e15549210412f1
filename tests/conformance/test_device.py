"""Everything that a model can do, on an accelerator (`tests.accelerator`), which fails where a GPU does."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tests.tiny
import tsprune
from tests.accelerator import DEVICE, NAME, Tally, accelerator
from tests.capabilities import CAPABILITIES, call_attention
from tests.suites import ORBITS, configuration, tiny
from tests.sweeping import assert_equal
from tests.tiny import SAMPLES, SHORT, TINY, few_samples, output_patch, pristine, uneven, zeroed
from tsprune.choices import MODES
from tsprune.cost.latency import compare_latency
from tsprune.data import Suite, training
from tsprune.errors import TspruneError
from tsprune.explain import attention, attribution, induction, overview
from tsprune.hooks.ablation import Ablation
from tsprune.models import Forecaster, load
from tsprune.models.placement import device_of, processor
from tsprune.progress import silent
from tsprune.pruning.removal_order import OutputChange
from tsprune.scores import score_table
from tsprune.scores.effects import EFFECT_SCORES
from tsprune.scores.ranking import available_scores
from tsprune.sweeps import Store, make_plan, run
from tsprune.testing import LAWS, Subject
from tsprune.testing.ablation_checks import ablating_is_zeroing_weights
from tsprune.testing.forecast_checks import forecasts_are_upstreams
from tsprune.testing.removal_checks import pruning_is_ablating, replaying_is_computing
from tsprune.testing.subject import Check

NAMES = [name for name in TINY if name != "tiny-chronos-bolt-cached"]
SUITE = Suite("few", (configuration("a/D/short", [60, 45, 60, 30], 5),))
EQUAL = Suite("equal", (configuration("a/D/short", [60, 60, 60], 5),))
EIGHT = Suite("eight", (configuration("a/D/short", [60, 45, 60, 30] * 2, 5),))
SERIES = [np.sin(np.arange(60) / (3 + n)) + 0.1 for n in range(3)]


@pytest.fixture(scope="module", autouse=True)
def _on_the_cpu() -> None:
    """Loads the models of the CPU first: moves on the accelerator untie weights."""
    tiny("tiny-moirai2")
    for name in NAMES:
        moved(name, "cpu")


@pytest.fixture
def tally() -> Iterator[Tally]:
    with accelerator() as counted:
        yield counted


@functools.cache
def moved(name: str, device: str = DEVICE) -> Forecaster:
    """A tiny model on the accelerator, or elsewhere."""
    with tempfile.TemporaryDirectory() as directory:
        TINY[name](Path(directory), **SHORT.get(name, {}))
        return few_samples(load(directory, device=device))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str, tally: Tally) -> Iterator[Forecaster]:
    model = moved(name)
    with pristine(model):
        yield model


# laws that try many components: tried on the device in one model of each kind, and of the others below
LONG = (ablating_is_zeroing_weights, replaying_is_computing, pruning_is_ablating)
WHOLE = ("tiny-chronos-bolt", "tiny-moirai2", "tiny-chronos2", "tiny-timesfm")
CHECKS = [check for law in LAWS for check in law.checks if check is not forecasts_are_upstreams]
TRIED = [(name, check) for name in NAMES for check in CHECKS if name in WHOLE or check not in LONG]


@pytest.mark.parametrize(("name", "check"), TRIED, ids=lambda x: getattr(x, "__name__", x))
def test_every_law_holds(name: str, check: Check, model: Forecaster) -> None:
    """With few components of each kind: all of them are tried on the CPU."""
    check(Subject(model, output_patch(model), None, call_attention, most=1))


def test_forecasts_are_those_of_the_cpu(name: str, model: Forecaster) -> None:
    here = moved(name, "cpu")
    assert str(model.device) == DEVICE
    pairs = [(here.forecast(SERIES, 5).quantiles, model.forecast(SERIES, 5).quantiles)]
    outputs = [m.teacher_forced(SERIES).numpy(force=True) for m in (here, model)]
    pairs.append((outputs[0], outputs[1]))
    if not CAPABILITIES[model.family].samples:
        readout = model.readout(SERIES, 2).numpy(force=True)
        pairs.append((here.forecast(SERIES, 2).quantiles, readout))
    for one, other in pairs:
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)


def output(model: Forecaster) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model.teacher_forced(SERIES).numpy(force=True)
    return found


def test_ablations_in_every_mode(model: Forecaster) -> None:
    head, mlp = model.anatomy.components("head")[-1], model.anatomy.components("mlp")[0]
    clean = output(model)
    for mode in MODES:
        with tsprune.ablate(model, [head, mlp], mode=mode):
            assert not np.array_equal(output(model), clean)
    site = model.anatomy.site(head)
    assert head.head is not None
    weight = model.module.get_submodule(site.output).get_parameter("weight")
    with tsprune.ablate(model, head):
        ablated = output(model)
    with zeroed(weight, site.columns(head.head)):
        np.testing.assert_array_equal(output(model), ablated)


def some(model: Forecaster) -> list[Ablation]:
    """The first and the last MLP, and two heads of one sublayer, which share a batch."""
    heads, mlps = model.anatomy.components("head"), model.anatomy.components("mlp")
    return [Ablation((c,)) for c in (mlps[0], *heads[-2:], mlps[-1])]


@pytest.mark.parametrize("name", NAMES)
def test_replay_changes_no_bit(name: str) -> None:
    """Not where the bits of a row depend on the size of its batch, either."""
    with accelerator(kernels_by_rows=True):
        model = moved(name)
        found = [run(model, EIGHT, some(model), replay=replay) for replay in (True, False)]
    assert_equal(*found)


UPSTREAM = {
    "tiny-chronos-bolt": lambda upstream, series: upstream.predict(series, prediction_length=5),
    "tiny-timesfm": lambda upstream, series: upstream.forecast(5, [x.numpy() for x in series]),
    "tiny-chronos-t5": lambda upstream, series: upstream.predict(series, 5, num_samples=SAMPLES),
}


@pytest.mark.parametrize("name", UPSTREAM, indirect=True)
def test_a_forecast_makes_the_transfers_of_upstream(name: str, model: Forecaster, tally: Tally) -> None:
    """And one more of sampling models, which marks the paths that were not finite."""
    model.forecast(SERIES, 5)  # sets upstream up
    before = tally.transfers
    UPSTREAM[name](model.upstream, [torch.from_numpy(x.astype(np.float32)) for x in SERIES])
    wanted = tally.transfers - before
    model.forecast(SERIES, 5)
    assert tally.transfers - before - wanted <= wanted + CAPABILITIES[model.family].samples


@pytest.mark.parametrize("size", ["BOLT", "TIMESFM", "T5"])
def test_transfers_of_a_sweep_do_not_grow_with_layers(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that this package makes; some of upstream's do."""
    write = {"BOLT": tests.tiny.write_bolt, "TIMESFM": tests.tiny.write_timesfm, "T5": tests.tiny.write_t5}
    found = []
    for layers in (2, 5):
        changed = {**getattr(tests.tiny, size), "layers": layers}
        monkeypatch.setattr(tests.tiny, size, changed)
        with accelerator() as tally:
            write[size](tmp_path / str(layers))
            model = few_samples(load(tmp_path / str(layers), device=DEVICE))
            first, last = model.anatomy.components("mlp")[0], model.anatomy.components("head")[-1]
            before = own(tally)
            run(model, EIGHT, [Ablation((first,)), Ablation((last,))])
            found.append(own(tally) - before)
    assert found[0] == found[1]


def own(tally: Tally) -> int:
    """Transfers made by lines of this package."""
    source = str(Path(tsprune.__file__).parent)
    return sum(count for place, count in tally.places.items() if place.startswith(source))


def test_every_score(model: Forecaster) -> None:
    possible = available_scores(model, SUITE, ("head",))
    by = [score.name for score in possible if score not in EFFECT_SCORES]
    assert len(by) > 10
    assert len(score_table(model, SUITE, by=by)) == len(model.anatomy.components("head"))


def test_attention_and_attribution(model: Forecaster) -> None:
    assert attention(model, SUITE).heads["windows"].max() > 0
    assert np.isfinite(attribution(model, SUITE)["share"]).all()


@pytest.mark.parametrize("name", ["tiny-moirai2", "tiny-chronos-t5"], indirect=True)
def test_a_whole_explanation(name: str, model: Forecaster) -> None:
    """Of a model of values with all forecasts without heads, of one of tokens without these."""
    found = overview(model, EQUAL, effects=name == "tiny-moirai2", trajectories=ORBITS)
    assert not found.skipped


def test_pruned_models(name: str, model: Forecaster, tmp_path: Path) -> None:
    chosen = uneven(model)
    pruned, here = tsprune.prune(model, chosen), tsprune.prune(moved(name, "cpu"), chosen)
    forecast = pruned.forecast(SERIES, 5).quantiles
    np.testing.assert_allclose(forecast, here.forecast(SERIES, 5).quantiles, rtol=1e-4, atol=1e-4)
    assert str(pruned.device) == DEVICE
    pruned.save(tmp_path / "pruned")
    loaded = few_samples(load(tmp_path / "pruned", device=DEVICE))
    np.testing.assert_array_equal(loaded.forecast(SERIES, 5).quantiles, forecast)


@pytest.mark.parametrize("name", ["tiny-moirai2"], indirect=True)
def test_searches_and_times(model: Forecaster) -> None:
    plan = tsprune.plan(model, SUITE, max_loss=0.5, kinds=("mlp",), histories=4, history=32)
    table = compare_latency(model, tsprune.prune(model, plan), batches=(2,), context=32, horizon=4, rounds=2)
    assert table["ms"].gt(0).all()


@pytest.mark.parametrize("name", ["tiny-chronos-bolt"], indirect=True)
def test_recovery(model: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 8)
    small = tsprune.prune(model, "decoder.0.mlp")
    options = {"steps": 1, "histories": 4, "history": 32, "state": tmp_path / "state"}
    recovered = tsprune.recover(small, model, suite=SUITE, **options)
    assert str(recovered.device) == DEVICE
    assert tsprune.recover(small, model, suite=SUITE, **options).origin == recovered.origin


@pytest.mark.usefixtures("tally")
def test_a_study(tmp_path: Path) -> None:
    TINY["tiny-moirai2"](tmp_path / "model")
    found = tsprune.study([str(tmp_path / "model")], SUITE, device=DEVICE, jobs=1, explain=False)
    assert not found.skipped


@pytest.mark.usefixtures("tally")
def test_the_device_that_is_named_is_used(tmp_path: Path) -> None:
    TINY["tiny-moirai2"](tmp_path / "model")
    model = load(tmp_path / "model", device=f"{NAME}:1")
    pruned = tsprune.prune(model, "stack.0.mlp")
    for one in (model, pruned):
        assert str(one.device) == f"{NAME}:1"
        one.forecast(SERIES, 5)
    assert device_of(NAME) == torch.device(DEVICE)
    with pytest.raises(TspruneError, match=f"no device '{NAME}:2' on this machine"):
        load(tmp_path / "model", device=f"{NAME}:2")


@pytest.mark.usefixtures("tally")
def test_a_store_tells_processors_apart(tmp_path: Path) -> None:
    """Equal ones share results, whichever index they have."""
    names = [processor(torch.device(name)) for name in ("cpu", DEVICE, f"{NAME}:1")]
    assert names == ["cpu", f"{NAME} Pretend P100", f"{NAME} Pretend P100"]
    with Store(tmp_path / "store") as store:
        for model in (moved("tiny-moirai2"), tiny("tiny-moirai2")):
            made = make_plan(model, SUITE, some(model), batch_size=4, store=store)
            stated = {json.loads(entry.key.protocol)["device"] for entry in made.entries.values()}
            assert stated == {processor(model.device)}


# --- memory ----------------------------------------------------------------------------------------


def evaluated(model: Forecaster) -> NDArray[np.float64]:
    return tsprune.evaluate(model, EIGHT)[["MASE", "CRPS"]].to_numpy()


def explained(model: Forecaster) -> NDArray[np.float64]:
    heads = attention(model, EIGHT, batch_size=32).heads
    return np.concatenate([heads["sharpness"], attribution(model, EIGHT, batch_size=32)["share"]])


def scored(model: Forecaster) -> NDArray[np.float64]:
    return score_table(model, EIGHT, by=["output_norm", "first_order"])["output_norm"].to_numpy()


def recovered(model: Forecaster) -> NDArray[np.float64]:
    small = tsprune.prune(model, "decoder.0.mlp")
    found = tsprune.recover(small, model, suite=EQUAL, steps=1, histories=64, history=48)
    return found.forecast(SERIES, 5).median.astype(np.float64)


def induced(model: Forecaster) -> NDArray[np.float64]:
    return induction(model, blocks=(3,), repeats=(3,), sequences=32)["followed"].to_numpy()


def priced(model: Forecaster) -> NDArray[np.float64]:
    """Of some first prices, and of some after a removal."""
    change, heads = OutputChange(model, 16, 48), model.anatomy.components("head")[::4]
    first = change.alone(heads, silent)
    later = [change.without(head, model.anatomy.select("decoder.0.mlp")) for head in heads]
    return np.array([*first.values(), *later])


WORKS = [evaluated, explained, scored, recovered, induced, priced]


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_batches_that_exceed_the_memory_are_halved(
    work: Callable[[Forecaster], NDArray[np.float64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 8)
    with accelerator() as tally:
        model = moved("tiny-chronos-bolt")
        tally.largest = 0
        whole = work(model)
    with accelerator(most=tally.largest - 1) as tally:
        halved = work(model)
    np.testing.assert_allclose(halved, whole, rtol=1e-3)
