"""Draws follow the distributions they claim, are a window's own, and leave torch's state alone."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from tests.tiny import write_t5
from tsprune.errors import TspruneError
from tsprune.models import draws, load

COUNT = 20_000


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return draws.Noise([np.arange(3, dtype=np.float32)], seed).uniform(*shape)[0]


def test_student_t() -> None:
    for freedom in (2.1, 5.0, 300.0):
        df = torch.full((COUNT,), freedom)
        polar = draws.polar(*uniform(2, COUNT))
        drawn = draws.student_t(df, torch.tensor(1.0), torch.tensor(2.0), *polar)
        assert stats.kstest(drawn.double().numpy(), stats.t(freedom, 1, 2).cdf).pvalue > 0.01


def test_normal() -> None:
    drawn = draws.normal(torch.tensor(3.0), torch.tensor(0.5), uniform(COUNT))
    assert stats.kstest(drawn.double().numpy(), stats.norm(3, 0.5).cdf).pvalue > 0.01


@pytest.mark.parametrize(("count", "logit"), [(0.3, -1.0), (1.0, 0.5), (7.5, 2.0)])
def test_negative_binomial(count: float, logit: float) -> None:
    """By upstream's own parametrisation: mean count * exp(logit), counts from zero up."""
    counts, logits = torch.full((COUNT,), count), torch.full((COUNT,), logit)
    drawn = draws.negative_binomial(counts, logits, *uniform(2, COUNT)).numpy().astype(int)
    expected = stats.nbinom(count, 1 / (1 + np.exp(logit)))
    most = int(expected.ppf(0.99))
    observed = np.bincount(drawn, minlength=most + 1)[: most + 1] / COUNT
    np.testing.assert_allclose(observed, expected.pmf(np.arange(most + 1)), atol=0.015)


def test_categorical() -> None:
    weights = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    drawn = draws.categorical(weights, uniform(COUNT))
    shares = torch.bincount(drawn, minlength=6) / COUNT
    torch.testing.assert_close(shares, weights, atol=0.015, rtol=0)
    assert shares[[0, 2, 5]].sum() == 0
    ends = draws.categorical(weights, torch.tensor([1e-12, 1 - 1e-12]))
    assert ends.tolist() == [1, 4]


def test_a_window_has_its_own_numbers_in_any_company() -> None:
    windows = [np.full(n, n, dtype=np.float32) for n in (3, 4, 5)]
    together, alone = draws.Noise(windows, 7), draws.Noise(windows[1:2], 7)
    for shape in ((2, 3), (4,)):
        numbers = together.uniform(*shape)
        torch.testing.assert_close(numbers[1], alone.uniform(*shape)[0], rtol=0, atol=0)
        assert len(numbers.unique()) == numbers.numel()
    other = draws.Noise(windows[1:2], 8).uniform(2, 3)
    assert not torch.equal(other, draws.Noise(windows[1:2], 7).uniform(2, 3))


@pytest.mark.parametrize("kept", [0, 2**24])
def test_a_stream_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Whether or not its first numbers are kept from an earlier forecast."""
    monkeypatch.setattr(draws, "_KEPT_BYTES", kept)
    window = np.arange(5, dtype=np.float32)
    whole = np.random.default_rng([3, zlib.crc32(window.tobytes())]).random(15)
    for _forecast in range(2):
        noise = draws.Noise([window], 3)
        pieces = [noise.uniform(*shape).flatten() for shape in ((2, 3), (4,), (5, 1))]
        np.testing.assert_array_equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("kept", [0, 2**24])
def test_what_is_made_of_the_numbers_is_made_of_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Whatever else was made of them before, and of those that come after as well."""
    monkeypatch.setattr(draws, "_KEPT_BYTES", kept)
    window = np.arange(5, dtype=np.float32)
    for change in (torch.negative, torch.square):
        plain, changed = draws.Noise([window], 3), draws.Noise([window], 3)
        for shape in ((2, 3), (4,)):
            expected = change(plain.uniform(*shape))
            torch.testing.assert_close(changed.changed(change, *shape), expected, rtol=0, atol=0)


def test_multinomial_is_drawn_from_the_noise() -> None:
    probabilities = torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.7, 0.3], [0.2, 0.8]])
    windows = [np.arange(n, dtype=np.float32) for n in (3, 4)]
    state = torch.get_rng_state()
    with draws.CategoricalDraws(draws.Noise(windows, 0), samples=2):
        drawn = torch.multinomial(probabilities, num_samples=1)
        assert torch.equal(torch.zeros(2) + 1, torch.ones(2))  # nothing else is touched
    assert torch.equal(torch.get_rng_state(), state)
    numbers = draws.Noise(windows, 0).uniform(2).flatten()
    assert torch.equal(drawn, draws.categorical(probabilities, numbers[:, None]))


@pytest.mark.parametrize(("tokens", "count"), [(1, 1), (9, 9), (9, 1), (1024, 50), (4096, 200)])
def test_the_least_of_the_most_likely_tokens(tokens: int, count: int) -> None:
    """As torch.topk finds it, also among equal and infinite scores."""
    scores = torch.from_numpy(np.random.default_rng(tokens + count).normal(size=(7, tokens)))
    scores = (scores.float() * 3).round(decimals=1)
    scores[2] = 1.5
    scores[3, : tokens // 2] = -torch.inf
    expected = torch.topk(scores, count)[0][..., -1, None]
    assert torch.equal(draws.least_of_largest(scores, count), expected)
    with draws.TokenDraws(draws.Noise([np.zeros(3, dtype=np.float32)], 0), samples=7):
        assert torch.equal(torch.topk(scores, count)[0][..., -1, None], expected)


def test_an_upstream_that_draws_in_another_way_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its paths would not be paired: as if a later release called something else than torch.multinomial."""
    write_t5(tmp_path)
    model = load(tmp_path, device="cpu")
    monkeypatch.setattr(
        torch, "multinomial", lambda p, num_samples: p.argmax(-1, keepdim=True)
    )  # another function than the one that is intercepted
    with pytest.raises(TspruneError, match="draws random numbers in another way"):
        model.forecast([np.arange(20.0)], 3)
