"""Threads are set for a while only, and only where they do not pay there is one."""

from __future__ import annotations

import copy
import dataclasses

import torch

from tests.suites import tiny
from tsprune.evaluation.threads import NARROW, thread_count, worthwhile_threads


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
