"""Laws 5 and 6: replaying is computing, and removing is ablating."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from tsprune.anatomy import KINDS, Component
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import Ablation, ablate, applied
from tsprune.models import Forecaster
from tsprune.pruning import prune
from tsprune.replay import Replay
from tsprune.testing.probes import Context, CountLinear, one_head_each, ragged, spread
from tsprune.testing.subject import Output, Subject, require_close, require_equal, weight_of

_SMALL = 42  # components: each of them is tried in every way
# removals that no model allows
_REFUSALS = ("matches no component", "nothing would be left", "share keys and values")


def with_replay(
    subject: Subject, replay: Replay, chosen: tuple[Component, ...], contexts: list[Context], horizon: int
) -> Output:
    """The outputs under an ablation, with the record of the clean pass reused."""
    with applied(subject.model, Ablation(chosen)), replay.reuse("windows", chosen):
        return subject.model.forecast(contexts, horizon).quantiles


def record(subject: Subject, contexts: list[Context], horizon: int) -> Replay:
    """A record of the clean pass."""
    replay = Replay(subject.model)
    with replay.record("windows"):
        subject.model.forecast(contexts, horizon)
    return replay


def replaying_is_computing(subject: Subject) -> None:
    model, rng = subject.model, np.random.default_rng(0)
    every = model.anatomy.components()
    # a record is reused up to a sublayer, whichever of its heads is ablated
    of_kind = {kind: list(model.anatomy.components(kind)) for kind in KINDS}
    of_kind["head"] = one_head_each(model.anatomy)
    runs = zip(subject.horizons, (40, 3 if model.anatomy.tokens else 6), strict=True)
    for (horizon, most), contexts in itertools.product(runs, subject.batches):
        replay = record(subject, contexts, horizon)
        fewer = min(subject.most, most if contexts[0].ndim == 1 else most // 4)
        sets = [(c,) for found in of_kind.values() for c in spread(found, fewer)]
        sizes = [size for size in (2, 3, 5, 8) if size <= len(every)]
        several = [tuple(every[i] for i in rng.choice(len(every), size, replace=False)) for size in sizes]
        for chosen in [(), *sets, *several]:
            with ablate(model, chosen):
                expected = model.forecast(contexts, horizon).quantiles
            actual = with_replay(subject, replay, chosen, contexts, horizon)
            require_equal(actual, expected, [str(c) for c in chosen])


def nothing_upstream_is_computed_again(subject: Subject) -> None:
    """Without this, law 5 would hold for a replay that does nothing."""
    anatomy, contexts = subject.model.anatomy, ragged(subject.model, 3)
    replay = record(subject, contexts, 1)
    sites = list(anatomy.sites())

    def computed(chosen: tuple[Component, ...]) -> list[str]:
        """Attention modules whose queries are computed, not replayed."""
        with CountLinear(*(weight_of(subject.model, site.query.module) for _, site in sites)) as counter:
            with_replay(subject, replay, chosen, contexts, 1)
        return [site.module for (_, site), count in zip(sites, counter.counts, strict=True) if count]

    last = anatomy.components("mlp")[-1:]
    if last and last[0].layer == anatomy.stacks[-1].numbers[-1]:
        assert computed(last) == [], f"under {last[0]}: attention is computed again"
    for index, (sublayer, site) in enumerate(sites):
        if site.heads:
            head = dataclasses.replace(sublayer, head=site.numbers[0])
            found, expected = computed((head,)), [later.module for _, later in sites[index + 1 :]]
            assert found == expected, f"under {head}: computes {found}, expected {expected}"


def named_plans(model: Forecaster) -> dict[str, list[str]]:
    """Removals that some upstream code is particular about: caches, first layers, shared biases."""
    plans = {}
    for stack in model.anatomy.stacks:
        name, first, last = stack.name, stack.numbers[0], stack.numbers[-1]
        plans[f"{name}: first layer"] = [f"{name}.{first}"]
        plans[f"{name}: last layer"] = [f"{name}.{last}"]
        plans[f"{name}: all layers but the last"] = [f"{name}.{i}" for i in stack.numbers[:-1]]
        plans[f"{name}: all MLPs"] = [f"{name}.*.mlp"]
        plans[f"{name}: first head of all"] = [f"{name}.*.*.head.0"]
        for role in sorted({site.role for block in stack.blocks for site in block.attention}):
            plans[f"{name}: {role}, all"] = [f"{name}.*.{role}"]
            plans[f"{name}: {role}, heads"] = [f"{name}.*.{role}.head.*"]
            place = next(i for i, b in stack.numbered() if any(s.role == role for s in b.attention))
            plans[f"{name}: {role}, first"] = [f"{name}.{place}.{role}"]
            plans[f"{name}: {role}, first but one head"] = [f"{name}.{place}.{role}.head.[1-9]"]
    return {name: plan for name, plan in plans.items() if plan}


def pruning_is_ablating(subject: Subject) -> None:
    """Up to rounding, the model without some components computes as the model with them ablated."""
    model, rng = subject.model, np.random.default_rng(1)
    plans = spread([*named_plans(model).values()], subject.most)
    every = model.anatomy.components()
    for size in (2, max(2, len(every) // 6), max(2, len(every) // 3)):
        plans.append([str(every[i]) for i in rng.choice(len(every), size, replace=False)])
    within, beyond = subject.horizons
    # where each step is a pass, and in models with more of the same, one plan in four goes on
    seldom = model.anatomy.tokens or len(every) > _SMALL
    done = 0
    for number, plan in enumerate(plans):
        horizon = within if seldom and number % 4 else beyond
        try:
            with ablate(model, plan):
                expected = subject.exact_outputs(horizon)
            pruned = dataclasses.replace(subject, model=prune(model, plan))
            for actual, wanted in zip(pruned.exact_outputs(horizon), expected, strict=True):
                require_close(actual, wanted, plan)
            done += 1
        except TspruneError as error:
            if not any(refusal in str(error) for refusal in _REFUSALS):
                raise
    assert done, "no plan could be carried out"
