"""Training: interrupted and resumed is bit for bit the same as not interrupted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain import loop
from pretrain.families import chronos2, chronos_bolt, chronos_t5, moirai, timesfm, toto
from pretrain.loop import Objective, Schedule, train
from tsprune.data import training
from tsprune.errors import TspruneError
from tsprune.models import load

SCHEDULE = Schedule(steps=7, batch_size=4, learning_rate=2e-3, warmup=3)


def bolt() -> Objective:
    size = chronos_bolt.Size(
        width=16,
        layers=1,
        heads=2,
        hidden=24,
        patch=4,
        horizon=8,
        contexts=(16, 24, 32, 48),
        series_length=80,
    )
    return chronos_bolt.ChronosBoltObjective(size)


def times() -> Objective:
    return timesfm.TimesFMObjective(
        timesfm.Size(width=16, layers=1, heads=2, hidden=24, context=64, series_length=240)
    )


def tokens() -> Objective:
    size = chronos_t5.Size(
        width=16,
        layers=1,
        heads=2,
        hidden=24,
        tokens=64,
        context=48,
        horizon=8,
        series_length=80,
    )
    return chronos_t5.ChronosT5Objective(size)


def patches() -> Objective:
    size = toto.Size(
        width=16, layers=2, heads=2, hidden=24, patch=8, components=2, context=64, series_length=240
    )
    return toto.TotoObjective(size)


def encoder() -> Objective:
    size = chronos2.Size(
        width=16,
        layers=1,
        heads=2,
        hidden=24,
        patch=4,
        horizon=8,
        contexts=(16, 24, 32, 48),
        series_length=80,
    )
    return chronos2.Chronos2Objective(size)


def masked() -> Objective:
    return moirai.MoiraiObjective(
        moirai.Size(width=64, layers=1, patch=8, context=64, future=16, series_length=240)
    )


OBJECTIVES = {
    "chronos-bolt": bolt,
    "timesfm": times,
    "chronos-t5": tokens,
    "toto": patches,
    "moirai": masked,
    "chronos2": encoder,
}
CONTEXTS = {"chronos-bolt": 48, "timesfm": 64, "chronos-t5": 48, "toto": 64, "moirai": 64, "chronos2": 48}
PREFIXES = {"chronos-bolt": "bolt.", "toto": "model."}  # of the trained module's tensors


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 6)
    monkeypatch.setattr(training, "WINDOWS_PER_SERIES", 2)
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)


@pytest.fixture(params=OBJECTIVES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class InterruptionError(Exception):
    pass


def interrupt_at(step: int) -> object:
    def say(line: str) -> None:
        if line.startswith(f"{step}/"):
            raise InterruptionError

    return say


def weights(directory: Path) -> dict[str, torch.Tensor]:
    state = torch.load(directory / "state.pt", weights_only=True)
    assert state["step"] == SCHEDULE.steps
    return dict(state["model"])


def run(family: str, directory: Path, *, seed: int = 3) -> None:
    train(OBJECTIVES[family](), SCHEDULE, directory, seed=seed, say=lambda line: None)


# before the first save; at a save that is lost; with a step lost; after the decay began
@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (6,), (3, 5)])
def test_a_resumed_run_is_an_uninterrupted_one(family: str, stops: tuple[int, ...], tmp_path: Path) -> None:
    run(family, tmp_path / "whole")
    for stop in stops:
        with pytest.raises(InterruptionError):
            train(OBJECTIVES[family](), SCHEDULE, tmp_path / "parts", seed=3, say=interrupt_at(stop))  # type: ignore[arg-type]
        assert not (tmp_path / "parts" / "checkpoint").exists()
    run(family, tmp_path / "parts")

    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name
    exported = [
        (tmp_path / run / "checkpoint" / "model.safetensors").read_bytes() for run in ("whole", "parts")
    ]
    assert exported[0] == exported[1]


def test_a_run_that_begins_from_another_begins_with_its_weights(family: str, tmp_path: Path) -> None:
    run(family, tmp_path / "first")
    first = tmp_path / "first" / "state.pt"
    still = dataclasses.replace(SCHEDULE, learning_rate=0.0)
    train(OBJECTIVES[family](), still, tmp_path / "then", seed=4, start=first, say=lambda line: None)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "then")
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-5, atol=1e-6)


def test_training_changes_every_weight_and_depends_on_the_seed(family: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    untrained = OBJECTIVES[family]().build().state_dict()
    run(family, tmp_path / "a")
    run(family, tmp_path / "b", seed=4)
    trained, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    for name, tensor in trained.items():
        assert torch.isfinite(tensor).all()
        assert not torch.equal(tensor, untrained[name]), name
    assert any(not torch.equal(trained[name], other[name]) for name in trained)


def test_the_checkpoint_is_in_the_upstream_format(family: str, tmp_path: Path) -> None:
    run(family, tmp_path)
    model = load(str(tmp_path / "checkpoint"), device="cpu")
    assert model.family == family
    assert model.context_length == CONTEXTS[family]
    trained = weights(tmp_path)
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, trained[PREFIXES.get(family, "") + name])
    assert np.isfinite(model.forecast([np.arange(30.0)], 12).quantiles).all()


def test_a_finished_run_is_not_trained_again(family: str, tmp_path: Path) -> None:
    run(family, tmp_path)
    before = weights(tmp_path)
    run(family, tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path).items())


def test_a_state_is_gone_on_with_in_its_own_precision(tmp_path: Path) -> None:
    with pytest.raises(InterruptionError):
        train(times(), SCHEDULE, tmp_path, seed=3, precision="float32", say=interrupt_at(3))  # type: ignore[arg-type]
    with pytest.raises(TspruneError, match="was trained in float32, not bfloat16"):
        train(times(), SCHEDULE, tmp_path, seed=3, precision="bfloat16", say=lambda line: None)
    run("timesfm", tmp_path)
    train(times(), SCHEDULE, tmp_path / "whole", seed=3, precision="float32", say=lambda line: None)
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights(tmp_path).items())


def test_a_state_is_saved_in_time(tmp_path: Path) -> None:
    with pytest.raises(InterruptionError):
        train(times(), SCHEDULE, tmp_path, seed=3, save_seconds=0, say=interrupt_at(2))  # type: ignore[arg-type]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 1  # the step before, since every step is saved after it is said
    assert state["seconds"] > 0


def test_a_run_can_be_extended_from_before_its_decay(tmp_path: Path) -> None:
    run("timesfm", tmp_path / "short")
    state = torch.load(tmp_path / "short" / "before_decay.pt", weights_only=True)
    assert state["step"] == SCHEDULE.decay_start == 5
    longer = Schedule(steps=12, batch_size=4, learning_rate=2e-3, warmup=3)
    (tmp_path / "long").mkdir()
    (tmp_path / "short" / "before_decay.pt").rename(tmp_path / "long" / "state.pt")
    train(times(), longer, tmp_path / "long", seed=3, say=lambda line: None)
    train(times(), longer, tmp_path / "at once", seed=3, say=lambda line: None)
    one, other = (
        torch.load(tmp_path / name / "state.pt", weights_only=True)["model"] for name in ("long", "at once")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    schedule = Schedule(steps=100, batch_size=1, learning_rate=1.0, warmup=10, decay=0.2)
    factors = [schedule.factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:81] == [1.0] * 72
    assert factors[90] == pytest.approx(0.5)
    assert factors[100] == 0
    assert factors[80:] == sorted(factors[80:], reverse=True)


def test_every_parameter_has_one_optimiser_and_norms_are_not_muons(family: str) -> None:
    model = OBJECTIVES[family]().build()
    muon, adamw = loop.optimizers(model, SCHEDULE, "float32")
    by_muon, by_adamw = (
        {id(p) for group in optimizer.param_groups for p in group["params"]} for optimizer in (muon, adamw)
    )
    assert not by_muon & by_adamw
    assert by_muon | by_adamw == {id(p) for p in model.parameters()}
    for name, parameter in model.named_parameters():
        hidden = any(part in name for part in ("q.weight", "qkv_proj", ".wi.", ".wo.", "ff0", "ff1"))
        if hidden:
            assert id(parameter) in by_muon, name
        if parameter.ndim == 1 or "embedding" in name or "tokenizer" in name or "attention_bias" in name:
            assert id(parameter) in by_adamw, name


def test_losses_are_logged_step_by_step(tmp_path: Path) -> None:
    run("timesfm", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 8))
    assert all(np.isfinite(line["loss"]) for line in lines)


@pytest.mark.parametrize("family", OBJECTIVES)
def test_training_learns(family: str) -> None:
    """On one batch over and over, the loss must fall well below where it began."""
    objective = OBJECTIVES[family]()
    torch.manual_seed(0)
    model = objective.build()
    time = np.arange(objective.window_length)
    phase = np.linspace(0, 6, 8)[:, None]
    batch = (np.sqrt(2) * np.sin(2 * np.pi * time / 8 + phase)).astype(np.float32)
    optims = loop.optimizers(model, Schedule(60, 8, 1e-2), "float32")
    losses = []
    for _ in range(60):
        value = objective.loss(model, batch, 0, 0.5)
        for optimizer in optims:
            optimizer.zero_grad()
        value.total.backward()
        for optimizer in optims:
            optimizer.step()
        losses.append(value.forecast.item())
    assert losses[-1] < 0.5 * losses[0]
