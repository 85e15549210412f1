"""The laws that every model obeys. Each check raises AssertionError where the model breaks its law.

Laws hold exactly where nothing is rounded, and in float64 up to `EXACTNESS` where sums are ordered
differently. A check never takes the anatomy's word: weights are set to zero by hand, projections are
counted, and stable ranks come from the q . k that the attention module really computes.
"""

from __future__ import annotations

import dataclasses

from tsprune.testing.ablation_checks import (
    ablating_is_zeroing_weights,
    ablating_several_is_zeroing_all_their_weights,
    an_ablated_layer_passes_its_input_on,
    an_empty_ablation_is_the_identity,
    columns_belong_to_one_head_each,
    every_component_matters,
    nothing_is_left_after_an_error,
    nothing_is_left_of_an_ablation,
)
from tsprune.testing.forecast_checks import (
    a_series_is_forecast_alike_in_any_batch,
    forecasts_are_finite_and_repeatable,
    forecasts_are_upstreams,
    history_beyond_the_context_is_ignored,
    saving_and_loading_is_the_identity,
)
from tsprune.testing.rank_checks import stable_ranks_are_of_what_the_model_computes
from tsprune.testing.removal_checks import (
    nothing_upstream_is_computed_again,
    pruning_is_ablating,
    replaying_is_computing,
)
from tsprune.testing.subject import Check


@dataclasses.dataclass(frozen=True)
class Law:
    """A law: its number in the documentation, its demand, and its checks.

    hint : the usual cause of a failure
    """

    number: int
    title: str
    hint: str
    checks: tuple[Check, ...]


LAWS: tuple[Law, ...] = (
    Law(
        1,
        "a forecast is the upstream pipeline's",
        "other settings than upstream's, an input that upstream edits in place, or padding that is seen",
        (
            forecasts_are_upstreams,
            forecasts_are_finite_and_repeatable,
            a_series_is_forecast_alike_in_any_batch,
            history_beyond_the_context_is_ignored,
        ),
    ),
    Law(
        2,
        "an empty ablation changes nothing, and nothing is left of any ablation",
        "a hook or a patched attribute of the family's own code",
        (an_empty_ablation_is_the_identity, nothing_is_left_of_an_ablation, nothing_is_left_after_an_error),
    ),
    Law(
        3,
        "ablating a component is setting its weights to zero",
        "a wrong output projection, heads that are not contiguous in its input, or a sublayer left out",
        (
            columns_belong_to_one_head_each,
            ablating_is_zeroing_weights,
            ablating_several_is_zeroing_all_their_weights,
            an_ablated_layer_passes_its_input_on,
        ),
    ),
    Law(
        4,
        "every component changes the network's output",
        "a path that is not on the way to the forecast",
        (every_component_matters,),
    ),
    Law(
        5,
        "replaying a clean pass is computing it",
        "a block whose output depends on more than its arguments",
        (replaying_is_computing, nothing_upstream_is_computed_again),
    ),
    Law(
        6,
        "a pruned model is the ablated model",
        "a size attribute, a parameter per head or a cache that keeps the old size",
        (pruning_is_ablating,),
    ),
    Law(
        7,
        "a saved model loads again and forecasts the same",
        "a tensor or a setting that is not written, or a family that is not registered",
        (saving_and_loading_is_the_identity,),
    ),
    Law(
        8,
        "stable ranks are those of the q . k that the model computes",
        "wrong rows of q or k, or a factor on them that the anatomy does not name",
        (stable_ranks_are_of_what_the_model_computes,),
    ),
)
