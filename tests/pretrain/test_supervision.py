"""Kinds of supervision: each means what its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pretrain.families import timesfm
from pretrain.families.supervision import (
    FREEDOM,
    Supervision,
    as_student_t,
    criterion,
    excess_parroting,
    layer_dropout,
    pinball,
)
from tsprune.explain import parroting
from tsprune.models import load

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = timesfm.Size(width=16, layers=2, heads=2, hidden=24, context=128, series_length=300)
T_QUANTILES = stats.t.ppf(np.arange(1, 10) / 10, FREEDOM)


def windows(count: int = 5) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((count, SIZE.context + timesfm.OUTPUT))
    return values.cumsum(1).astype(np.float32) / 8


def loss(supervision: Supervision, x: np.ndarray, step: int = 1) -> Tensor:
    objective = timesfm.TimesFMObjective(SIZE, supervision)
    torch.manual_seed(0)
    return objective.loss(objective.build(), x, step, 0.5).total


def test_the_best_constant_of_each_loss() -> None:
    """Quantiles are those of the targets for the quantile loss, all of them the mean for squared error."""
    target = torch.from_numpy(stats.t.rvs(FREEDOM, loc=2, scale=3, size=2_000, random_state=0)).float()
    found = {}
    for name in ("quantile", "squared-error", "student-t"):
        constant = torch.linspace(-3, 7, 9).requires_grad_()
        optimizer = torch.optim.Adam([constant], lr=0.1)
        for step in range(300):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - step / 300)
            optimizer.zero_grad()
            criterion(name)(constant, target).mean().backward()  # type: ignore[arg-type]
            optimizer.step()
        found[name] = constant.detach()
    levels = np.arange(1, 10) / 10
    np.testing.assert_allclose(found["quantile"], np.quantile(target.numpy(), levels), atol=0.1)
    np.testing.assert_allclose(found["squared-error"], target.mean().item(), atol=0.05)
    fitted = as_student_t(found["student-t"])
    np.testing.assert_allclose(fitted, 2 + 3 * T_QUANTILES, atol=0.3)


def test_the_likelihood_is_scipys() -> None:
    target = torch.linspace(-4, 6, 11)
    quantiles = torch.tensor(1.0 + 2.0 * T_QUANTILES).float()
    ours = criterion("student-t")(quantiles, target)
    theirs = -stats.t.logpdf(target.numpy(), FREEDOM, loc=1.0, scale=2.0)
    # up to a constant, and to the softness of the scale: 0.02^2 of it
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], atol=1e-3)


def test_a_student_t_is_kept_by_its_projection() -> None:
    outputs = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    once = as_student_t(outputs)
    torch.testing.assert_close(as_student_t(once), once)
    assert not torch.allclose(once, outputs)


def test_a_checkpoint_of_a_student_t_forecasts_one(tmp_path: Path) -> None:
    objective = timesfm.TimesFMObjective(SIZE, Supervision("student-t"))
    torch.manual_seed(0)
    objective.export(objective.build(), tmp_path)
    quantiles = load(str(tmp_path), device="cpu").forecast([windows(1)[0, : SIZE.context]], 20).quantiles[0]
    spread = quantiles - quantiles[4]
    wide = np.abs(spread[8]) > 1e-3
    assert wide.any()
    ratios = spread[:, wide] / spread[8, wide]
    expected = T_QUANTILES / T_QUANTILES[8]
    # where the scale of an untrained model is negative, upstream's repair of crossing makes it zero
    np.testing.assert_allclose(ratios, np.repeat(expected[:, None], wide.sum(), 1), atol=1e-2)


def test_the_last_patch_alone_is_supervised() -> None:
    """What follows earlier patches, but neither the last one nor its history, changes nothing."""
    x = windows()
    other = x.copy()
    other[:, -timesfm.OUTPUT :] += 1
    last = Supervision(positions="last")
    assert not torch.equal(loss(last, x), loss(last, other))
    weights = last.position_weights(4)
    assert weights.tolist() == [0, 0, 0, 4]
    assert Supervision().position_weights(4).tolist() == [0.5, 1, 1, 1]


def test_shuffled_targets_are_those_of_another_window() -> None:
    x = windows()
    alike = np.repeat(x[:1], 4, 0)
    plain, shuffled = Supervision(), Supervision(shuffled=True)
    assert not torch.equal(loss(plain, x), loss(shuffled, x))
    # steps are masked window by window, so windows of equal values may still be normalised unlike
    step = next(s for s in range(50) if not _padded(s, 4))
    torch.testing.assert_close(loss(plain, alike, step), loss(shuffled, alike, step))


def _padded(step: int, count: int) -> bool:
    return bool(timesfm.TimesFMObjective(SIZE)._padding(count, step).any())


def test_excess_parroting_is_that_of_the_explanation() -> None:
    rng = np.random.default_rng(1)
    history = rng.standard_normal((4, 60)).cumsum(1)
    target, forecast = rng.standard_normal((2, 4, 12)).cumsum(2)
    forecast[0] = history[0, 20:32]  # a copy
    target[1] = history[1, 5:17]
    found = excess_parroting(*(torch.from_numpy(x) for x in (forecast, target, history)))
    expected = [
        max(0, parroting(f, h) - parroting(t, h)) for f, t, h in zip(forecast, target, history, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] > 0.1
    assert found[1] == 0


def test_the_penalty_is_added() -> None:
    x = windows()
    plain = loss(Supervision(), x)
    once, twice = (loss(Supervision(parroting_penalty=weight), x) for weight in (1.0, 2.0))
    assert once > plain
    torch.testing.assert_close(twice - plain, 2 * (once - plain))


def test_skipped_blocks_return_what_they_are_given() -> None:
    blocks = [torch.nn.Linear(3, 3) for _ in range(4)]
    x = torch.randn(400, 3)

    def run(share: float, step: int = 0) -> Tensor:
        with layer_dropout(blocks, share, step):
            return torch.nn.Sequential(*blocks)(x)

    whole = torch.nn.Sequential(*blocks)(x)
    assert torch.equal(run(1.0), x)
    assert torch.equal(run(0.0), whole)
    assert torch.equal(run(0.2), run(0.2))
    assert not torch.equal(run(0.2), run(0.2, step=1))
    kept = (run(0.2) == whole).all(1).float().mean()
    assert abs(kept - 0.8**4) < 0.1  # binomial, deviation 0.025
    assert torch.equal(torch.nn.Sequential(*blocks)(x), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [(0, 1, 2, 3), (0, 1, 3, 2), (2, 0, 1, 3), (3, 2, 1, 0)])
def test_the_gradient_of_the_quantile_loss_is_that_of_its_formula(
    layout: tuple[int, ...], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (3, 4, 5, 9)
    stored = torch.randn([shape[axis] for axis in layout], generator=generator, dtype=dtype)
    stored.requires_grad_()
    quantiles = stored.permute([layout.index(axis) for axis in range(4)])
    target, weights = (torch.randn(shape[:3], generator=generator) for _ in range(2))
    error = target[..., None] - quantiles
    levels = torch.arange(1, 10) / 10
    expected = 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)
    found = pinball(quantiles, target)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad((one * weights).sum(), stored)[0] for one in (found, expected)]
    assert torch.equal(*gradients)
    assert gradients[0].dtype == dtype


def test_the_quantile_loss_has_a_slope_of_one_side_at_zero() -> None:
    quantiles = torch.zeros(9, requires_grad=True)
    pinball(quantiles, torch.tensor(0.0)).backward()
    assert torch.allclose(quantiles.grad, 2 / 9 * (1 - torch.arange(1, 10) / 10))  # type: ignore[arg-type]
