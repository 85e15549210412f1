"""Tokens in numpy are those of upstream's tokenizer, and draws those of torch with the same numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from chronos.chronos import ChronosConfig, MeanScaleUniformBins

from tsprune.models import draws
from tsprune.models.sampled_paths import drawn_uniform, sampling_of, stream_seed
from tsprune.models.sampled_tokens import TokenSampling

SAMPLING = TokenSampling(
    samples=5, seed=0, history=32, steps=8, tokens=64, special=2, pad=0, end=1, ends=True, begin=0,
    low=-15.0, high=15.0, temperature=1.0, most_likely=50, heads=1, head_dim=1,
)  # fmt: skip


def tokenizer(sampling: TokenSampling) -> MeanScaleUniformBins:
    config = ChronosConfig(
        "MeanScaleUniformBins", {}, sampling.history, sampling.steps, sampling.tokens, sampling.special,
        sampling.pad, sampling.end, sampling.ends, "seq2seq", sampling.samples, sampling.temperature,
        sampling.most_likely, 1.0,
    )  # fmt: skip
    return MeanScaleUniformBins(sampling.low, sampling.high, config)


@pytest.mark.parametrize(("tokens", "low", "high"), [(64, -15.0, 15.0), (4096, -15.0, 15.0), (37, -3.3, 8.1)])
@pytest.mark.parametrize("ends", [True, False])
def test_tokens_are_upstreams(tokens: int, low: float, high: float, ends: bool) -> None:
    sampling = dataclasses.replace(SAMPLING, tokens=tokens, low=low, high=high, ends=ends)
    upstream = tokenizer(sampling)
    # to the last bit where torch has vector instructions, which fuse a product and a sum
    np.testing.assert_allclose(sampling.centers, upstream.centers.numpy(), atol=2e-6)
    rng = np.random.default_rng(0)
    context = (rng.normal(size=(6, 30)) * 10.0 ** np.arange(-2, 4)[:, None]).astype(np.float32)
    context[1, :9], context[2, [4, 20]], context[3] = np.nan, np.nan, 0.0
    expected, mask, scale = upstream.context_input_transform(torch.from_numpy(context))
    found, observed, size = sampling.read(context)
    np.testing.assert_allclose(size, scale.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(observed, mask.numpy())
    np.testing.assert_array_equal(found, expected.numpy())
    paths = rng.integers(0, tokens, size=(6, 5, 4))
    values = upstream.output_transform(torch.from_numpy(paths), torch.from_numpy(size))
    np.testing.assert_allclose(sampling.values(paths, size), values.numpy(), atol=2e-6 * size.max())


@pytest.mark.parametrize("most_likely", [1, 7, 50, 1000])
def test_draws_are_those_of_torch(most_likely: int) -> None:
    sampling = dataclasses.replace(SAMPLING, most_likely=most_likely, temperature=0.7)
    rng = np.random.default_rng(most_likely)
    logits = rng.normal(size=(40, 5, 64)).astype(np.float32) * 3
    uniform = rng.random((40, 5))
    scores = torch.from_numpy(logits.copy()) / 0.7
    scores[..., sampling.end] = -torch.inf
    least = scores.topk(min(most_likely, 64)).values[..., -1:]
    likely = scores.masked_fill(scores < least, -torch.inf).softmax(dim=-1)
    expected = draws.categorical(likely, torch.from_numpy(uniform)[..., None])[..., 0]
    found = sampling.drawn(logits, uniform)
    np.testing.assert_array_equal(found, expected.numpy())
    assert (found != sampling.end).all()


def test_numbers_are_those_of_the_model() -> None:
    context = np.arange(9, dtype=np.float32)
    noise = draws.Noise([context], 3)
    streams = [np.random.Generator(np.random.PCG64(stream_seed(context, 3)))]
    for _ in range(3):
        np.testing.assert_array_equal(noise.uniform(5).numpy(), drawn_uniform(streams, (5,)))


def test_fields_that_cannot_be() -> None:
    stated = dataclasses.asdict(SAMPLING)
    assert sampling_of(stated) == sampling_of(SAMPLING.stated()) == SAMPLING
    for changed in ({"samples": 0}, {"tokens": 3}, {"ends": 1}, {"low": 20.0}, {"temperature": -1.0}):
        with pytest.raises(ValueError, match="sampling"):
            TokenSampling.of(stated | changed)
