"""Recovery: the best weights of an exactly repeatable training, which leaves what it is given alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.suites import configuration, tiny
from tests.tiny import TINY, few_samples, full_length, pristine, ragged
from tsprune import evaluate, prune, recover
from tsprune.data import Suite, from_arrays, pocket, split, training
from tsprune.data.split import calibration_mask
from tsprune.errors import TspruneError
from tsprune.evaluation import geometric_mean_ratios
from tsprune.models import Forecaster, load
from tsprune.models.forecaster import Recovery
from tsprune.pruning import recovery
from tsprune.pruning.recovery import Recipe

STEPS = 20  # with a check after each
GONE = ["stack.0.mlp", "stack.1.self.head.0"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 8)
    monkeypatch.setattr(recovery, "LEAST_APART", 1)


def suite() -> Suite:
    return Suite("few", (configuration("first/D/short", [60, 50, 64, 55], horizon=5),))


def recovered(
    small: Forecaster, teacher: Forecaster, windows: Suite | None = None, **options: Any
) -> Forecaster:
    chosen = {"steps": STEPS, "histories": 8, "learning_rate": 1e-3, "patience": 3, **options}
    return recover(small, teacher, suite=suite() if windows is None else windows, **chosen)


def pair() -> tuple[Forecaster, Forecaster]:
    teacher = tiny("tiny-timesfm")
    return prune(teacher, GONE), teacher


def account(model: Forecaster) -> Recovery:
    assert model.origin is not None
    assert model.origin.recovery is not None
    return model.origin.recovery


def assert_same_weights(one: Forecaster, other: Forecaster) -> None:
    state = other.module.state_dict()
    for name, tensor in one.module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_best_weights_are_kept_and_training_stops_early(tmp_path: Path) -> None:
    small, teacher = pair()
    with pristine(small), pristine(teacher):
        model = recovered(small, teacher, state=tmp_path / "state")
    found = account(model)
    scores = torch.load(tmp_path / "state", weights_only=True)["content"]["scores"]
    steps = [step for step, _ in scores]
    assert steps == list(range(found.steps + 1))
    assert found.score_after == min(score for _, score in scores) == dict(scores)[found.best_step]
    assert found.score_before == scores[0][1]
    assert 0 < found.best_step == found.steps - 3 < STEPS - 3  # three checks without improvement
    calibration, _ = split(suite())
    for forecaster, score in ((small, found.score_before), (model, found.score_after)):
        assert geometric_mean_ratios(evaluate(forecaster, calibration))["MASE"] == score
    assert not any(parameter.grad is not None for parameter in model.module.parameters())
    assert model.name.endswith("(pruned, recovered)")
    # finished: read, not trained again
    seen: list[int] = []
    again = recovered(
        small, teacher, state=tmp_path / "state", progress=lambda _, done, __: seen.append(done)
    )
    assert_same_weights(again, model)
    assert (account(again), seen) == (found, [])


def test_what_makes_it_worse_is_not_kept() -> None:
    small, teacher = pair()
    model = recovered(small, teacher, learning_rate=100.0, patience=2)
    assert account(model).best_step == 0
    assert account(model).steps == 2
    assert account(model).score_after == account(model).score_before
    assert_same_weights(model, small)


def test_only_calibration_series_are_looked_at() -> None:
    windows = suite()
    (c,) = windows.configurations
    targets = c.targets.copy()
    report = ~calibration_mask(c, 0.5, 0)
    targets[report] = np.random.default_rng(0).standard_normal(targets[report].shape) * 1e6
    spoiled = dataclasses.replace(windows, configurations=(dataclasses.replace(c, targets=targets),))
    small, teacher = pair()
    one, other = (recovered(small, teacher, each, steps=6) for each in (windows, spoiled))
    assert_same_weights(one, other)
    assert account(one) == account(other)


# --- interrupted ---------------------------------------------------------------------------------


def stop_at(step: int) -> Callable[[str, int, int], None]:
    def progress(stage: str, done: int, total: int) -> None:
        assert total == 8
        if done == step:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("often", [False, True])
def test_a_resumed_recovery_is_an_uninterrupted_one(
    often: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first state, at a check whose state is lost, between checks; saved at checks or always."""
    teacher = tiny("tiny-chronos-bolt")
    small = prune(teacher, ["encoder.0.mlp", "decoder.1.cross.head.0"])
    monkeypatch.setattr(recovery, "CHECKS", 4)
    monkeypatch.setattr(recovery, "SAVE_SECONDS", 0.0 if often else 1e9)
    how: dict[str, Any] = {"steps": 8, "patience": 99}
    whole = recovered(small, teacher, **how)
    how["state"] = tmp_path / "state"
    for step in (1, 2, 5):
        with pytest.raises(KeyboardInterrupt):
            recovered(small, teacher, **how, progress=stop_at(step))
    seen: list[int] = []
    parts = recovered(small, teacher, **how, progress=lambda _, done, __: seen.append(done))
    assert seen == list(range(5, 9))  # what was done by the last interruption, but for its last step
    assert_same_weights(parts, whole)
    assert account(parts) == account(whole)


RECOVER = """
import sys
from pathlib import Path
import torch
import tsprune
from tsprune.data import training
from tsprune.pruning import recovery
torch.set_num_threads(1)
training.SERIES_PER_SHARD = 8
recovery.SAVE_SECONDS = 0.0
model, state, out = sys.argv[1:]
teacher = tsprune.load(model, device="cpu")
small = tsprune.prune(teacher, "stack.0.mlp")
suite = tsprune.data.pocket().only(["us_employment/M/short"])
recovered = tsprune.recover(small, teacher, suite=suite, steps=16, histories=4, patience=99, state=state,
    progress=lambda stage, done, total: print(done, flush=True))
recovered.save(Path(out))
"""


def test_a_killed_process_goes_on_where_it_was(tmp_path: Path) -> None:
    TINY["tiny-timesfm"](tmp_path / "model")

    def start() -> subprocess.Popen[str]:
        arguments = [str(tmp_path / name) for name in ("model", "state", "out")]
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RECOVER, *arguments], stdout=subprocess.PIPE, text=True
        )

    killed = start()
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) == 7:
            break
    os.kill(killed.pid, signal.SIGKILL)
    killed.stdout.close()
    assert killed.wait() == -signal.SIGKILL
    again = start()
    steps = [int(line) for line in again.communicate()[0].split()]
    assert again.returncode == 0
    # at most the step that was not yet saved is done again
    assert steps[0] >= 7
    assert steps == list(range(steps[0], 17))

    teacher = load(str(tmp_path / "model"), device="cpu")
    windows = pocket().only(["us_employment/M/short"])
    small = prune(teacher, "stack.0.mlp")
    whole = recover(small, teacher, suite=windows, steps=16, histories=4, patience=99)
    whole.save(tmp_path / "whole")
    for name in ("model.safetensors", "tsprune.json", "README.md"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("out", "whole"))
        assert one == other, name


def test_the_state_of_another_recovery_is_refused(tmp_path: Path) -> None:
    small, teacher = pair()
    recovered(small, teacher, steps=1, state=tmp_path / "state")
    for others, options in (
        ("steps", {"steps": 2}),
        ("learning rate, seed, suite", {"steps": 1, "learning_rate": 1e-4, "seed": 1}),
    ):
        with pytest.raises(TspruneError, match="is the state of another recovery") as caught:
            recovered(small, teacher, state=tmp_path / "state", **options)
        assert all(other in str(caught.value) for other in others.split(", "))
    other = prune(teacher, "stack.1")
    with pytest.raises(TspruneError, match=r"\(other small model\)"):
        recovered(other, teacher, steps=1, state=tmp_path / "state")


# --- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-timesfm", "tiny-toto"])
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    teacher = few_samples(tiny(name))
    small = prune(teacher, [pattern.replace("self", "*") for pattern in GONE])
    model = recovered(small, teacher, learning_rate=3e-3, patience=99)
    assert account(model).best_step > 0
    model.save(tmp_path / "out")
    loaded = few_samples(load(str(tmp_path / "out"), device="cpu"))
    assert loaded.origin == model.origin
    contexts = ragged(model, 3)
    expected = model.forecast(contexts, 5).quantiles
    np.testing.assert_array_equal(loaded.forecast(contexts, 5).quantiles, expected)
    assert not np.array_equal(small.forecast(contexts, 5).quantiles, expected)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pruned and recovered" in card.splitlines()[0]
    assert "20 steps, 160 synthetic histories" in card
    # pruned again, it says so
    prune(loaded, "stack.2.mlp").save(tmp_path / "again")
    assert "The last 1 components went later." in (tmp_path / "again" / "README.md").read_text()


def test_other_precisions() -> None:
    teacher = tiny("tiny-chronos-bolt")
    small = prune(teacher, ["encoder.0.mlp", "decoder.1.cross.head.0"])
    small.to(torch.device("cpu"), torch.bfloat16)
    small.module.requires_grad_(False)
    model = recovered(small, teacher, steps=4, precision="bfloat16")
    assert {p.dtype for p in model.module.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.module.parameters())
    assert np.isfinite(model.forecast(full_length(model, 2), 5).median).all()


@pytest.mark.parametrize("native", [True, False])
def test_the_precision_is_the_processors(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, and the account tells which it was."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: native)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512" if native else "AVX2")
    small, teacher = pair()
    precision = "bfloat16" if native else "float32"
    model = recovered(small, teacher, steps=3)
    assert account(model).recipe["precision"] == precision
    assert_same_weights(model, recovered(small, teacher, steps=3, precision=precision))


def test_histories_of_multivariate_windows(tmp_path: Path) -> None:
    """Heads over series learn from contexts with several, and the state resumes as elsewhere."""
    teacher = tiny("tiny-chronos2")
    small = prune(teacher, GONE[:1])
    rng = np.random.default_rng(0)
    data = from_arrays(rng.standard_normal((4, 3, 60)).cumsum(-1), freq="h", horizon=5)
    how = {"steps": 4, "own_share": 1.0, "patience": 9}
    whole = recovered(small, teacher, data, **how)
    assert account(whole).recipe["own_share"] == 1.0
    again = recovered(small, teacher, data, **how, state=tmp_path / "state.pt")
    for one, other in zip(whole.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(one, other)
    synthetic = recovered(small, teacher, data, **(how | {"own_share": 0.0}))
    scores = [account(model).score_after for model in (whole, synthetic)]
    assert np.isfinite(scores).all()
    assert account(whole).score_before == account(synthetic).score_before


def test_minutes_end_training() -> None:
    small, teacher = pair()
    seen: list[tuple[int, int]] = []
    model = recovered(small, teacher, minutes=1e-6, progress=lambda stage, *x: seen.append(x))
    assert account(model).steps == 1
    assert seen == [(STEPS, STEPS)]


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    recipe = Recipe(steps=100, learning_rate=1.0, minutes=10)
    rates = [recipe.rate(step, 0.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(0.91)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[100] == 0
    assert recipe.rate(20, 540.0) == pytest.approx(0.1)  # nine of ten minutes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"histories": 1}, "histories must be at least 2, not 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ({"minutes": float("nan")}, "minutes must be a number above 0"),
        ({"metric": "RMSE"}, "unknown metric 'RMSE'; one of: MASE, CRPS"),
        ({"precision": "int8"}, "unknown precision 'int8'"),
        ({"history": 15}, "history must be at least 16, not 15"),
        ({"stream": -1.0}, "stream must be a number of at least 0, not -1.0"),
        ({"own_share": 1.5}, "the share of own histories must be a number"),
        ({"calibration": 1.0}, "between 0 and 1, exclusive"),
        ({"windows": Suite("empty", ())}, "has no windows"),
    ],
)
def test_recipes_that_cannot_be(change: dict[str, Any], message: str) -> None:
    small, teacher = pair()
    with pytest.raises(TspruneError, match=message) as caught:
        recovered(small, teacher, **change)
    assert "\n" not in str(caught.value)
