"""Forwards that are substituted are restored, in whatever order and whatever happens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tsprune.models.substitution import substituted_forwards


def test_a_forward_is_another_one_for_a_while() -> None:
    module, x = nn.Linear(2, 2), torch.ones(1, 2)
    expected, seen = module(x), []
    handle = module.register_forward_hook(lambda *_: seen.append("hook"))
    with substituted_forwards([(module, torch.negative)]):
        assert torch.equal(module(x), -x)
    handle.remove()
    assert seen == ["hook"]
    assert torch.equal(module(x), expected)
    assert "forward" not in vars(module)


def test_substitutes_of_substitutes_end_in_turn() -> None:
    module, x = nn.Linear(2, 2), torch.full((1, 2), 3.0)

    def interrupted() -> None:
        with substituted_forwards([(module, torch.square), (module, torch.zeros_like)]):
            assert torch.equal(module(x), 0 * x)
            raise ValueError("inside")

    with substituted_forwards([(module, torch.negative)]):
        with pytest.raises(ValueError, match="inside"):
            interrupted()
        assert torch.equal(module(x), -x)
    assert "forward" not in vars(module)
