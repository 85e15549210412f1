"""Draws in numpy are those of torch by the same numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tsprune.models import draws
from tsprune.models.sampled_mixtures import PARAMETERS, mixture_draws

KINDS = ("student_t", "normal", "negative_binomial", "log_normal", "student_t")


def in_torch(kind: str, parameters: list[Tensor], one: Tensor, other: Tensor) -> Tensor:
    if kind == "student_t":
        return draws.student_t(*parameters, *draws.polar(one, other))  # type: ignore[call-arg]
    if kind == "negative_binomial":
        return draws.negative_binomial(*parameters, one, other)
    found = draws.normal(*parameters, one)
    return found.exp() if kind == "log_normal" else found


def test_draws_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    shape = 3, 50, 7
    weights = rng.dirichlet(np.ones(len(KINDS)), size=(3, 1, 7)).astype(np.float32)
    weights[0, 0, 0, :2] = 0  # components that are never drawn
    columns = [
        rng.uniform(2 if kind == "student_t" and not at else 0.5, 5, size=(3, 1, 7))
        for kind in KINDS
        for at in range(PARAMETERS[kind])
    ]
    parameters = np.stack(columns, axis=-1).astype(np.float32)
    numbers = rng.random((*shape, 3))
    found = mixture_draws(KINDS, weights, parameters, numbers)
    which, one, other = torch.from_numpy(numbers).unbind(-1)
    spread = torch.from_numpy(weights).expand(*shape, -1)
    index = draws.categorical(spread, which[..., None])[..., 0]
    assert len(index.unique()) == len(KINDS)
    assert (index[0, :, 0] > 1).all()
    expected, first = torch.zeros(shape), 0
    for number, kind in enumerate(KINDS):
        own = [torch.from_numpy(x).expand(shape) for x in np.moveaxis(parameters, -1, 0)]
        whole = in_torch(kind, own[first : first + PARAMETERS[kind]], one, other)
        expected = torch.where(index == number, whole.float(), expected)
        first += PARAMETERS[kind]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_draws_of_broken_parameters_are_not_finite() -> None:
    weights = np.ones((1, 1, 3, 2), np.float32)
    parameters = np.ones((1, 1, 3, 4), np.float32)
    weights[0, 0, 0, 1], parameters[0, 0, 1, 3] = np.nan, np.inf
    found = mixture_draws(("normal", "normal"), weights, parameters, np.full((1, 5, 3, 3), 0.25))
    assert np.isnan(found).tolist() == [[[True, True, False]] * 5]
