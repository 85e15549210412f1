"""Law 5: what is replayed is what would have been computed, exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.capabilities import CAPABILITIES
from tests.tiny import CountLinear, full_length, output_patch, ragged, spread
from tsprune.anatomy import Component
from tsprune.choices import MODES
from tsprune.hooks.ablation import Ablation, ablate, applied, side_by_side
from tsprune.hooks.capture import default_reference, reference
from tsprune.models import Forecaster
from tsprune.replay import Replay

Array = NDArray[np.float32]


def forecast(model: Forecaster, horizon: int, contexts: list[Array] | None = None) -> Array:
    return model.forecast(ragged(model, 3) if contexts is None else contexts, horizon).quantiles


def replayed(model: Forecaster, replay: Replay, components: Iterable[Component], horizon: int) -> Array:
    chosen = tuple(components)
    with applied(model, Ablation(chosen)), replay.reuse("windows", chosen):
        return forecast(model, horizon)


def recorded(model: Forecaster, horizon: int) -> Replay:
    replay = Replay(model)
    with replay.record("windows"):
        forecast(model, horizon)
    return replay


def horizons(model: Forecaster) -> tuple[int, int]:
    """Within one pass of the network, and beyond; tokens come step by step, so that few are like many."""
    within, few = output_patch(model) - 3, CAPABILITIES[model.family].tokens
    return (min(within, 6), within + 5) if few else (within, within + 8)


def test_recording_leaves_the_forecast_as_it_is(model: Forecaster) -> None:
    for horizon in horizons(model):
        clean = forecast(model, horizon)
        with Replay(model).record("windows"):
            np.testing.assert_array_equal(forecast(model, horizon), clean)


@pytest.mark.parametrize("beyond", [False, True], ids=["one patch", "autoregressive"])
def test_replaying_mean_and_resample(model: Forecaster, beyond: bool) -> None:
    horizon = horizons(model)[beyond]
    replay = recorded(model, horizon)
    few = 3 if beyond and CAPABILITIES[model.family].tokens else 7
    components = spread(model.anatomy.components(), few)
    heads = [component for component in components if component.kind == "head"]
    given = reference(model, full_length(model, 4), components=components)
    by_default = default_reference(model, heads)
    for component, mode in itertools.product(components, MODES[1:]):
        chosen = model.anatomy.expand([component])
        ablation = Ablation(chosen, mode, seed=3)
        for source in (given, by_default) if component in heads else (given,):
            with applied(model, ablation, reference=source):
                expected = forecast(model, horizon)
            with applied(model, ablation, reference=source), replay.reuse("windows", chosen):
                actual = forecast(model, horizon)
            np.testing.assert_array_equal(actual, expected, err_msg=f"{component}, {mode}")


def test_a_record_serves_many_ablations_in_any_order(model: Forecaster) -> None:
    horizon = horizons(model)[1]
    replay = recorded(model, horizon)
    heads = spread(model.anatomy.components("head"), 4)
    first = [replayed(model, replay, [head], horizon) for head in heads]
    again = [replayed(model, replay, [head], horizon) for head in reversed(heads)][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_records_of_two_keys_do_not_mix(model: Forecaster) -> None:
    contexts = {"a": full_length(model, 3, seed=1), "b": full_length(model, 3, seed=2)}
    last = model.anatomy.components("head")[-1]
    replay = Replay(model)
    for key, windows in contexts.items():
        with replay.record(key):
            forecast(model, 5, windows)
    for key, windows in contexts.items():
        with ablate(model, last):
            expected = forecast(model, 5, windows)
            with replay.reuse(key, [last]):
                np.testing.assert_array_equal(forecast(model, 5, windows), expected)


def test_other_inputs_than_the_recorded_are_computed(model: Forecaster) -> None:
    """A record is used for the inputs it was made from, never merely for the same call."""
    windows = full_length(model, 3, seed=1)
    other = [x.copy() for x in windows]
    other[2][-1] += 0.5
    shorter = [x[: len(x) // 2] for x in windows[:2]]
    replay = Replay(model)
    with replay.record("windows"):
        forecast(model, 5, windows)
    for chosen in [(), model.anatomy.components("head")[-1:], model.anatomy.components("head")[:1]]:
        for contexts in (other, shorter, windows, other):
            with applied(model, Ablation(chosen)):
                expected = forecast(model, 5, contexts)
                with replay.reuse("windows", chosen):
                    np.testing.assert_array_equal(forecast(model, 5, contexts), expected)


def test_keys_and_values_made_from_the_encoder_are_kept(model: Forecaster) -> None:
    if not CAPABILITIES[model.family].crosses:
        pytest.skip("has no cross-attention")
    cross = [site for _, site in model.anatomy.sites() if site.role == "cross"]
    assert cross
    replay = recorded(model, 5)
    projections = [projection.module for site in cross for projection in (site.key, site.value)]
    weights = [model.module.get_submodule(path).get_parameter("weight") for path in projections]
    for head, times in (("decoder.0.self.head.0", 0), ("encoder.0.self.head.0", 1)):
        with CountLinear(*weights) as counter:
            replayed(model, replay, model.anatomy.select(head), 5)
        assert counter.counts == [times] * len(weights)


def test_nothing_is_left_after_an_exception(model: Forecaster) -> None:
    replay = recorded(model, 5)  # `model` itself checks what is left
    with pytest.raises(ZeroDivisionError), replay.record("other"):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), replay.reuse("windows", model.anatomy.components("head")[-1:]):
        raise ZeroDivisionError
    with pytest.raises(KeyError), replay.reuse("other", ()):
        pass  # an interrupted clean pass is no record


def test_memory_is_counted_and_freed(model: Forecaster) -> None:
    replay = Replay(model)
    assert replay.nbytes == 0
    with replay.record(1):
        forecast(model, 5)
    once = replay.nbytes
    with replay.record(2):
        forecast(model, 5)
    assert replay.nbytes > once > 0
    replay.forget(2)
    assert replay.nbytes == once
    replay.forget(1)
    replay.forget("never recorded")
    assert replay.nbytes == 0


@pytest.mark.parametrize("beyond", [False, True], ids=["one patch", "autoregressive"])
def test_replaying_short_of_memory(model: Forecaster, beyond: bool) -> None:
    """Whatever part of the record fits: the same numbers, within the limit."""
    horizon = horizons(model)[beyond]
    whole = recorded(model, horizon).nbytes
    expected = {}
    for component in spread(model.anatomy.components(), 4 if beyond else 9):
        with ablate(model, component):
            expected[component] = forecast(model, horizon)
    for share in (0, 0.1, 0.35, 0.7, 0.99):
        memory = int(share * whole)
        replay = Replay(model, memory)
        with replay.record("windows"):
            forecast(model, horizon)
        assert replay.nbytes <= memory
        for component, wanted in expected.items():
            actual = replayed(model, replay, [component], horizon)
            np.testing.assert_array_equal(actual, wanted, err_msg=f"{component}, {share}")


def test_the_networks_own_output_is_replayed_too(model: Forecaster) -> None:
    """Also where gradients are recorded, as they are in torch unless one asks otherwise."""
    contexts = full_length(model, 2)
    replay = Replay(model)
    with replay.record("windows"):
        model.teacher_forced(contexts)
    for component in spread(model.anatomy.components("head"), 5):
        with ablate(model, component):
            expected = model.teacher_forced(contexts)
            with replay.reuse("windows", [component]):
                actual = model.teacher_forced(contexts)
        np.testing.assert_array_equal(actual.detach(), expected.detach(), err_msg=component.address)


def sublayers(model: Forecaster) -> list[tuple[Component, ...]]:
    """The heads of some sublayers, and sets of them with more downstream, as in a grid."""
    stacks = [s for s in model.anatomy.stacks if s.blocks]
    groups = []
    for stack in stacks:
        for layer in (0, len(stack.blocks) - 1):
            for site in stack.blocks[layer].attention:
                groups.append(tuple(Component(stack.name, layer, site.role, h) for h in site.numbers))
    return groups


def together(
    model: Forecaster, replay: Replay, horizon: int, windows: list[Array], group: Sequence[Ablation]
) -> Array:
    """Forecasts of `windows` under each of `group`, in one batch, [ablation, window, ...]."""
    with side_by_side(model, group), replay.reuse("windows", group[0].components, len(group)):
        joint = forecast(model, horizon, windows * len(group))
    return joint.reshape(len(group), len(windows), *joint.shape[1:])


@pytest.mark.parametrize("beyond", [False, True], ids=["one patch", "autoregressive"])
def test_what_is_forecast_together_is_what_each_gives_alone(model: Forecaster, beyond: bool) -> None:
    """To rounding; to the last bit if a sweep would share the batch, which tries the first in every place."""
    horizon = horizons(model)[beyond]
    windows = full_length(model, 8)
    replay = Replay(model)
    with replay.record("windows"):
        clean = forecast(model, horizon, windows)
    last = model.anatomy.components("mlp")[-1]
    tried = 0
    for heads in spread(tuple(sublayers(model)), 3):  # type: ignore[arg-type]
        ablations = [Ablation((head,)) for head in heads[:3]] + [Ablation((*heads[:2], last))]
        (place,) = {replay.lowest(one.components) for one in ablations}
        assert place is not None
        group = ablations[-replay.at_once("windows", place) :]
        if len(group) < 2:
            continue
        tried += 1
        joint, repeated = (
            together(model, replay, horizon, windows, ablations)
            for ablations in (group, group[:1] * len(group))
        )
        alone = []
        for ablation in group:
            with applied(model, ablation), replay.reuse("windows", ablation.components):
                alone.append(forecast(model, horizon, windows))
        np.testing.assert_allclose(joint, np.stack(alone), rtol=1e-3, atol=1e-3 * np.nanstd(clean))
        if all(np.array_equal(one, alone[0], equal_nan=True) for one in (*repeated, joint[0])):
            np.testing.assert_array_equal(joint, np.stack(alone))
    if model.family == "chronos-bolt" and not beyond:
        assert tried
    blocks = [block for stack in model.anatomy.stacks for block in stack.blocks]
    if any(
        block.mlp and block.mlp.experts for block in blocks
    ):  # the rows of an expert depend on other ablations
        assert not tried
