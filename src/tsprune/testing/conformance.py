"""The laws that every model obeys, and `check_conformance`: one model against all of them.

Each check raises AssertionError where the model breaks its law. Laws hold exactly where nothing is rounded,
and in float64 up to `EXACTNESS` where sums are ordered differently. A check never takes the anatomy's word:
weights are set to zero by hand, projections are counted, and stable ranks come from the q . k that the
attention module really computes.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

from tsprune.errors import TspruneError, one_line
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.testing import ablation_checks, forecast_checks, rank_checks, removal_checks
from tsprune.testing.probes import pristine
from tsprune.testing.subject import Attend, Check, Subject, Upstream, attend_alone

_SAMPLES = 6  # paths a window: the laws hold for any number


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
            forecast_checks.forecasts_are_upstreams,
            forecast_checks.variates_are_read_as_declared,
            forecast_checks.forecasts_are_finite_and_repeatable,
            forecast_checks.a_series_is_forecast_alike_in_any_batch,
            forecast_checks.history_beyond_the_context_is_ignored,
        ),
    ),
    Law(
        2,
        "an empty ablation changes nothing, and nothing is left of any ablation",
        "a hook or a patched attribute of the family's own code",
        (
            ablation_checks.an_empty_ablation_is_the_identity,
            ablation_checks.nothing_is_left_of_an_ablation,
            ablation_checks.nothing_is_left_after_an_error,
        ),
    ),
    Law(
        3,
        "ablating a component is setting its weights to zero",
        "a wrong output projection, heads that are not contiguous in its input, or a sublayer left out",
        (
            ablation_checks.columns_belong_to_one_head_each,
            ablation_checks.ablating_is_zeroing_weights,
            ablation_checks.ablating_several_is_zeroing_all_their_weights,
            ablation_checks.an_ablated_layer_passes_its_input_on,
        ),
    ),
    Law(
        4,
        "every component changes the network's output",
        "a path that is not on the way to the forecast",
        (ablation_checks.every_component_matters,),
    ),
    Law(
        5,
        "replaying a clean pass is computing it",
        "a block whose output depends on more than its arguments",
        (removal_checks.replaying_is_computing, removal_checks.nothing_upstream_is_computed_again),
    ),
    Law(
        6,
        "a pruned model is the ablated model",
        "a size attribute, a parameter per head or a cache that keeps the old size",
        (removal_checks.pruning_is_ablating,),
    ),
    Law(
        7,
        "a saved model loads again and forecasts the same",
        "a tensor or a setting that is not written, or a family that is not registered",
        (forecast_checks.saving_and_loading_is_the_identity,),
    ),
    Law(
        8,
        "stable ranks are those of the q . k that the model computes",
        "wrong rows of q or k, or a factor on them that the anatomy does not name",
        (rank_checks.stable_ranks_are_of_what_the_model_computes,),
    ),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One law, held against a model.

    problems : by name of the check that failed: its message, in one line
    """

    law: Law
    problems: dict[str, str]

    @property
    def holds(self) -> bool:
        return not self.problems


@dataclasses.dataclass(frozen=True)
class Conformance:
    """Which laws a model obeys.

    unchecked : checks that were left out, and why
    """

    model: str
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no law that was checked is broken."""
        return all(finding.holds for finding in self.findings)

    def require(self) -> None:
        """Raises TspruneError, with the whole report, if a law is broken."""
        if not self.holds:
            raise TspruneError(str(self))

    def __str__(self) -> str:
        lines = [f"{self.model}: {'conforms' if self.holds else 'does not conform'}"]
        for finding in self.findings:
            law = finding.law
            lines.append(f"{'ok    ' if finding.holds else 'BROKEN'} law {law.number}: {law.title}")
            lines += [f"         {name}: {problem}" for name, problem in finding.problems.items()]
            lines += [] if finding.holds else [f"         usual cause: {law.hint}"]
        return "\n".join([*lines, *(f"not checked: {what}" for what in self.unchecked)])


def check_conformance(
    model: Forecaster,
    *,
    upstream: Upstream | None = None,
    attend: Attend = attend_alone,
    one_pass: int | None = None,
    tolerance: float = 0.0,
    most: int = 30,
) -> Conformance:
    """Holds `model` against every law; the model is supported if all hold.

    Meant for a model of some thousand parameters with random weights, where it takes seconds.
    Nothing may be at a trivial value in it (biases at zero, norms at one): a mistake there would not show.

    upstream : (contexts, horizon) -> quantiles [B, Q, H] by the upstream package alone; None: the
        comparison is left out
    attend : (model, site, tokens) calls one attention module on tokens [N, 1, d_model]
    one_pass : steps that one pass of the network forecasts; None: `model.readout_horizon`
    tolerance : of the comparison with upstream, relative to the largest value
    most : components of a kind, and plans of removals, that are tried one by one; fewer are faster

    The returned `Conformance` prints as a report; its `require()` raises TspruneError if a law is broken.

    >>> import tsprune
    >>> from tsprune.testing import LAWS
    >>> len(LAWS)
    8
    """
    steps = model.readout_horizon if one_pass is None else one_pass
    subject = Subject(model, steps, upstream, attend, tolerance, most)
    with ExitStack() as restored:
        if isinstance(model, SamplingForecaster):
            restored.callback(setattr, model, "samples", model.samples)
            model.samples = min(model.samples, _SAMPLES)
        findings = tuple(Finding(law, broken_checks(law, subject)) for law in LAWS)
    left_out = f"{forecast_checks.forecasts_are_upstreams.__name__}: pass `upstream`"
    unchecked = (left_out,) if upstream is None else ()
    return Conformance(model.name, findings, unchecked)


def broken_checks(law: Law, subject: Subject) -> dict[str, str]:
    """The checks of a law that fail, by name, each with the reason in one line."""
    problems: dict[str, str] = {}
    for check in law.checks:
        try:
            with pristine(subject.model):
                check(subject)
        except Exception as error:  # upstream code under a wrong anatomy may raise anything
            detail = one_line(error, 300) or type(error).__name__
            expected = isinstance(error, AssertionError | TspruneError)
            problems[check.__name__] = detail if expected else f"{type(error).__name__}: {detail}"
    return problems
