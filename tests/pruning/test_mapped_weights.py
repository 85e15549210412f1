"""Weights in a file: the same values and objects, and memory of their own afterwards."""

from __future__ import annotations

import tempfile

import pytest
import torch
from torch import nn

from tsprune.pruning.mapped_weights import mapped_weights


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 3), nn.Linear(3, 1).half(), nn.Linear(5, 3).bfloat16())
    made[1].bias = made[1].weight  # tied
    return made


def test_values_and_objects_are_kept_and_writes_as_well() -> None:
    module, expected = network(), network()
    before = list(module.parameters())
    with mapped_weights(module), torch.no_grad():
        for one, other in zip(module.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        module[0].weight.add_(1)
    with torch.no_grad():
        expected[0].weight.add_(1)
    assert all(one is other for one, other in zip(module.parameters(), before, strict=True))
    for one, other in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert one.untyped_storage().resizable()


def test_an_error_gives_the_memory_back() -> None:
    module = network()
    with pytest.raises(ZeroDivisionError), mapped_weights(module):
        raise ZeroDivisionError
    assert all(one.untyped_storage().resizable() for one in module.parameters())


def test_memory_is_that_of_a_file_meanwhile() -> None:
    module = network()
    with mapped_weights(module):
        assert not any(one.untyped_storage().resizable() for one in module.parameters())


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __getattr__(self, _: str) -> object:
            raise OSError("no space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    module = network()
    before = [one.data_ptr() for one in module.parameters()]
    with mapped_weights(module):
        assert [one.data_ptr() for one in module.parameters()] == before


def test_parts_of_larger_tensors_stay_where_they_are() -> None:
    module = nn.Linear(3, 2)
    whole = torch.zeros(4, 3)
    module.weight = nn.Parameter(whole[:2])
    with mapped_weights(module):
        assert module.weight.data_ptr() == whole.data_ptr()
