"""Notes about what data and model do not use of each other.

Heads that attend over series have one key on a single series: such data do not measure them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsprune.anatomy import Component
from tsprune.data.suite import Suite
from tsprune.evaluation.batching import reading_of

if TYPE_CHECKING:
    from tsprune.models.forecast import Predictor
    from tsprune.models.forecaster import Forecaster


def heads_over_series(model: Forecaster) -> tuple[Component, ...]:
    """The heads whose queries and keys are series, not positions in time."""
    return tuple(c for c in model.anatomy.components("head") if model.anatomy.site(c).axis == "series")


def unmeasured(model: Forecaster, suite: Suite) -> tuple[str, ...]:
    """A note if the model has heads that attend over series and no window of `suite` has several, and one if
    it has past covariates that the model does not read.
    """
    return (*_single(model, suite), *unread(model, suite))


def unread(model: Predictor, suite: Suite) -> tuple[str, ...]:
    """A note if the windows of `suite` have past covariates that the model does not read."""
    return unread_note(model, suite.name) if suite.has_covariates else ()


def unread_note(model: Predictor, data: str) -> tuple[str, ...]:
    """A note about the past covariates of `data`, if the model does not read them."""
    if reading_of(model).covariates:
        return ()
    return (f"{model.name} reads no past covariates, so those of {data} are not used",)


def _single(model: Forecaster, suite: Suite) -> tuple[str, ...]:
    heads = heads_over_series(model)
    if not heads or suite.multivariate or (suite.has_covariates and model.past_covariates):
        return ()
    role = heads[0].attention
    return (
        f"{model.name}: {len(heads)} heads of {role} attention choose among series, but every window of "
        f"{suite.name} is a single series, so figures of these heads do not include that choice; measure "
        "them on multivariate data (several --target columns, or a multivariate dataset)",
    )
