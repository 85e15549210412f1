"""Training: interrupted and resumed is bit for bit the same as not interrupted."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pretrain import loop
from pretrain.families import chronos2, chronos_bolt, chronos_t5, moirai, moirai2, timesfm, toto, toto2
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


def unit_scaled() -> Objective:
    size = toto2.Size(
        width=16, layers=2, heads=2, hidden=24, patch=8, context=64, future=16, series_length=240
    )
    return toto2.Toto2Objective(size)


def quantiles() -> Objective:
    size = moirai2.Size(
        width=64, layers=1, heads=1, hidden=24, patch=8, predicted=2, context=64, series_length=240
    )
    return moirai2.BundledObjective(size)


OBJECTIVES = {
    "chronos-bolt": bolt,
    "timesfm": times,
    "chronos-t5": tokens,
    "toto": patches,
    "moirai": masked,
    "chronos2": encoder,
    "toto2": unit_scaled,
    "moirai2": quantiles,
}
CONTEXTS = {"chronos-bolt": 48, "chronos-t5": 48, "chronos2": 48}  # 64 for all others
PREFIXES = {"chronos-bolt": "bolt.", "toto": "model."}  # of the trained module's tensors


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SERIES_PER_SHARD", 6)
        patch.setattr(training, "WINDOWS_PER_SERIES", 2)
        patch.setattr(loop, "SAVE_EVERY", 2)
        patch.setattr(loop, "LOG_EVERY", 1)
        yield


@pytest.fixture(scope="module", params=OBJECTIVES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def whole(family: str, _small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted; tests only read it."""
    folder = tmp_path_factory.mktemp(f"whole-{family}")
    run(family, folder)
    return folder


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


def checkpoint(directory: Path) -> tuple[dict[str, str] | None, dict[str, bytes]]:
    """What a run exported: metadata, whose order in the file is random, and the tensors' bytes."""
    file = directory / "checkpoint" / "model.safetensors"
    with safe_open(file, framework="np") as header:
        names = sorted(header.keys())
        return header.metadata(), {name: header.get_tensor(name).tobytes() for name in names}


def run(family: str, directory: Path, *, seed: int = 3) -> None:
    train(OBJECTIVES[family](), SCHEDULE, directory, seed=seed, say=lambda line: None)


# before the first save; at a save that is lost; with a step lost; after the decay began
@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (6,), (3, 5)])
def test_a_resumed_run_is_an_uninterrupted_one(
    family: str, whole: Path, stops: tuple[int, ...], tmp_path: Path
) -> None:
    for stop in stops:
        with pytest.raises(InterruptionError):
            train(OBJECTIVES[family](), SCHEDULE, tmp_path / "parts", seed=3, say=interrupt_at(stop))  # type: ignore[arg-type]
        assert not (tmp_path / "parts" / "checkpoint").exists()
    run(family, tmp_path / "parts")

    expected, found = weights(whole), weights(tmp_path / "parts")
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
    assert checkpoint(whole) == checkpoint(tmp_path / "parts")


def test_a_run_that_begins_from_another_begins_with_its_weights(
    family: str, whole: Path, tmp_path: Path
) -> None:
    first = whole / "state.pt"
    still = dataclasses.replace(SCHEDULE, learning_rate=0.0)
    train(OBJECTIVES[family](), still, tmp_path / "then", seed=4, start=first, say=lambda line: None)
    before, after = weights(whole), weights(tmp_path / "then")
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-5, atol=1e-6)


def test_training_changes_every_weight_and_depends_on_the_seed(
    family: str, whole: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    untrained = dict(OBJECTIVES[family]().build().named_parameters())
    run(family, tmp_path, seed=4)
    trained, other = weights(whole), weights(tmp_path)
    for name, tensor in untrained.items():
        assert torch.isfinite(trained[name]).all()
        assert not torch.equal(tensor, trained[name]), name
    assert any(not torch.equal(trained[name], other[name]) for name in trained)


def test_the_checkpoint_is_in_the_upstream_format(family: str, whole: Path) -> None:
    model = load(str(whole / "checkpoint"), device="cpu")
    assert model.family == family
    assert model.context_length == CONTEXTS.get(family, 64)
    trained = weights(whole)
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, trained[PREFIXES.get(family, "") + name])
    assert np.isfinite(model.forecast([np.arange(30.0)], 12).quantiles).all()


def test_a_finished_run_is_not_trained_again(family: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    run(family, tmp_path)
    before = weights(whole)
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


def test_rates_of_unit_scaled_layers_undo_their_division_and_weights_decay_as_elsewhere() -> None:
    objective = unit_scaled()
    model = objective.build()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["factor"], group["factor"] * group["weight_decay"])
        for optimizer in loop.optimizers(model, SCHEDULE, "float32", objective.rates(model))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    head, layer = "output_head.param_projection.proj", "transformer.layers.0"
    expected = {
        f"{layer}.attn.in_proj.weight": 4,
        f"{layer}.attn.in_proj.bias": 4,
        f"{head}.linear2.weight": 64,
    }
    expected |= {f"{layer}.ffn.fc2.weight": 24**0.5, f"{layer}.attn._pds.per_dim_scale": 1}
    assert {name: found[name][0] for name in expected} == pytest.approx(expected)
    assert [decay for _, decay in found.values()] == pytest.approx([0.01] * len(found))


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
    optims = loop.optimizers(model, Schedule(60, 8, 1e-2), "float32", objective.rates(model))
    first = None
    for _ in range(60):
        value = objective.loss(model, batch, 0, 0.5)
        for optimizer in optims:
            optimizer.zero_grad()
        value.total.backward()
        for optimizer in optims:
            optimizer.step()
        first = first or value.forecast.item()
        if value.forecast.item() < 0.5 * first:
            return
    pytest.fail("the loss did not fall to half")
