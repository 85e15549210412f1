"""The residual stream and its lens: laws that tie them to the model, and worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import tsprune
from tests.planted import AVERAGE, BIAS, COPY, LAG, Planted
from tests.suites import configuration, tiny, waves
from tests.tiny import TINY, full_length, pristine
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.explain import lens, lens_guard, residual
from tsprune.explain.attribution.residual_stream import GUARDED, guard_contexts, linear_cka, token_measures
from tsprune.hooks.mixing import mixes
from tsprune.hooks.stream import streams

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128, 75], 12),))


@pytest.mark.parametrize("name", TINY)
def test_a_block_goes_on_where_the_one_before_stopped(name: str) -> None:
    """The stream between blocks is embedding plus what the ablated sublayers no longer add: with a block
    switched off, it returns what it was given, times its factors if it has some."""
    model = tiny(name)
    contexts = full_length(model, 2)
    for stack in model.anatomy.stacks:
        last = f"{stack.name}.{len(stack.blocks) - 1}"
        with torch.no_grad(), tsprune.ablate(model, last), streams(model, stack) as recorded:
            model.teacher_forced(contexts)
        assert len(recorded) == len(stack.blocks) + 1
        factors = [mix.kept for c, mix in mixes(model, stack).items() if c.layer == stack.numbers[-1]]
        for before, after in zip(recorded[-2], recorded[-1], strict=True):
            torch.testing.assert_close(after, math.prod(factors, start=before), atol=0, rtol=0)
        assert not torch.equal(recorded[0][0], recorded[1][0])


@pytest.mark.parametrize("name", TINY)
def test_the_lens_guard(name: str) -> None:
    model = tiny(name)
    with pristine(model):
        found = lens_guard(model, full_length(model, 3))
    assert (found["itself"] == 0).all()
    assert (found["other"] > 1e-4).all()
    assert len(found) == len(model.anatomy.stacks[-1].blocks)


@pytest.mark.parametrize("name", ["tiny-chronos-bolt", "tiny-timesfm", "tiny-chronos2", "tiny-moirai2"])
def test_the_last_layers_lens_is_the_forecast(name: str) -> None:
    found = lens(tiny(name), SUITE, horizon=4)
    assert found["layer"].tolist() == list(range(-1, len(found) - 1))
    assert found["distance"].iloc[-1] == 0
    assert found["distance"].iloc[:-1].max() > 0
    assert (found["spread_low"] <= found["spread_high"]).all()


def test_the_lens_of_a_token_model() -> None:
    model = tiny("tiny-chronos-t5")
    found = lens(model, SUITE)
    assert found["vocabulary"].between(1, model.module.config.vocab_size).all()
    assert (found["peaks"] >= 1).all()
    contexts = [c[-model.context_length :] for c in SUITE.configurations[0].contexts]
    with torch.no_grad():
        expected = token_measures(model.teacher_forced(contexts))
    assert found["entropy"].iloc[-1] == pytest.approx(expected["entropy"].mean(), rel=1e-4)


def test_the_guard_exchanges_windows_of_one_length() -> None:
    model = tiny("tiny-timesfm")
    lengths = [60, 128, 60, 40, 128, 128, 60]
    found = guard_contexts(model, Suite("s", (configuration("a/D/short", lengths, 4),)))
    assert 2 <= len(found) <= GUARDED
    assert len({len(context) for context in found}) == 1
    with pytest.raises(TspruneError, match="same length"):
        guard_contexts(model, Suite("s", (configuration("a/D/short", [60, 50], 4),)))


def test_token_measures_by_hand() -> None:
    """Probabilities 1/2, 0, 1/4, 1/4: two peaks; a plateau is one. Even: the whole vocabulary."""
    logits = torch.tensor([[[0.5, 1e-9, 0.25, 0.25]], [[1.0, 1, 1, 1]]]).log()
    found = token_measures(logits)
    np.testing.assert_allclose(found["entropy"], [1.5 * np.log(2), np.log(4)], atol=1e-6)
    np.testing.assert_allclose(found["vocabulary"], [2**1.5, 4], atol=1e-5)
    assert found["peaks"].tolist() == [2, 1]


def test_planted_stream_by_hand() -> None:
    """The block adds the forecast to a stream that holds a one-hot position (and no value)."""
    found = residual(Planted(), waves(LAG)).layers
    assert found["norm"][0] == pytest.approx(1)
    values = []
    for context in waves(LAG).configurations[0].contexts:
        forecast = COPY * context[-LAG] + AVERAGE * context.sum() / 49 + BIAS
        values.append(np.hypot(1, forecast))
    assert found["norm"][1] == pytest.approx(np.mean(values), rel=1e-4)


def test_cka_of_itself_of_a_rotation_and_of_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 6))
    rotated = 3 * x @ np.linalg.qr(rng.standard_normal((6, 6)))[0] + 5
    other = rng.standard_normal((400, 6))
    assert linear_cka(x @ x.T, rotated @ rotated.T) == pytest.approx(1)
    assert linear_cka(x @ x.T, other @ other.T) < 0.05
    a, b = x - x.mean(0), x[:, :3] - x[:, :3].mean(0)
    expected = np.linalg.norm(b.T @ a) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    assert linear_cka(x @ x.T, x[:, :3] @ x[:, :3].T) == pytest.approx(expected)


def test_tables_of_an_encoder_decoder_model() -> None:
    found = residual(tiny("tiny-chronos-bolt"), SUITE)
    assert found.layers.groupby("stack", sort=False).size().to_dict() == {"encoder": 3, "decoder": 4}
    assert len(found.cka) == 3 + 6
    assert found.cka["cka"].isna().sum() == 3  # the decoder starts from one constant token
    assert found.cka["cka"].dropna().between(0, 1 + 1e-9).all()
    assert found.layers["update"].isna().sum() == 2
    assert found.layers["cosine"].dropna().between(-1, 1).all()
