"""Any input, ablation or weight gives a finite forecast, or one line of TspruneError."""

from __future__ import annotations

import decimal
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.suites import tiny
from tests.threads import single_thread
from tests.tiny import few_samples, output_patch
from tsprune.choices import MODES
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import ablate
from tsprune.hooks.capture import reference
from tsprune.models import Forecaster
from tsprune.models.contexts import checked_contexts
from tsprune.models.variates import rows_of
from tsprune.scores import score_table

FAMILIES = ("chronos-bolt", "chronos-t5", "chronos2", "timesfm", "toto", "moirai", "moirai2")
Fuzzed = Callable[..., None]


def fuzzed(examples: int) -> Callable[[Fuzzed], Fuzzed]:
    """The same examples at every run, however long they take."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=checks
    )


@functools.cache
def model_of(family: str) -> Forecaster:
    return few_samples(tiny(f"tiny-{family}"))


def answer(call: Callable[[], Any]) -> Any:
    """What `call` returns, None if it refuses in one line; anything else that it raises is a failure."""
    with single_thread():
        try:
            return call()
        except TspruneError as error:
            refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) < 400
    return None


def is_finite(model: Forecaster, contexts: Any, horizon: Any) -> bool:
    """Whether there is a forecast; if so, every number of it is finite."""
    forecast = answer(lambda: model.forecast(contexts, horizon))
    if forecast is not None:
        assert np.isfinite(forecast.quantiles).all()
        assert forecast.samples is None or np.isfinite(forecast.samples).all()
        rows = len(rows_of(checked_contexts(contexts)))  # a matrix is a row per variate
        assert forecast.quantiles.shape == (rows, len(forecast.levels), int(horizon))
    return forecast is not None


# --- contexts and horizons -----------------------------------------------------------------------

numbers = st.one_of(
    st.floats(width=32),
    st.floats(-100, 100, width=16),
    st.integers(-(10**40), 10**40),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -3e38, 0.0, 1e-45, None, True, 10**400, pd.NA]),
)
plain = st.lists(st.floats(-30000, 30000, width=32), min_size=1, max_size=90)
series = st.one_of(
    plain,
    st.lists(numbers, max_size=40),
    st.builds(lambda x, kind: np.array(x).astype(kind), plain, st.sampled_from("fdeil?FSUMmO")),
    st.builds(lambda x, every: np.ma.array(x, mask=np.arange(len(x)) % every == 0), plain, st.integers(1, 4)),
    st.builds(
        lambda x, kind, grad: torch.tensor(x).to(kind).requires_grad_(grad and kind.is_floating_point),
        plain,
        st.sampled_from(
            [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.complex64, torch.bool]
        ),
        st.booleans(),
    ),
    st.builds(lambda x, index: pd.Series(x, index=np.arange(len(x)) + index), plain, st.integers(0, 9)),
    st.builds(lambda x: pd.array([None, *map(int, x)], dtype="Int64"), plain),
    st.builds(lambda x: pd.Categorical(x), plain),
    st.builds(lambda x: pa.array([None, *x]), plain),
    st.builds(lambda x: [decimal.Decimal(value) for value in x], plain),
    st.builds(lambda x, rows: np.array([x] * rows), plain, st.integers(0, 3)),
    st.sampled_from(
        [None, "text", b"bytes", 3, 2.5, {}, {1: 2}, set(), object(), [[1, 2], [3]], [], ["1", "2"]]
    ),
)
contexts = st.one_of(
    st.lists(series, max_size=3),
    st.lists(plain, min_size=1, max_size=3),
    st.builds(np.array, plain),
    st.sampled_from(
        [None, 1, "text", (), {}, {"a": [1.0]}, range(5), np.ones((2, 9)), torch.ones(2, 9), np.ones(4)]
    ),
)
horizons = st.one_of(
    st.integers(1, 12),
    st.sampled_from([np.int64(3), np.array(2), torch.tensor(2)]),
    st.sampled_from([0, -1, 10**9, 10**30, "4", None, 2.5, np.nan, True, np.True_, [3], b"3", 1j]),
)


@fuzzed(210)
@given(st.sampled_from(FAMILIES), contexts, horizons)
def test_any_contexts_and_horizons(family: str, contexts: Any, horizon: Any) -> None:
    is_finite(model_of(family), contexts, horizon)


@fuzzed(30)
@given(st.lists(series, min_size=1, max_size=2), st.one_of(st.just(3), horizons))
def test_all_families_refuse_the_same(contexts: Any, horizon: Any) -> None:
    """But for values that one network can take and another one cannot."""

    def refused(family: str) -> str:
        try:
            model_of(family).forecast(contexts, horizon)
        except TspruneError as error:
            return "" if "not finite" in str(error) else str(error)
        return ""

    with single_thread():
        assert len({refused(family) for family in ("chronos-bolt", "timesfm", "moirai2")}) == 1


@fuzzed(30)
@given(st.sampled_from(FAMILIES), plain, st.lists(st.integers(0, 89), min_size=1, max_size=9), st.data())
def test_infinite_masked_and_none_are_missing(
    family: str, values: list[float], holes: list[int], data: st.DataObject
) -> None:
    values = [*values, 1.0]
    missing = sorted({hole % (len(values) - 1) for hole in holes})
    gaps = np.array(values)
    gaps[missing] = np.nan
    filled: list[Any] = [np.array(values), np.ma.array(values), [*values]]
    filled[0][missing] = data.draw(st.sampled_from([np.inf, -np.inf]))
    filled[1][missing] = np.ma.masked
    for place in missing:
        filled[2][place] = None
    model = model_of(family)
    with single_thread():
        expected = model.forecast([gaps], 4).quantiles
        np.testing.assert_array_equal(
            model.forecast([data.draw(st.sampled_from(filled))], 4).quantiles, expected
        )


# --- ablations -----------------------------------------------------------------------------------

words = st.sampled_from(
    ["*", "encoder", "decoder", "stack", "0", "1", "9", "self", "cross", "head", "mlp", "?", "[", ""]
)
patterns = st.one_of(
    st.lists(words, min_size=1, max_size=5).map(".".join),
    st.sampled_from(["*.*.mlp", "*.*.*.head.*", "*.0", "*.*", "*.*.*", "*.1.*.head.0", "*.0.*"]),
    st.text(max_size=12),
    st.sampled_from([None, 3, [], [None], b"*", object()]),
)


@functools.cache
def recorded(family: str) -> Any:
    model = model_of(family)
    return reference(model, list(np.random.default_rng(0).standard_normal((3, model.context_length))))


@fuzzed(60)
@given(
    st.sampled_from(FAMILIES),
    st.one_of(patterns, st.lists(patterns, max_size=3)),
    st.one_of(st.sampled_from(MODES), st.sampled_from(["", "none", None, 1])),
    st.one_of(st.integers(0, 3), st.sampled_from([-1, None, "1", 2.5])),
)
def test_any_selection_mode_and_seed(family: str, pattern: Any, mode: Any, seed: Any) -> None:
    model, history = model_of(family), [np.sin(np.arange(40))]

    def ablated() -> bool:
        with ablate(model, pattern, mode=mode, seed=seed, reference=recorded(family)):
            return is_finite(model, history, 3)

    before = model.forecast(history, 3).quantiles
    answer(ablated)
    np.testing.assert_array_equal(model.forecast(history, 3).quantiles, before)


# --- weights -------------------------------------------------------------------------------------


@fuzzed(70)
@given(
    st.sampled_from(FAMILIES),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -1e30]),
    st.booleans(),
)
def test_any_weight_that_is_not_finite(
    family: str, which: int, place: int, value: float, whole: bool
) -> None:
    model = model_of(family)
    named = [*model.module.named_parameters()]
    _, weight = named[which % len(named)]
    before = weight.detach().clone()
    history = [np.cos(np.arange(50) / 3), np.arange(7.0)]
    try:
        with torch.no_grad():
            flat = weight.view(-1)
            flat[... if whole else place % len(flat)] = value
        is_finite(model, history, 3)
        is_finite(model, history[:1], output_patch(model) + 2)
        output = answer(lambda: model.teacher_forced(history))
        assert output is None or bool(torch.isfinite(output).all())
        scores = answer(lambda: score_table(model, kinds=["head", "mlp"]))
        assert np.isfinite(value) or scores is None
    finally:
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_at_once(family: str) -> None:
    model = model_of(family)
    before = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    try:
        with torch.no_grad():
            for weight in model.module.parameters():
                weight.fill_(torch.nan)
        assert not is_finite(model, [np.arange(20.0)], 3)
        assert answer(lambda: model.teacher_forced([np.arange(20.0)])) is None
    finally:
        model.module.load_state_dict(before)
