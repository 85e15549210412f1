"""Attention maps: what is recomputed is what the model applies, and positions are where their steps are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.capabilities import Capabilities
from tests.tiny import full_length, ragged
from tsprune.anatomy import Component
from tsprune.hooks.attention import AttentionMap, watching
from tsprune.hooks.capture import Point, point_of, recording
from tsprune.models import Forecaster


@pytest.mark.parametrize("make", [full_length, ragged], ids=["full", "ragged"])
def test_maps_times_values_are_the_heads_outputs(model: Forecaster, able: Capabilities, make: object) -> None:
    """Rows sum to 1, and map @ v, gated, is the input of the output projection, for every head."""
    contexts = make(model, 3)  # type: ignore[operator]
    sites = model.anatomy.components("attention")
    points = {
        site: point_of(model.anatomy, Component(site.stack, site.layer, site.attention, 0)) for site in sites
    }
    gates = {site: Point(model.anatomy.site(site).gate.module, "output") for site in sites if able.gated}
    mixed: dict[Component, list[Tensor]] = {site: [] for site in sites}

    def check(found: AttentionMap) -> None:
        answered = found.allowed.any(-1)
        sums = found.weights.sum(-1)
        torch.testing.assert_close(sums[answered], torch.ones_like(sums[answered]), atol=1e-5, rtol=0)
        assert (found.weights[~found.allowed.expand_as(found.weights)] == 0).all()
        output = (found.weights @ found.value).transpose(1, 2).flatten(2)
        mixed[found.component].append(torch.where(answered.all(1)[..., None], output, torch.nan))

    observed = (*points.values(), *gates.values())
    with torch.no_grad(), recording(model.module, observed) as recorded, watching(model, check):
        model.teacher_forced(contexts)

    for site in sites:
        captured = torch.cat([x.flatten(0, -2) for x in recorded[points[site]]])
        outputs = mixed[site]
        if able.gated:
            outputs = [x * gate.sigmoid() for x, gate in zip(outputs, recorded[gates[site]], strict=True)]
        if able.turns_back and model.anatomy.site(site).axis == "series":
            outputs = [x.transpose(0, 1) for x in outputs]
        ours = torch.cat([x.flatten(0, 1) for x in outputs])
        assert ours.shape == captured.shape
        known = ours.isfinite().all(-1)
        assert known.any()
        scale = captured[known].abs().max()
        assert (ours[known] - captured[known]).abs().max() <= 1e-5 * max(1, scale)


def test_causal_stacks_and_no_others_see_only_the_past(model: Forecaster) -> None:
    later: dict[str, bool] = {}

    def look(found: AttentionMap) -> None:
        site = model.anatomy.site(found.component)
        if site.axis == "time" and site.keys_from is None and found.allowed.shape[-1] > 1:
            ahead = bool(found.allowed.triu(1).any())
            later[found.component.stack] = later.get(found.component.stack, False) or ahead

    with torch.no_grad(), watching(model, look):
        model.teacher_forced(full_length(model, 2))
    assert later  # Bolt's decoder has a single position
    assert later == {stack: not model.anatomy.stack(stack).causal for stack in later}


def test_watching_changes_nothing(model: Forecaster) -> None:
    contexts = ragged(model, 2)
    before = model.forecast(contexts, 5).quantiles
    with watching(model, lambda found: None):
        np.testing.assert_array_equal(model.forecast(contexts, 5).quantiles, before)


def test_a_position_is_where_its_steps_are(model: Forecaster) -> None:
    """Two neighbouring steps change places: only the positions that stand for them are changed.

    Their mean and deviation stay, so no normalisation carries the change elsewhere.
    """
    stack = model.anatomy.stacks[0]
    assert stack.time is not None
    site = stack.blocks[0].attention[0]
    span = stack.time.span
    (context,) = full_length(model, 1)
    # what Chronos-T5 is teacher-forced with is no context of its encoder
    forced = 0
    if model.family == "chronos-t5":
        forced = min(model.module.config.chronos_config["prediction_length"], len(context) // 2)
    for back in (2 * span, 4 * span if 4 * span <= len(context) - forced else 3 * span):
        last = len(context) - forced - 1  # time 0
        first = last - back + 1  # the first step of a patch
        context[[first, first + 1]] = np.abs(context).max() * np.array([1, -1])  # never one token
        swapped = context.copy()
        swapped[[first, first + 1]] = context[[first + 1, first]]
        inputs = []
        for values in (context, swapped):
            point = point_of(model.anatomy, Component(stack.name, 0, site.role, 0))._replace(
                path=site.value.module, side="input"
            )
            with torch.no_grad(), recording(model.module, [point]) as recorded:
                model.teacher_forced([values])
            (x, *_) = recorded[point]
            inputs.append(point.windows_first(x).flatten(0, -3)[0])
        changed = (inputs[0] - inputs[1]).abs().amax(-1)
        moved = torch.nonzero(changed > 1e-3 * inputs[0].abs().max()).flatten().tolist()
        times = stack.time.times(len(changed))
        standing = {times.index(float((first + step - last + span - 1) // span * span)) for step in (0, 1)}
        assert set(moved) == standing
