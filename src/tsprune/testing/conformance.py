"""`check_conformance`: one model against all laws, with a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from tsprune.errors import TspruneError, one_line
from tsprune.models.forecaster import Forecaster, SamplingForecaster
from tsprune.testing.forecast_checks import forecasts_are_upstreams
from tsprune.testing.laws import LAWS, Law
from tsprune.testing.probes import pristine
from tsprune.testing.subject import Attend, Subject, Upstream, attend_alone

_SAMPLES = 6  # paths a window: the laws hold for any number


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
) -> Conformance:
    """Holds `model` against every law; the model is supported if all hold.

    Meant for a model of some thousand parameters with random weights, where it takes seconds.
    Nothing may be at a trivial value in it (biases at zero, norms at one): a mistake there would not show.

    upstream : (contexts, horizon) -> quantiles [B, Q, H] by the upstream package alone; None: the
        comparison is left out
    attend : (model, site, tokens) calls one attention module on tokens [N, 1, d_model]
    one_pass : steps that one pass of the network forecasts; None: `model.readout_horizon`
    tolerance : of the comparison with upstream, relative to the largest value

    The returned `Conformance` prints as a report; its `require()` raises TspruneError if a law is broken.

    >>> import tsprune
    >>> from tsprune.testing import LAWS
    >>> len(LAWS)
    8
    """
    steps = model.readout_horizon if one_pass is None else one_pass
    subject = Subject(model, steps, upstream, attend, tolerance)
    with _few_samples(model):
        findings = tuple(Finding(law, broken_checks(law, subject)) for law in LAWS)
    unchecked = () if upstream is not None else (f"{forecasts_are_upstreams.__name__}: pass `upstream`",)
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


@contextmanager
def _few_samples(model: Forecaster) -> Iterator[None]:
    if not isinstance(model, SamplingForecaster):
        yield
        return
    before = model.samples
    model.samples = min(before, _SAMPLES)
    try:
        yield
    finally:
        model.samples = before
