"""Distillation: hand-computed losses, who may teach whom, and that every family learns."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.suites import tiny
from tests.tiny import TINY, few_samples
from tsprune import prune
from tsprune.data import training
from tsprune.errors import TspruneError
from tsprune.models import Forecaster
from tsprune.models.copies import model_copy
from tsprune.pruning.distillation import (
    check_pair,
    deviation,
    deviations,
    distance,
    divergence,
    histories,
    shares_of_distance,
    stream_distance,
)
from tsprune.pruning.optimizers import optimizers

MODELS = [name for name in TINY if not name.endswith("cached")]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SERIES_PER_SHARD", 8)


def smaller(model: Forecaster) -> Forecaster:
    """Without an MLP of the last stack and a head of each of its second layer's sublayers."""
    name = model.anatomy.stacks[-1].name
    return prune(model, [f"{name}.0.mlp", f"{name}.1.*.head.0"])


# --- worked examples -----------------------------------------------------------------------------


def test_divergence_by_hand() -> None:
    """(3/4, 1/4) from (1/2, 1/2), and a token on which both agree."""
    teacher = torch.tensor([[[np.log(3.0), 0.0], [5.0, 5.0]]])
    student = torch.tensor([[[7.0, 7.0], [1.0, 1.0]]])
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert float(divergence(student, teacher)) == pytest.approx(expected / 2, rel=1e-5)
    assert float(divergence(teacher, teacher)) == 0


def test_deviation_by_hand() -> None:
    """One entry of deviation 1, off by 1 in one window of two; one that the teacher has always alike."""
    teacher = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    student = torch.tensor([[1.0, 9.0], [2.0, 5.0]])
    # Huber with delta 0.1: 0.1 * (1 - 0.05), divided by delta; the mean of that and 0
    assert float(deviation(student, teacher)) == pytest.approx(0.95 / 2)
    # beyond the bend, twice the difference is the loss plus one deviation
    assert float(deviation(student + 1, teacher)) == pytest.approx((1.95 + 0.95) / 2)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(-6, 6))
def test_units_of_an_entry_do_not_matter(seed: int, power: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = torch.randn(2, 5, 3, generator=generator).double()
    units = torch.tensor([1.0, 10.0**power, -3.0], dtype=torch.float64)
    expected = float(deviation(student, teacher))
    assert float(deviation(student * units, teacher * units)) == pytest.approx(expected, rel=1e-6)


def test_windows_that_are_not_finite_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 4, 3, generator=generator)
    unit = deviations(teacher)
    expected = deviation(student, teacher)
    more = torch.full((1, 3), torch.inf), torch.zeros(1, 3)
    for one, other in (more, more[::-1]):
        both = torch.cat([student, one]), torch.cat([teacher, other])
        assert torch.equal(deviation(*both, unit), expected)
    assert torch.equal(deviations(torch.cat([teacher, more[0]])), unit)


def test_the_streams_distance_by_hand() -> None:
    target, other = torch.tensor([[1.0, -1.0, 2.0, 2.0]]), torch.tensor([[3.0, 0.0, 0.0, 0.0]])
    student = {("stack", 0): [target + 0.5], ("stack", 2): [other, 2 * other]}
    teacher = {("stack", 0): [target], ("stack", 1): [other], ("stack", 2): [other, other]}
    # squares of the error and of the target, each a mean: 0.25 / 2.5, 0 and 1; block 1 is gone
    assert float(stream_distance(student, teacher)) == pytest.approx((0.1 + 0.0 + 1.0) / 3)


# --- every family --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=MODELS)
def teacher(request: pytest.FixtureRequest) -> Forecaster:
    return few_samples(tiny(request.param))


def batch(model: Forecaster, count: int = 8) -> list[np.ndarray]:
    return next(histories(3, 0, count, model.context_length))


def test_a_model_is_at_no_distance_from_itself(teacher: Forecaster) -> None:
    contexts = batch(teacher)
    nothing = float(distance(teacher, teacher, contexts).detach())
    # torch has other attention kernels where gradients are recorded
    assert abs(nothing) < 1e-4  # a divergence of 0 may be rounded to less
    assert float(distance(smaller(teacher), teacher, contexts).detach()) > 100 * abs(nothing)
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_the_stream_is_held_to_the_teachers(teacher: Forecaster) -> None:
    contexts, small = batch(teacher, 4), smaller(teacher)
    output, both = (float(distance(small, teacher, contexts, stream=w).detach()) for w in (0.0, 2.0))
    assert both > output + 1e-3
    assert abs(float(distance(teacher, teacher, contexts, stream=2.0).detach())) < 1e-3
    student = model_copy(small)
    distance(student, teacher, contexts, stream=1.0).backward()
    first = teacher.anatomy.stacks[0].blocks[0].module
    assert any(p.grad is not None and p.grad.any() for p in student.module.get_submodule(first).parameters())
    assert all(parameter.grad is None for parameter in teacher.module.parameters())
    hooks = [m for m in teacher.module.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == []


def test_the_gradient_of_parts_is_that_of_the_whole(teacher: Forecaster) -> None:
    """In units of the whole batch: alone, each part would have other ones."""
    contexts, student = batch(teacher, 4), smaller(teacher)
    gradients = []
    for parts in (1, 2):
        student.module.zero_grad()
        for share in shares_of_distance(student, teacher, contexts, parts):
            share.backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in student.module.parameters() if p.grad is not None])
        )
    whole, summed = gradients
    assert float((whole - summed).norm() / whole.norm()) < 1e-3


def test_distillation_lowers_the_distance(teacher: Forecaster) -> None:
    """On one batch over and over, twice the same."""
    contexts, small = batch(teacher), smaller(teacher)
    runs = []
    for _ in range(2):
        student = model_copy(small)
        optims = optimizers(student, "float32")
        distances = []
        for _ in range(12):
            for optimizer in optims:
                optimizer.zero_grad()
                for group in optimizer.param_groups:
                    group["lr"] = 1e-3
            loss = distance(student, teacher, contexts)
            loss.backward()
            distances.append(float(loss.detach()))
            for optimizer in optims:
                optimizer.step()
        runs.append(distances)
    assert runs[0] == runs[1]
    assert runs[0][-1] < 0.85 * runs[0][0]


def test_what_is_trained_is_everything_that_forecasts(teacher: Forecaster) -> None:
    """A weight without a gradient is one that no output of the network depends on."""
    student = smaller(teacher)
    distance(student, teacher, batch(teacher)).backward()
    weights = {name: p for name, p in student.module.named_parameters() if p.numel()}
    idle = {name for name, p in weights.items() if p.grad is None or not p.grad.any()}
    expected = set()
    if teacher.family == "chronos-bolt":  # its decoder is one token, which attends to itself in any case
        inside = ("SelfAttention.q.", "SelfAttention.k.", "relative_attention_bias")
        expected = {n for n in weights if n.startswith("decoder") and any(part in n for part in inside)}
    if teacher.family == "toto2":  # a single series attends to itself in any case
        expected = {n for n in weights if ".layers.1." in n or ".layers.3." in n}
        expected = {n for n in expected if any(part in n for part in ("q_norm", "k_norm", "_pds"))}
    by_chance: set[str] = set()  # zero but for rounding, which depends on the processor
    if teacher.family == "t0":
        by_chance = {n for n in weights if (".layers.1." in n or ".layers.3." in n) and "_norm.scale" in n}
        by_chance = {n for n in by_chance if "q_norm" in n or "k_norm" in n}
    if teacher.family == "timesfm3":  # a single series attends to itself in any case
        by_chance = {n for n in weights if ".var_attn." in n}
        by_chance = {n for n in by_chance if any(part in n for part in ("query_", "key_", "per_dim_scale"))}
    if teacher.family == "moirai-moe":  # those of experts that no position chose
        by_chance = {n for n in weights if ".experts." in n}
        assert by_chance - idle
    if "moirai" in teacher.family:  # a bias that is the same for all keys, as those of one series are
        by_chance |= {n for n in weights if "var_attn_bias" in n}
    assert expected <= idle <= expected | by_chance


# --- histories -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 5, 9])
def test_histories_go_on_where_they_stopped(step: int) -> None:
    whole = list(islice(histories(1, 0, 6, 48), 10))
    resumed = list(islice(histories(1, step, 6, 48), 10 - step))
    for one, other in zip(resumed, whole[step:], strict=True):
        np.testing.assert_equal(one, other)
    other_seed = next(histories(2, 0, 6, 48))
    assert not np.array_equal(other_seed[0], whole[0][0])


def test_histories_are_of_the_lengths_and_sizes_of_real_ones() -> None:
    found = [x for batch in islice(histories(0, 0, 8, 512), 40) for x in batch]
    assert {len(x) for x in found} == {512, 320, 192, 96}
    assert all(np.isfinite(x).all() and x.std() > 0 and x.dtype == np.float32 for x in found)
    sizes = np.array([x.std() for x in found])
    assert sizes.min() < 1
    assert sizes.max() > 30
    assert {len(x) for x in next(histories(0, 0, 8, 16_384))} <= {2048, 1280, 768, 384}


# --- who may teach whom --------------------------------------------------------------------------


def test_only_the_original_teaches() -> None:
    bolt, times = tiny("tiny-chronos-bolt"), tiny("tiny-timesfm")
    small = smaller(times)
    check_pair(small, times)
    check_pair(prune(small, "stack.2.mlp"), small)  # a larger pruned version knows more
    short = model_copy(times)
    short.context_length = 64
    wide = model_copy(times)
    wide.module.output_projection_point = torch.nn.Linear(24, 3)
    for student, teacher, message in (
        (times, times, "is not pruned; prune it first"),
        (small, bolt, "is a timesfm model, .* a chronos-bolt model"),
        (small, short, "takes 128 steps of history, .* 64; load both"),
        (small, wide, "was not made from a model of the size of"),
        (small, prune(small, "stack.2.mlp"), "lacks components that"),
    ):
        with pytest.raises(TspruneError, match=message) as caught:
            check_pair(student, teacher)
        assert "\n" not in str(caught.value)
