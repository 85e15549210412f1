"""Threads are set for a while only, and only where they do not pay there is one."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from tests.suites import tiny
from tsprune.cost.threads import NARROW, thread_count, worthwhile, worthwhile_threads
from tsprune.models import Forecaster


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with thread_count(3):
        assert torch.get_num_threads() == 3
    with thread_count(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_one_thread_for_narrow_models_of_tokens() -> None:
    narrow = tiny("tiny-chronos-t5")
    assert worthwhile_threads(narrow) == 1
    assert worthwhile_threads(tiny("tiny-chronos-bolt")) is None
    wide = copy.copy(narrow)
    wide.anatomy = dataclasses.replace(narrow.anatomy, d_model=NARROW)
    assert worthwhile_threads(wide) is None


@worthwhile
def _threads(model: Forecaster, factor: int, *, fail: bool = False) -> int:
    """Says how many."""
    if fail:
        raise ValueError("asked for")
    return factor * torch.get_num_threads()


def test_work_on_a_model_has_the_threads_that_pay() -> None:
    assert _threads.__doc__ == "Says how many."
    with thread_count(2):
        assert _threads(tiny("tiny-chronos-t5"), 10) == 10
        assert _threads(tiny("tiny-chronos-bolt"), factor=10) == 20
        with pytest.raises(ValueError, match="asked for"):
            _threads(tiny("tiny-chronos-t5"), 10, fail=True)
        assert torch.get_num_threads() == 2
