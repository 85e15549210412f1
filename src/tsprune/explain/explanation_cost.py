"""The cost of an explanation, counted in forecasts whose time is known."""

from __future__ import annotations

from collections.abc import Sequence

from tsprune.data.suite import Suite
from tsprune.evaluation import Batch, shared_batches
from tsprune.evaluation.batching import reading_of
from tsprune.evaluation.sampling import sampled
from tsprune.explain.attribution.residual_stream import GUARDED
from tsprune.explain.chaotic import PER_SYSTEM
from tsprune.explain.mechanism import LADDER, RANDOM_SETS, SET_SHARES
from tsprune.explain.overview import windows_to_forecast
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import BATCH_SIZE, MEMORY
from tsprune.sweeps.cell_plan import make_plan
from tsprune.sweeps.cost_estimate import StageCost, SweepRates, measured_rates

# passes of the network that each window takes where attention and the stream are watched, and seconds of
# what does not grow with the model: intervals, tables, calls
_PASSES = {"attention": 1.5, "residual": 1.0, "attribution": 3.0}
_SECONDS = {
    "attention": 4.0, "induction": 3.0, "attribution": 1.0, "effects": 4.0, "chaos": 3.0, "portraits": 1.0,
}  # fmt: skip
_INDUCTION_PASSES = 6.0  # of 64 windows of an eighth of the context
_CHAOS_SETS = 5


def explanation_seconds(
    model: Forecaster,
    rates: SweepRates,
    suite: Suite,
    per_configuration: int,
    *,
    sets: int,
    trajectories: Suite | None = None,
    batch_size: int = 64,
    contention: float = 1.0,
) -> dict[str, float]:
    """Stage of `overview` -> expected seconds.

    rates : of forecasts of this model on windows like those of `suite`
    sets : number of sets of heads that are ablated together, the ladder of sharp sets not counted
    contention : factor on work that was not timed, of a machine that other work shares
    """

    def batches(some: Suite) -> list[Batch]:
        return shared_batches(
            some.configurations,
            context_length=model.context_length,
            batch_size=batch_size,
            prefix_steps=model.prefix_steps,
            reading=reading_of(model),
        )

    def without(some: Sequence[Batch], ablations: Sequence[Ablation]) -> float:
        return sum(rates.seconds(batch, ablations) for batch in some)

    seen = sampled(suite, model, per_configuration)
    windows, one = max(1, len(seen)), rates.forward(batches(seen))
    layers = len(model.anatomy.stacks[-1].blocks)
    found = {stage: passes * one for stage, passes in _PASSES.items()}
    found["lens"] = (layers + 2) * one
    found["guard"] = (2 * layers + 1) * one * min(1.0, GUARDED / windows)
    found["induction"] = _INDUCTION_PASSES * one * min(1.0, 8 / windows)
    heads = [Ablation((head,)) for head in model.anatomy.components("head")]
    forecast = batches(sampled(suite, model, windows_to_forecast(model, per_configuration)))
    found["effects"] = without(forecast, [*heads, *heads[:1] * (sets + len(LADDER))])
    found["portraits"] = without(forecast, heads[:1] * 3)
    if trajectories is not None:
        orbits = batches(sampled(trajectories, model, windows_to_forecast(model, PER_SYSTEM)))
        found["chaos"] = rates.forward(orbits) + without(orbits, heads[:1] * (_CHAOS_SETS + len(LADDER)))
    fixed = {stage: seconds for stage, seconds in _SECONDS.items() if stage != "chaos" or trajectories}
    return {stage: found.get(stage, 0.0) + contention * fixed.get(stage, 0.0) for stage in {**found, **fixed}}


def explanation_costs(
    model: Forecaster,
    suite: Suite,
    per_configuration: int,
    *,
    effects: bool = True,
    trajectories: Suite | None = None,
    batch_size: int = BATCH_SIZE,
    memory: int = MEMORY,
) -> list[StageCost]:
    """The stages of `overview` with these arguments; times a few forecasts."""
    heads = [Ablation((head,)) for head in model.anatomy.components("head")]
    seen = sampled(suite, model, per_configuration)
    plan = make_plan(model, seen, heads, batch_size=batch_size, memory=memory)
    rates = measured_rates(model, plan, plan.units(), memory=memory)
    peak = rates.peak_bytes(model, plan.batches, memory)
    sets = len(SET_SHARES) * (2 + RANDOM_SETS)
    seconds = explanation_seconds(
        model, rates, suite, per_configuration, sets=sets, trajectories=trajectories, batch_size=batch_size
    )
    left_out = () if effects else ("effects",)
    return [StageCost(stage, 0, one, peak) for stage, one in seconds.items() if stage not in left_out]
