"""Screening: exact where the model and its loss are linear, and near the truth where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from scipy.stats import spearmanr
from torch import Tensor, nn

import tsprune
from tests.suites import configuration, small_suite, tiny
from tests.tiny import pristine
from tsprune.anatomy import Anatomy, AttentionSite, Block, MLPSite, Projection, Stack
from tsprune.data import Suite, pocket
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation
from tsprune.models.contexts import checked_contexts
from tsprune.models.forecaster import Forecast, Forecaster
from tsprune.scores import screen
from tsprune.scores.screening import output_losses, quantile_density, quantile_losses
from tsprune.sweeps import run

WIDTH, HEADS, HEAD_DIM, LAYERS, CONTEXT = 5, 2, 3, 2, 6
STEP = 0.5  # between neighbouring quantiles


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class LinearAttention(nn.Module):
    """The values of every token, without attention: linear in its input."""

    def __init__(self) -> None:
        super().__init__()
        self.value = linear(WIDTH, HEADS * HEAD_DIM)
        self.out = linear(HEADS * HEAD_DIM, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.value(x))


class LinearLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = LinearAttention()
        self.mlp = linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class LinearNetwork(nn.Module):
    """The mean token, read as the place of nine quantiles that are STEP apart; no bias anywhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = linear(1, WIDTH)
        self.layers = nn.ModuleList([LinearLayer() for _ in range(LAYERS)])
        self.place = linear(WIDTH, 1)

    def forward(self, series: Tensor) -> Tensor:
        x = self.embed(series[..., None])
        for layer in self.layers:
            x = layer(x)
        return self.place(x.mean(1)) + STEP * torch.arange(-4.0, 5.0)


class LinearForecaster(Forecaster):
    name = family = "linear"
    context_length = CONTEXT
    readout_horizon = 4

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = LinearNetwork().eval()
        blocks = []
        for index in range(LAYERS):
            path = f"layers.{index}"
            values = [Projection(f"{path}.attention.value", HEADS, HEAD_DIM)] * 3
            site = AttentionSite(
                "self", f"{path}.attention", f"{path}.attention.out", HEADS, HEAD_DIM, *values
            )
            blocks.append(Block(path, (site,), MLPSite(f"{path}.mlp")))
        self.anatomy = Anatomy((Stack("stack", tuple(blocks)),), WIDTH)

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        series = torch.from_numpy(np.stack([x[-CONTEXT:] for x in checked_contexts(contexts, horizon)]))
        with torch.no_grad():
            quantiles = self.module(series)[..., None].expand(-1, -1, horizon).contiguous()
            return Forecast(quantiles.numpy())

    def teacher_forced(self, contexts: Sequence[ArrayLike]) -> Tensor:
        raise NotImplementedError

    def save(self, directory: Path) -> None:
        raise NotImplementedError


def linear_suite(target: float) -> Suite:
    """Two configurations whose targets are all `target`, one unknown."""
    configurations = [configuration(name, [9, 12, 8], horizon=3) for name in ("a/D/short", "b/D/short")]
    for c in configurations:
        c.targets[:] = target
        c.targets[1, 2] = np.nan
    return Suite("linear", tuple(configurations))


def test_exact_where_forecast_and_loss_are_linear() -> None:
    """A target above all quantiles, before and after, is where the quantile loss is linear."""
    model, suite = LinearForecaster(), linear_suite(100.0)
    estimated = screen(model, suite).set_index("address")["first_order"]
    components = model.anatomy.components()
    ablations = {c: Ablation(model.anatomy.expand([c])) for c in components}
    exact = run(model, suite, list(ablations.values()))
    for c in components:
        if c.kind == "layer":
            continue  # its sublayers follow each other: zeroing both is a product, not a sum
        truth = exact.change(ablations[c])["CRPS"]
        assert abs(truth) > 1e-5
        assert estimated[c.address] == pytest.approx(truth, rel=1e-3), c.address


def test_a_component_by_hand() -> None:
    """One head, one window: gradient x activation, and density x (Jacobian x activation) squared."""
    model = LinearForecaster()
    series = np.arange(1.0, CONTEXT + 1, dtype=np.float32)
    target = 50.0
    c = configuration("a/D/short", [CONTEXT], horizon=1)
    c.contexts[0], c.targets[:] = series, target
    frame = screen(model, Suite("one", (c,)), components="stack.1.self.head.1").iloc[0]

    weights = {name: tensor.detach().double().numpy() for name, tensor in model.module.named_parameters()}
    x = weights["embed.weight"][:, 0] * series.mean()  # everything is linear: the mean token is enough
    for index in range(LAYERS):
        heads = weights[f"layers.{index}.attention.value.weight"] @ x
        written = weights[f"layers.{index}.attention.out.weight"][:, HEAD_DIM:] @ heads[HEAD_DIM:]
        x = x + weights[f"layers.{index}.attention.out.weight"] @ heads
        after = weights[f"layers.{index}.mlp.weight"]
        moved = weights["place.weight"][0] @ (written + after @ written)
        x = x + after @ x
    quantiles = weights["place.weight"][0] @ x + STEP * np.arange(-4, 5)
    levels = np.arange(1, 10) / 10
    assert quantiles.max() < target
    loss = (2 * levels * (target - quantiles)).mean()
    assert frame["first_order"] == pytest.approx((2 * levels * moved).mean() / loss, rel=1e-4)
    signs = torch.randint(0, 2, (1, 9, 1), generator=torch.Generator().manual_seed(0)) * 2 - 1
    density = 0.1 / STEP
    by_hand = (signs.sum().item() * moved) ** 2 * density / 9 / loss
    assert frame["curvature"] == pytest.approx(by_hand, rel=1e-4)
    assert frame["crps_change"] == pytest.approx(frame["first_order"] + frame["curvature"])
    assert frame["score"] == abs(frame["crps_change"])


def test_density_is_the_step_of_the_level_over_that_of_the_value() -> None:
    nine = torch.tensor([0.0, 1, 2, 3, 5, 9, 9, 9, 10])[None, :, None]
    expected = [0.1 / 1, 0.2 / 2, 0.2 / 2, 0.2 / 3, 0.2 / 6, 0.2 / 4, None, 0.2 / 1, 0.1 / 1]
    found = quantile_density(nine)[0, :, 0].tolist()
    for value, truth in zip(found, expected, strict=True):
        assert value == pytest.approx(truth if truth is not None else 1 / (1e-3 * 48 / 9), rel=1e-5)


def test_the_curvature_is_the_second_derivative_of_the_expected_loss() -> None:
    """Targets drawn from the forecast itself: what small shifts of a normal's quantiles cost."""
    from scipy.stats import norm

    levels = np.arange(1, 10) / 10
    quantiles = torch.tensor(norm.ppf(levels))[None, :, None].requires_grad_()
    shift = 0.05
    draws = norm.ppf((np.arange(200_000) + 0.5) / 200_000)

    def expected_loss(q: np.ndarray) -> float:
        gap = draws[:, None] - q
        return float((2 * np.maximum(levels * gap, (levels - 1) * gap)).mean())

    centre = norm.ppf(levels)
    truth = expected_loss(centre + shift) - expected_loss(centre)
    estimates = []
    for seed in range(300):
        losses = quantile_losses(quantiles, torch.zeros(1, 1), torch.Generator().manual_seed(seed))
        (gradient,) = torch.autograd.grad(losses.probe.sum(), quantiles)
        estimates.append(float((shift * gradient.sum()) ** 2))
    assert np.mean(estimates) == pytest.approx(truth, rel=0.15)  # 300 draws: a deviation of 8 %


def test_windows_and_targets_that_do_not_count() -> None:
    nine = torch.arange(9.0)[None, :, None].repeat(3, 1, 2)
    nine[1, 4, 0] = torch.inf
    nine.requires_grad_()
    targets = torch.tensor([[20.0, torch.nan], [20.0, 20.0], [torch.nan, torch.nan]])
    losses = quantile_losses(nine, targets, torch.Generator().manual_seed(0))
    assert losses.loss is not None
    (gradient,) = torch.autograd.grad((losses.loss + losses.probe).sum(), nine)
    assert gradient.isfinite().all()
    assert gradient[0, :, 0].all()
    assert not gradient[0, :, 1].any()
    assert not gradient[1:].any()
    assert losses.clean == pytest.approx(float(losses.loss[0].detach()))


def test_the_output_of_sampling_models_is_scaled_by_its_deviation() -> None:
    output = torch.tensor([[1.0, 100, 7], [3, 300, 7]], requires_grad=True)
    losses = output_losses(output, torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(losses.probe.sum(), output)
    assert losses.loss is None
    expected = [1 / 3**0.5, 0.01 / 3**0.5, 0]
    np.testing.assert_allclose(gradient.abs(), [expected, expected], rtol=1e-6)


def test_the_exact_effects_are_found_on_a_trained_model() -> None:
    model = tsprune.load("bundled:chronos-bolt")
    suite = pocket().only(["el_nino/*", "mauna_loa_co2/M/*", "sunspots/*"])
    only = ["decoder.*.cross.head.*", "decoder.*.mlp"]
    with pristine(model):
        frame = screen(model, suite, components=only)
    ablations = {c: Ablation((c,)) for c in model.anatomy.select(only)}
    exact = run(model, suite, list(ablations.values()))
    effects = [exact.change(ablation)["CRPS"] for ablation in ablations.values()]
    assert frame["address"].tolist() == [c.address for c in ablations]
    assert spearmanr(frame["score"], np.abs(effects)).statistic > 0.85
    assert spearmanr(frame["crps_change"], effects).statistic > 0.85


def test_the_table() -> None:
    model, suite = tiny("tiny-chronos-bolt"), small_suite()
    seen: list[tuple[str, int, int]] = []
    frame = screen(model, suite, batch_size=2, progress=lambda *step: seen.append(step))
    assert frame["address"].tolist() == [c.address for c in model.anatomy.components()]
    assert frame["rank"].min() == 1
    assert frame.sort_values("rank")["score"].is_monotonic_increasing
    assert np.isfinite(frame["crps_change"]).all()
    assert (frame["curvature"] > 0).all()
    assert seen[-1] == ("screening", len(suite) - 1, len(suite))  # one window has no history
    np.testing.assert_array_equal(frame["score"], screen(model, suite, batch_size=2)["score"])
    other = screen(model, suite, batch_size=2, seed=1)
    np.testing.assert_array_equal(frame["first_order"], other["first_order"])
    assert (frame["curvature"] != other["curvature"]).all()


def test_the_whole_input_of_a_norm_has_no_score() -> None:
    """The norm undoes a change of its scale: a derivative is zero, and a computed one is rounding."""
    frame = screen(tiny("tiny-timesfm"), small_suite())
    heads = frame["kind"] == "head"
    columns = ["first_order", "curvature", "crps_change", "score"]
    assert np.isfinite(frame.loc[heads, columns]).all(axis=None)
    assert frame.loc[~heads, columns].isna().all(axis=None)
    assert (frame.loc[~heads, "rank"] > heads.sum()).all()


def test_the_batch_size_does_not_change_the_first_order() -> None:
    model, suite = tiny("tiny-chronos-bolt"), small_suite()
    one, many = (screen(model, suite, batch_size=size)["first_order"] for size in (1, 64))
    np.testing.assert_allclose(one, many, rtol=2e-3, atol=1e-6)


def test_nothing_to_screen() -> None:
    with pytest.raises(TspruneError, match="no windows"):
        screen(tiny("tiny-chronos-bolt"), Suite("empty", ()))
    with pytest.raises(TspruneError, match="matches no component"):
        screen(tiny("tiny-chronos-bolt"), small_suite(), components="decoder.9")
