"""Gradients survive what upstream does against them, and a root at 0 has none."""

from __future__ import annotations

import math

import torch

from tsprune.models.gradients import KeepGradients


def test_gradients_stay_on_and_what_leaves_is_recorded() -> None:
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    with KeepGradients() as kept:
        with torch.no_grad():
            product = x * x
        product.detach().numpy()
    assert kept.left == [product]
    (gradient,) = torch.autograd.grad(product.sum(), x)
    assert gradient.tolist() == [4, 6]


def test_the_root_of_zero_is_zero_and_its_derivative_too() -> None:
    """By hand: 0, 2, NaN; derivatives 0, 1/4, NaN."""
    x = torch.tensor([0.0, 4.0, -1.0], requires_grad=True)
    with KeepGradients():
        roots = x.sqrt()
    (gradient,) = torch.autograd.grad(roots.sum(), x)
    assert roots.detach().tolist()[:2] == [0, 2]
    assert gradient.tolist()[:2] == [0, 0.25]
    assert math.isnan(roots.detach().tolist()[2])
    assert math.isnan(gradient.tolist()[2])
