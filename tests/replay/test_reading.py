"""The readout is computed where it is used, if that gives the same bits.

Some processors round a product of one row as they round a product of several, others do not. So the readout's
weights are made 1/8 or -1/8 and their inputs are rounded to multiples of 1/64: the sums are then exact,
whatever their order, and only a module that is uneven on purpose differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from torch import Tensor, nn

from tests.tiny import pristine
from tsprune.hooks.ablation import ablate
from tsprune.models import Forecaster, load
from tsprune.replay import Replay

CONTEXTS = np.random.default_rng(0).standard_normal((8, 96)).astype(np.float32)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> Iterator[Forecaster]:
    loaded = load("bundled:timesfm", device="cpu")
    assert loaded.anatomy.readout is not None
    paths = (*loaded.anatomy.readout.modules, *loaded.anatomy.readout.others)
    linear = [
        m for path in paths for m in loaded.module.get_submodule(path).modules() if isinstance(m, nn.Linear)
    ]
    for module in linear:
        module.weight.data.copy_(module.weight.sign() / 8)
        module.register_forward_pre_hook(rounded)
    with pristine(loaded):
        yield loaded


def rounded(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The input of a product as multiples of 1/64 between -16 and 16."""
    return (args[0].clamp(-16, 16).mul(64).round().div(64),)


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., Tensor | None]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def positions(model: Forecaster, path: str) -> Iterator[set[int]]:
    """For how many positions the first product of the module at `path` is computed meanwhile."""
    counts: set[int] = set()
    first = next(m for m in model.module.get_submodule(path).modules() if isinstance(m, nn.Linear))
    with hooked(first, lambda _m, args, _out: counts.add(args[0].shape[1])):
        yield counts


@pytest.mark.parametrize("path", ["output_projection_point", "output_projection_quantiles"])
def test_only_the_last_patch_is_read_out(model: Forecaster, path: str) -> None:
    replay, component = Replay(model), model.anatomy.select("stack.*.self.head.*")[-1]
    with ablate(model, component):
        expected = model.forecast(CONTEXTS, 5).quantiles
    with positions(model, path) as clean, replay.record("batch"):
        model.forecast(CONTEXTS, 5)
    assert max(clean) > 1
    with ablate(model, component), replay.reuse("batch", [component]), positions(model, path) as ablated:
        found = model.forecast(CONTEXTS, 5).quantiles
    assert ablated == {1}
    np.testing.assert_array_equal(found, expected)


def test_other_bits_are_not_trusted(model: Forecaster) -> None:
    """A readout whose result for one position depends on how many there are is computed as ever."""

    def uneven(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * (1 + 1e-6 * args[0].shape[1])

    replay, component = Replay(model), model.anatomy.select("stack.*.mlp")[-1]
    point, spread = "output_projection_point", "output_projection_quantiles"
    with hooked(model.module.get_submodule(f"{point}.output_layer"), uneven):
        with ablate(model, component):
            expected = model.forecast(CONTEXTS, 5).quantiles
        with replay.record("batch"):
            model.forecast(CONTEXTS, 5)
        counted = positions(model, point), positions(model, spread)
        with (
            ablate(model, component),
            replay.reuse("batch", [component]),
            counted[0] as whole,
            counted[1] as one,
        ):
            found = model.forecast(CONTEXTS, 5).quantiles
    np.testing.assert_array_equal(found, expected)
    assert 1 not in whole
    assert one == {1}  # another module, which does agree
