"""Laws 1 and 7: forecasts are upstream's, also after the model was saved and loaded."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from tsprune.models import SamplingForecaster, load
from tsprune.pruning import prune
from tsprune.testing.probes import double_precision, full_length, multivariate, ragged
from tsprune.testing.subject import Subject, require_close, require_equal


def forecasts_are_upstreams(subject: Subject) -> None:
    if subject.upstream is None:
        return
    for horizon, count in ((max(1, subject.one_pass - 3), 6), (subject.one_pass + 5, 3)):
        contexts = ragged(subject.model, count)
        actual = subject.model.forecast(contexts, horizon).quantiles
        expected = subject.upstream([x.copy() for x in contexts], horizon)
        require_close(actual, expected, f"horizon {horizon}", subject.tolerance)
        if subject.model.multivariate:
            several = multivariate(subject.model, 2)
            actual = subject.model.forecast(several, horizon).quantiles
            expected = subject.upstream([x.copy() for x in several], horizon)
            require_close(actual, expected, f"variates, horizon {horizon}", subject.tolerance)


def variates_are_read_as_declared(subject: Subject) -> None:
    """Together, so that they change each other's forecasts, or each as a series of its own."""
    model, (context,) = subject.model, multivariate(subject.model)
    together = model.forecast([context], 4).quantiles
    alone = model.forecast(list(context), 4).quantiles
    assert together.shape == alone.shape, "a multivariate context has not one forecast per variate"
    if not model.multivariate:
        require_equal(together, alone, "variates, which the family does not read together")
        return
    for variate, (one, other) in enumerate(zip(together, alone, strict=True)):
        assert not np.array_equal(one, other), f"the others do not change the forecast of variate {variate}"
    with double_precision(model):
        mixed = model.forecast([context[0], context, context[1]], 4).quantiles
        whole = model.forecast([context], 4).quantiles
    require_close(mixed[1:-1], whole, "beside single series")
    if model.past_covariates:
        given: Any = {"target": context[0], "past_covariates": context[1:]}
        beside = model.forecast([given, context[0]], 4).quantiles
        assert len(beside) == 2, "a context with past covariates has not one forecast per target"
        assert not np.array_equal(*beside), "past covariates do not change the forecast"


def forecasts_are_finite_and_repeatable(subject: Subject) -> None:
    contexts = ragged(subject.model)
    kept = [x.copy() for x in contexts]
    state = torch.get_rng_state()
    first, second = (subject.model.forecast(contexts, 4) for _ in range(2))
    assert first.quantiles.dtype == np.float32, "quantiles are not float32"
    assert first.quantiles.shape == (len(contexts), len(first.levels), 4), "the forecast's shape is wrong"
    assert np.isfinite(first.quantiles).all(), "the forecast is not finite"
    require_equal(first.quantiles, second.quantiles, "the same forecast twice")
    assert torch.equal(torch.get_rng_state(), state), "torch's global random state was changed"
    for context, before in zip(contexts, kept, strict=True):
        require_equal(context, before, "the caller's series was changed")


def a_series_is_forecast_alike_in_any_batch(subject: Subject) -> None:
    model, contexts, order = subject.model, ragged(subject.model), [3, 0, 5, 2, 4, 1]
    with double_precision(model):
        together = model.forecast(contexts, 6).quantiles
        shuffled = model.forecast([contexts[i] for i in order], 6).quantiles
        alone = np.concatenate([model.forecast([context], 6).quantiles for context in contexts])
    require_close(shuffled, together[order], "in another order")
    require_close(alone, together, "one by one")


def history_beyond_the_context_is_ignored(subject: Subject) -> None:
    (context,) = full_length(subject.model, 1)
    longer = np.concatenate([np.full(37, 1e4, dtype=np.float32), context])
    require_equal(subject.outputs(5, [longer]), subject.outputs(5, [context]), "37 more steps in front")


def saving_and_loading_is_the_identity(subject: Subject) -> None:
    model, contexts = subject.model, ragged(subject.model, 3)
    head = model.anatomy.components("head")[0]
    site = model.anatomy.site(head)
    key = site.key_head(cast(int, head.head))  # heads that share keys and values are removed together
    removable = [str(dataclasses.replace(head, head=h)) for h in site.numbers if site.key_head(h) == key]
    with tempfile.TemporaryDirectory() as folder:
        for name, original in {"whole": model, "pruned": prune(model, removable)}.items():
            original.save(Path(folder) / name)
            copy = load(Path(folder) / name, device=str(model.device))
            if isinstance(copy, SamplingForecaster) and isinstance(original, SamplingForecaster):
                copy.samples, copy.seed = original.samples, original.seed
            assert copy.family == original.family, f"{name}: loads as {copy.family}"
            assert copy.anatomy == original.anatomy, f"{name}: another anatomy"
            assert copy.context_length == original.context_length, f"{name}: another context length"
            for path, tensor in original.module.state_dict().items():
                assert torch.equal(copy.module.state_dict()[path], tensor), f"{name}: {path} differs"
            expected = original.forecast(contexts, subject.horizons[1]).quantiles
            require_equal(copy.forecast(contexts, subject.horizons[1]).quantiles, expected, name)
