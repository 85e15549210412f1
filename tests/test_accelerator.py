"""The pretend device raises where CUDA does, counts what a GPU waits for, and leaves nothing behind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.accelerator import DEVICE, NAME, Tally, accelerator


@pytest.fixture
def tally() -> Iterator[Tally]:
    with accelerator() as counted:
        yield counted


def numbers(device: str = DEVICE) -> Tensor:
    return torch.tensor([1.0, 2.0, 3.0], device=device)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda: numbers() + torch.ones(3),
        lambda: torch.zeros(3).add_(numbers()),
        lambda: numbers() + numbers(f"{NAME}:1"),
        lambda: torch.where(numbers() > 1, numbers(), torch.zeros(3)),
        lambda: torch.ones(3)[torch.zeros(1, dtype=torch.long, device=DEVICE)],
        lambda: nn.functional.linear(numbers(), torch.ones(2, 3)),
        lambda: numbers().masked_fill(torch.ones(3, dtype=torch.bool), 0.0),
    ],
)
@pytest.mark.usefixtures("tally")
def test_devices_do_not_mix(mixed: Callable[[], Tensor]) -> None:
    with pytest.raises(RuntimeError, match="on the same device"):
        mixed()


@pytest.mark.usefixtures("tally")
def test_other_things_that_cuda_refuses() -> None:
    for read in (lambda: numbers().numpy(), lambda: np.asarray(numbers()), lambda: numbers(f"{NAME}:9")):
        with pytest.raises((TypeError, RuntimeError), match=r"to numpy\. Use|invalid device ordinal 9"):
            read()
    with pytest.raises(RuntimeError, match="for generator but found 'cpu'"):
        torch.randn(3, device=DEVICE, generator=torch.Generator())


def test_what_cuda_allows_and_what_it_waits_for(tally: Tally) -> None:
    x = numbers()
    assert (x + torch.tensor(1.0))[torch.tensor([0, 2])].device == torch.device(DEVICE)
    assert torch.zeros_like(x, device="cpu").device.type == "cpu"
    x[x > 2] = 0.0  # a scalar is filled in
    y = torch.arange(3, device=DEVICE) * x + torch.full((3,), 2.0, device=DEVICE)
    assert (tally.copies, tally.reads) == (0, 0)
    np.testing.assert_array_equal(y.cpu().numpy(), [2, 4, 2])
    np.testing.assert_array_equal(y.numpy(force=True), y.tolist())
    torch.empty(3).copy_(y)
    assert (tally.copies, tally.reads) == (4, 0)
    assert y[0].item() == 2
    assert torch.equal(x, x)
    assert x[x > 1].shape == (1,)
    assert bool((x > 0).any())
    assert (tally.copies, tally.reads) == (4, 4)
    assert sum(tally.places.values()) == tally.transfers
    assert all(place.startswith(__file__) for place in tally.places)


@pytest.mark.usefixtures("tally")
def test_modules_are_moved_trained_and_copied() -> None:
    torch.manual_seed(0)
    here = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    there = copy.deepcopy(here).to(DEVICE)
    x = torch.randn(5, 3)
    for model, given in ((here, x), (there, x.to(DEVICE))):
        optimizer = torch.optim.AdamW(model.parameters())
        model(given).square().sum().backward()
        optimizer.step()
    copied = copy.deepcopy(there).double().float().cpu()
    for one, other in zip(here.parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    with torch.inference_mode():
        torch.testing.assert_close(there(x.to(DEVICE)[None])[0].cpu(), here(x))


@pytest.mark.usefixtures("tally")
def test_shapes_that_change_in_place_change_for_torch_too() -> None:
    x = numbers()
    x.unsqueeze_(0)
    x.t_()
    assert x.shape == (3, 1)
    assert (x + x.mT).shape == (3, 3)


def test_memory_runs_out() -> None:
    with accelerator(most=1000):
        torch.zeros(250, device=DEVICE)
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(251, device=DEVICE)
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(20, device=DEVICE)[:, None] @ torch.zeros(1, 20, device=DEVICE)


def test_kernels_by_rows_give_equal_rows_other_bits() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(8, 100), torch.randn(100, 30)
    for by_rows in (False, True):
        with accelerator(kernels_by_rows=by_rows):
            there = weight.to(DEVICE)
            few, many = x.to(DEVICE) @ there, x.repeat(9, 1).to(DEVICE) @ there
            torch.testing.assert_close(few.cpu(), many.cpu()[:8])
            assert torch.equal(few, many[:8]) != by_rows


def test_nothing_is_left_behind() -> None:
    settings = (torch._C._only_lift_cpu_tensors, torch.__future__.get_overwrite_module_params_on_conversion)
    before = [setting() for setting in settings]
    with accelerator():
        left = numbers()
        assert torch.accelerator.is_available()
    assert [setting() for setting in settings] == before
    assert not torch.accelerator.is_available()
    for use in (numbers, left.cpu, lambda: left + 1):
        with pytest.raises((RuntimeError, NotImplementedError), match=NAME):
            use()
    with pytest.raises(ZeroDivisionError), accelerator():
        raise ZeroDivisionError
    assert [setting() for setting in settings] == before
