"""Work: counted by hand on small operations, the same every time, and what pruned models lack."""

from __future__ import annotations

import pytest
import torch

from tests.suites import tiny
from tsprune import prune
from tsprune.cost.flops import (
    BYTES_PER_SECOND,
    FLOPS_PER_SECOND,
    SCORE_PASSES,
    SECONDS_PER_CALL,
    Work,
    work,
)


def test_a_product_by_hand() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    found = work(lambda: a @ b)
    assert found == Work(flops=2 * 3 * 5 * 7, bytes=4 * (15 + 35 + 21), calls=1)
    expected = found.flops / FLOPS_PER_SECOND + found.bytes / BYTES_PER_SECOND + SECONDS_PER_CALL
    assert found.seconds == pytest.approx(expected)


def test_views_cost_nothing_and_copies_do() -> None:
    a = torch.ones(4, 6)
    assert work(lambda: a.T.reshape(3, 8).transpose(0, 1)) == Work(0, 2 * 4 * 24, 1)
    assert work(lambda: a.view(24)[3:]) == Work(0, 0, 0)


def test_attention_maps_are_counted() -> None:
    q, k = torch.ones(2, 3, 5, 8), torch.ones(2, 3, 7, 8)
    with torch.no_grad():
        attention = work(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k))
    scores = 2 * 3 * 5 * 7
    assert attention.flops == 2 * (2 * scores * 8)
    assert attention.bytes >= 4 * (SCORE_PASSES * scores + q.numel() + 2 * k.numel() + q.numel())


@pytest.mark.parametrize("name", ["tiny-chronos-bolt", "tiny-timesfm"])
def test_a_smaller_model_has_less_to_do_and_always_as_much(name: str) -> None:
    model = tiny(name)
    stack = model.anatomy.stacks[0].name
    series = [[float(x % 7) for x in range(64)]] * 4
    models = [model, prune(model, f"{stack}.1.self.head.0"), prune(model, f"{stack}.1")]
    counts = [[work(lambda m=m: m.forecast(series, 8)) for _ in range(2)] for m in models]  # type: ignore[misc]
    assert all(once == again for once, again in counts)
    whole, headless, shallow = (once for once, _ in counts)
    assert shallow.seconds < headless.seconds < whole.seconds
    assert headless.calls == whole.calls > shallow.calls
