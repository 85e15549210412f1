"""A model on trial, and comparisons that raise AssertionError."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsprune.anatomy import AttentionSite
from tsprune.models import Forecaster
from tsprune.testing.probes import Context, double_precision, multivariate, ragged

# Of the largest value. Sums over fewer columns are rounded differently, by 1e-16 in float64, and some
# upstream code and the forecast itself are rounded to float32: 6e-8, twice where a value is at an edge.
EXACTNESS = 1e-6
Output = NDArray[Any]
Upstream = Callable[[Sequence[Context], int], Output]
Attend = Callable[[Forecaster, AttentionSite, Tensor], Any]


def attend_alone(model: Forecaster, site: AttentionSite, tokens: Tensor) -> None:
    """Calls the attention module of `site` on `tokens` [N, 1, d_model], as most modules are called."""
    module = model.module.get_submodule(site.module)
    module(tokens, **({"key_value_states": tokens} if site.keys_from is not None else {}))


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model on trial, and facts about it that its anatomy does not hold.

    one_pass : steps that one pass of the network forecasts; longer horizons are tried, too
    upstream : (contexts, horizon) -> quantiles [B, Q, H] from the upstream package alone, for law 1
    attend : calls one attention module on N sequences of one position, [N, 1, d_model], for law 8
    tolerance : of law 1, relative to the largest value; 0: to the last bit
    most : components of a kind, and plans of removals, that are tried one by one; those of one kind are
        spread evenly over the model
    """

    model: Forecaster
    one_pass: int = 1
    upstream: Upstream | None = None
    attend: Attend = attend_alone
    tolerance: float = 0.0
    most: int = 30

    @property
    def horizons(self) -> tuple[int, int]:
        """One within a pass of the network and one beyond it; few steps where each is a pass."""
        within = max(1, self.one_pass - 3)
        few = self.model.anatomy.tokens
        return (min(within, 6), self.one_pass + 2) if few else (within, self.one_pass + 5)

    @property
    def batches(self) -> list[list[Context]]:
        """Series to forecast together, and multivariate ones if the model reads variates together."""
        single = [ragged(self.model, 3)]
        return [*single, multivariate(self.model)] if self.model.multivariate else single

    def outputs(self, horizon: int, contexts: Sequence[Context] | None = None) -> Output:
        """Quantiles of forecasts, flat; of a vocabulary also the logits, as equal tokens are often drawn."""
        return np.concatenate(self._parts(horizon, self.batches if contexts is None else [contexts]))

    def exact_outputs(self, horizon: int) -> list[Output]:
        """The same, computed in float64, one array for each batch and kind of output."""
        with double_precision(self.model):
            return self._parts(horizon, self.batches)

    def _parts(self, horizon: int, batches: list[Sequence[Context]] | list[list[Context]]) -> list[Output]:
        found = [self.model.forecast(series, horizon).quantiles.ravel() for series in batches]
        if self.model.anatomy.tokens:
            with torch.no_grad():
                found += [self.model.teacher_forced(series).numpy(force=True).ravel() for series in batches]
        return found


Check = Callable[[Subject], None]


def require_equal(actual: Output, expected: Output, what: object) -> None:
    np.testing.assert_array_equal(actual, expected, err_msg=str(what))


def require_close(actual: Output, expected: Output, what: object = "", tolerance: float = EXACTNESS) -> None:
    assert actual.shape == expected.shape, f"{what}: shapes {actual.shape} and {expected.shape}"
    limit = tolerance * float(np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit, err_msg=str(what))


def weight_of(model: Forecaster, module: str) -> nn.Parameter:
    return model.module.get_submodule(module).get_parameter("weight")
