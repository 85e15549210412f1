"""Ablations that are computed in one batch: the same scores, or none of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.suites import shared_suite, tiny
from tests.sweeping import assert_equal
from tests.tiny import equal_rows, pristine
from tsprune.choices import MODES
from tsprune.data import Suite
from tsprune.evaluation import Batch
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import default_reference
from tsprune.models import Forecast, Forecaster
from tsprune.replay import MOST
from tsprune.run_options import MEMORY
from tsprune.sweeps import make_plan, run
from tsprune.sweeps.variants import Variants

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> Iterator[Forecaster]:
    loaded = tiny("tiny-chronos-bolt")
    with pristine(loaded):
        yield loaded


def heads(model: Forecaster, pattern: str) -> list[Ablation]:
    return [Ablation((head,)) for head in model.anatomy.select(pattern)]


def sharing(
    model: Forecaster, ablations: list[Ablation], monkeypatch: pytest.MonkeyPatch, horizon: int | None = None
) -> int:
    """How many of `ablations` are forecast together with others, once the shape of their batch is known.

    horizon : of the batch that makes it known, if another one
    """
    batch = max(make_plan(model, shared_suite(), [], batch_size=8).batches, key=len)
    before = batch if horizon is None else dataclasses.replace(batch, horizons=0 * batch.horizons + horizon)
    alone: list[Ablation] = []

    def noted(self: Variants, batch: Batch, ablation: Ablation) -> Forecast:
        alone.append(ablation)
        return original(self, batch, ablation)

    original = Variants._alone
    monkeypatch.setattr(Variants, "_alone", noted)
    variants = Variants(model, None, MEMORY)
    for asked in (before, batch):
        alone.clear()
        variants.clean(asked)
        for place, ablation in enumerate(ablations):
            variants.look_ahead(asked, ablations[place : place + MOST])
            variants.forecast(asked, ablation)
    return len(ablations) - len(alone)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_scores_are_those_of_ablations_alone(model: Forecaster, mode: str, stack: str) -> None:
    ablations = [
        Ablation(one.components, mode, seed=5)  # type: ignore[arg-type]
        for one in heads(model, f"{stack}.*.*.head.*")
    ]
    reference = default_reference(model, [c for one in ablations for c in one.components])
    together, alone = (
        run(model, shared_suite(), ablations, batch_size=8, reference=reference, replay=replay)
        for replay in (True, False)
    )
    assert_equal(together, alone)


def test_heads_of_a_sublayer_are_computed_together(
    model: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this the law above would hold for an engine that does nothing of the kind."""
    chosen = heads(model, "decoder.0.cross.head.*")
    with equal_rows(model):
        assert sharing(model, chosen, monkeypatch) == len(chosen)


def test_another_horizon_is_tried_again_unless_the_network_gives_as_many_steps(
    model: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, patch = heads(model, "decoder.0.cross.head.*"), model.prefix_steps
    with equal_rows(model):
        assert sharing(model, chosen, monkeypatch, horizon=patch) == len(chosen)
        monkeypatch.setattr(model, "prefix_steps", 1)
        assert sharing(model, chosen, monkeypatch, horizon=patch) == 0


def test_a_model_whose_rows_depend_on_each_other_is_not_trusted(
    model: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of several ablations would mix them: it is found out, and no score is made from it."""

    def mixing(_module: torch.nn.Module, _args: object, output: Tensor) -> Tensor:
        return output + 0.01 * output.mean(0, keepdim=True)

    ablations = [*heads(model, "decoder.*.cross.head.*"), *heads(model, "encoder.1.self.head.*")]
    handle = model.module.get_submodule("decoder.final_layer_norm").register_forward_hook(mixing)
    try:
        assert sharing(model, ablations, monkeypatch) == 0
        together, alone = (
            run(model, shared_suite(), ablations, batch_size=8, replay=replay) for replay in (True, False)
        )
    finally:
        handle.remove()
    assert_equal(together, alone)


def test_agreement_on_one_batch_alone_is_not_trusted(
    model: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger batches that round as small ones do on all that the first batch holds, by chance."""
    known: set[bytes] | None = None
    seen: set[bytes] = set()

    def rare(_module: torch.nn.Module, _args: object, output: Tensor) -> Tensor:
        rows = [row.numpy().tobytes() for row in output.detach()]
        if known is None:
            seen.update(rows)
            return output
        other = torch.tensor([len(rows) > 8 and row not in known for row in rows])
        return torch.where(other[:, None, None], output * (1 + 1e-6), output)

    chosen = heads(model, "decoder.0.cross.head.*")
    handle = model.module.get_submodule("decoder.final_layer_norm").register_forward_hook(rare)
    try:
        run(model, shared_suite(), chosen, batch_size=8, replay=False)
        known = set(seen)
        assert sharing(model, chosen, monkeypatch) == 0
    finally:
        handle.remove()


def test_an_upstream_that_refuses_larger_batches_is_asked_no_further(model: Forecaster) -> None:
    most = 8

    def fixed(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        if len(args[0]) > most:
            raise ValueError("too many rows")

    ablations = heads(model, "decoder.*.cross.head.*")
    first, _, third = shared_suite().configurations  # the second's horizon takes several passes
    suite = Suite("short", (first, third))
    handle = model.module.get_submodule("decoder.final_layer_norm").register_forward_pre_hook(fixed)
    try:
        together, alone = (
            run(model, suite, ablations, batch_size=most, replay=replay) for replay in (True, False)
        )
    finally:
        handle.remove()
    assert_equal(together, alone)


def test_forecasts_do_not_depend_on_what_is_asked_for_after_them(model: Forecaster) -> None:
    ablations = heads(model, "decoder.1.cross.head.*")
    one, many = (run(model, shared_suite(), chosen, batch_size=8) for chosen in (ablations[:1], ablations))
    for name, scores in one.scores[ablations[0]].items():
        np.testing.assert_array_equal(scores.spearman, many.scores[ablations[0]][name].spearman)
