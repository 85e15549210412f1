"""The recipe of Toto 2.0: hidden runs, pairs of variates, and a loss that sees no value before its time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.families.toto2 import Size, Toto2Objective, hidden_runs

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = Size(width=16, layers=2, heads=2, hidden=24, patch=8, context=64, future=16, series_length=240)


def windows(count: int = 6) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((count, SIZE.context + SIZE.future))
    return values.cumsum(1).astype(np.float32) / 8


def test_runs_are_hidden_at_the_end_and_elsewhere_but_never_at_the_beginning() -> None:
    hidden = hidden_runs(4_000, 9, 4, np.random.default_rng(0))
    assert not hidden[:, 0].any()
    last = hidden[:, -1].mean()
    assert 0.5 < last < 0.65  # half by the run at the end, a few by the other one
    assert (~hidden.any(1)).mean() == pytest.approx(0.25, abs=0.03)
    lengths = np.where(hidden.all(1), 9, hidden[:, ::-1].argmin(1))
    assert set(lengths) >= {0, 1, 2, 3, 4}
    assert np.mean(lengths == 1) > np.mean(lengths == 3)


def test_hidden_and_later_values_change_no_output() -> None:
    torch.manual_seed(0)
    model, x = Toto2Objective(SIZE).build(), torch.from_numpy(windows(1))[:, None, : -SIZE.patch]
    seen, series = torch.ones_like(x, dtype=torch.bool), torch.zeros(1, 1).long()
    visible = seen.clone()
    visible[..., 24:40] = False

    def output(changed: slice) -> Tensor:
        other = x.clone()
        other[..., changed] += 1
        with torch.no_grad():
            quantiles: Tensor = model(other, seen, visible, series).quantiles[..., 5, :]
        return quantiles

    before = output(slice(0, 0))
    for changed, same in ((slice(23, 24), False), (slice(24, 40), True), (slice(48, 72), True)):
        assert torch.equal(output(changed), before) is same
    assert not torch.equal(output(slice(47, 48)), before)


def test_the_quantile_loss_is_of_the_arcsinh_normalised_by_what_each_position_has_seen() -> None:
    """Worked for one window of one step: by hand from the network's own quantiles."""
    objective, x = Toto2Objective(SIZE), windows(1)
    torch.manual_seed(0)
    model = objective.build()
    step = next(s for s in range(99) if objective._visible(torch.zeros(1, 1, 80), _rng(s, skip=2)).all())
    found = objective.loss(model, x, step, 0.0).total
    series = torch.from_numpy(x)[:, None]
    seen = objective._seen(series, _rng(step))
    known = series[..., : -SIZE.patch] * seen
    quantiles = model(known, seen, torch.ones_like(seen), torch.zeros(1, 1).long()).quantiles[:, 0, 0]
    total, levels = torch.zeros(()), torch.arange(1, 10) / 10
    for position in range(9):
        past = series[0, 0, : 8 * position + 8][seen[0, 0, : 8 * position + 8]].double()
        future = series[0, 0, 8 * position + 8 :][:8]
        target = ((future - past.mean()) / past.std()).asinh()
        error = target - quantiles[:, position]
        pinball = torch.maximum(levels[:, None] * error, (levels[:, None] - 1) * error)
        total = total + 2 * pinball.mean() * (0.5 if position == 0 else 1)
    torch.testing.assert_close(found, (total / 8.5).float())


def _rng(step: int, skip: int = 0) -> np.random.Generator:
    """Draws of a step with one window, after those of its padding."""
    rng = np.random.default_rng([step, 17])
    for _ in range(skip // 2):
        rng.random(1)
        rng.integers(0, SIZE.patch, 1)
    return rng


def test_pairs_are_related_and_come_half_of_the_time() -> None:
    objective, x = Toto2Objective(SIZE), torch.from_numpy(windows(7))
    shapes = [tuple(objective._variates(x, np.random.default_rng(step)).shape) for step in range(200)]
    assert set(shapes) == {(7, 1, 80), (3, 2, 80)}
    assert 70 < sum(shape == (3, 2, 80) for shape in shapes) < 130
    step = shapes.index((3, 2, 80))
    pairs = objective._variates(x, np.random.default_rng(step))
    assert torch.equal(pairs[:, 0], x[:3])
    for second, first, other in zip(pairs[:, 1], x[:3], x[3:6], strict=True):
        both = torch.stack([first, other], 1)
        share = torch.linalg.lstsq(both, second[:, None]).solution.flatten()
        torch.testing.assert_close(both @ share, second, atol=1e-4, rtol=0)
        assert share.abs().sum() == pytest.approx(1, abs=1e-3)
