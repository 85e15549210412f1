"""Heads that attend over series have one key on a single series: such data do not measure them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsprune.anatomy import Component
from tsprune.data.suite import Suite

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecaster


def heads_over_series(model: Forecaster) -> tuple[Component, ...]:
    """The heads whose queries and keys are series, not positions in time."""
    return tuple(c for c in model.anatomy.components("head") if model.anatomy.site(c).axis == "series")


def unmeasured(model: Forecaster, suite: Suite) -> tuple[str, ...]:
    """A note if the model has heads that attend over series and no window of `suite` has several variates."""
    heads = heads_over_series(model)
    if not heads or suite.multivariate:
        return ()
    role = heads[0].attention
    return (
        f"{model.name}: {len(heads)} heads of {role} attention choose among series, but every window of "
        f"{suite.name} is a single series, so figures of these heads do not include that choice; measure "
        "them on multivariate data (several --target columns, or a multivariate dataset)",
    )
