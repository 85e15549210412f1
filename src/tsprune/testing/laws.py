"""The laws that every model obeys. Each check raises AssertionError where the model breaks its law.

Laws hold exactly where nothing is rounded, and in float64 up to `ROUNDING` where sums are ordered
differently. A check never takes the anatomy's word: weights are set to zero by hand, projections are
counted, and stable ranks come from the q . k that the attention module really computes.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsprune.anatomy import KINDS, AttentionSite, Component
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import MODES, Ablation, ablate, applied
from tsprune.hooks.stream import streams
from tsprune.models import Forecaster, SamplingForecaster, load
from tsprune.models.substitution import substituted_forwards
from tsprune.pruning import prune
from tsprune.replay import Replay
from tsprune.scores.stable_rank import stable_ranks
from tsprune.testing.probes import (
    CountLinear,
    QueriesAndKeys,
    Series,
    double_precision,
    full_length,
    pristine,
    ragged,
    spread,
    zeroed,
)

# Of the largest value. Sums over fewer columns are rounded differently, by 1e-16 in float64, and some
# upstream code and the forecast itself are rounded to float32: 6e-8, twice where a value is at an edge.
ROUNDING = 1e-6
Values = NDArray[Any]
Upstream = Callable[[Sequence[Series], int], Values]
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
    """

    model: Forecaster
    one_pass: int = 1
    upstream: Upstream | None = None
    attend: Attend = attend_alone
    tolerance: float = 0.0

    @property
    def horizons(self) -> tuple[int, int]:
        """One within a pass of the network and one beyond it; few steps where each is a pass."""
        within = max(1, self.one_pass - 3)
        return min(within, 6) if self.model.anatomy.tokens else within, self.one_pass + 5

    def outputs(self, horizon: int, contexts: Sequence[Series] | None = None) -> Values:
        """Quantiles of a forecast, flat; of a vocabulary also the logits, as equal tokens are often drawn."""
        series = ragged(self.model, 3) if contexts is None else contexts
        quantiles = self.model.forecast(series, horizon).quantiles.ravel()
        if not self.model.anatomy.tokens:
            return quantiles
        with torch.no_grad():
            return np.concatenate([quantiles, self.model.teacher_forced(series).numpy(force=True).ravel()])

    def exact_outputs(self, horizon: int) -> list[Values]:
        """Forecast and network output, computed in float64."""
        contexts = ragged(self.model, 3)
        with double_precision(self.model), torch.no_grad():
            forecast = self.model.forecast(contexts, horizon).quantiles
            return [forecast, self.model.teacher_forced(contexts).numpy(force=True)]


Check = Callable[[Subject], None]
# removals that no model allows
_REFUSALS = ("matches no component", "nothing would be left", "share keys and values")


@dataclasses.dataclass(frozen=True)
class Law:
    """A law: its number in the documentation, what it demands, and the checks of it.

    hint : the usual cause of a failure
    """

    number: int
    title: str
    hint: str
    checks: tuple[Check, ...]


def _equal(actual: Values, expected: Values, what: object) -> None:
    np.testing.assert_array_equal(actual, expected, err_msg=str(what))


def _close(actual: Values, expected: Values, what: object = "", tolerance: float = ROUNDING) -> None:
    assert actual.shape == expected.shape, f"{what}: shapes {actual.shape} and {expected.shape}"
    limit = tolerance * float(np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit, err_msg=str(what))


def _weight(model: Forecaster, module: str) -> nn.Parameter:
    return model.module.get_submodule(module).get_parameter("weight")


# --- law 1 ---------------------------------------------------------------------------------------


def forecasts_are_upstreams(subject: Subject) -> None:
    if subject.upstream is None:
        return
    for horizon, count in ((max(1, subject.one_pass - 3), 6), (subject.one_pass + 5, 3)):
        contexts = ragged(subject.model, count)
        actual = subject.model.forecast(contexts, horizon).quantiles
        expected = subject.upstream([x.copy() for x in contexts], horizon)
        _close(actual, expected, f"horizon {horizon}", subject.tolerance)


def forecasts_are_finite_and_repeatable(subject: Subject) -> None:
    contexts = ragged(subject.model)
    kept = [x.copy() for x in contexts]
    state = torch.get_rng_state()
    first, second = (subject.model.forecast(contexts, 4) for _ in range(2))
    assert first.quantiles.dtype == np.float32, "quantiles are not float32"
    assert first.quantiles.shape == (len(contexts), len(first.levels), 4), "the forecast's shape is wrong"
    assert np.isfinite(first.quantiles).all(), "the forecast is not finite"
    _equal(first.quantiles, second.quantiles, "the same forecast twice")
    assert torch.equal(torch.get_rng_state(), state), "torch's global random state was changed"
    for context, before in zip(contexts, kept, strict=True):
        _equal(context, before, "the caller's series was changed")


def a_series_is_forecast_alike_in_any_batch(subject: Subject) -> None:
    model, contexts, order = subject.model, ragged(subject.model), [3, 0, 5, 2, 4, 1]
    with double_precision(model):
        together = model.forecast(contexts, 6).quantiles
        shuffled = model.forecast([contexts[i] for i in order], 6).quantiles
        alone = np.concatenate([model.forecast([context], 6).quantiles for context in contexts])
    _close(shuffled, together[order], "in another order")
    _close(alone, together, "one by one")


def history_beyond_the_context_is_ignored(subject: Subject) -> None:
    (context,) = full_length(subject.model, 1)
    longer = np.concatenate([np.full(37, 1e4, dtype=np.float32), context])
    _equal(subject.outputs(5, [longer]), subject.outputs(5, [context]), "37 more steps in front")


# --- law 2 ---------------------------------------------------------------------------------------


def an_empty_ablation_is_the_identity(subject: Subject) -> None:
    clean = subject.outputs(5)
    for mode in MODES:
        with ablate(subject.model, [], mode=mode):
            _equal(subject.outputs(5), clean, mode)


def nothing_is_left_of_an_ablation(subject: Subject) -> None:
    model, clean = subject.model, subject.outputs(5)
    for mode in MODES:
        with pristine(model), ablate(model, model.anatomy.components(), mode=mode):
            assert not np.array_equal(subject.outputs(5), clean), f"mode {mode} changes nothing"
        _equal(subject.outputs(5), clean, mode)


def nothing_is_left_after_an_error(subject: Subject) -> None:
    model, clean = subject.model, subject.outputs(5)
    last = model.module.get_submodule(model.anatomy.stacks[-1].blocks[-1].module)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    for inside in (False, True):
        with pristine(model), ExitStack() as hooks:
            try:
                with ablate(model, model.anatomy.components("head")):
                    if not inside:
                        fail()
                    hooks.callback(last.register_forward_pre_hook(fail).remove)
                    subject.outputs(5)
                raise AssertionError("the last block never runs")
            except ZeroDivisionError:
                hooks.close()
        _equal(subject.outputs(5), clean, "after an error")


# --- law 3 ---------------------------------------------------------------------------------------


def last_linear(model: Forecaster, component: Component) -> nn.Module:
    """The linear layer of a component's MLP that runs last."""
    output = model.module.get_submodule(model.anatomy.block(component).mlp.output)  # type: ignore[union-attr]
    ran: list[nn.Module] = []
    linears = [module for module in output.modules() if isinstance(module, nn.Linear)]
    with ExitStack() as hooks, torch.no_grad():
        for linear in linears:
            hooks.callback(linear.register_forward_hook(lambda module, *_: ran.append(module)).remove)
        model.forecast(full_length(model, 1), 1)
    assert ran, f"no linear layer of {component} runs"
    return ran[-1]


@contextmanager
def weights_zeroed(model: Forecaster, component: Component) -> Iterator[None]:
    """The weights of `component` at zero, by hand; those of whole sublayers with their bias."""
    block, whole = model.anatomy.block(component), []
    if component.kind in ("mlp", "layer") and block.mlp is not None:
        whole.append(last_linear(model, component))
    if component.kind == "layer":
        whole += [model.module.get_submodule(site.output) for site in block.attention]
    if component.kind == "attention":
        whole.append(model.module.get_submodule(model.anatomy.site(component).output))
    with ExitStack() as stack:
        for module in whole:
            for parameter in module.parameters():
                stack.enter_context(zeroed(parameter))
        if component.kind == "head":
            site = model.anatomy.site(component)
            start = site.position(cast(int, component.head)) * site.head_dim
            weight = _weight(model, site.output)
            stack.enter_context(zeroed(weight, slice(start, start + site.head_dim)))
        yield


def ablating_is_zeroing_weights(subject: Subject) -> None:
    model, clean = subject.model, subject.outputs(5)
    for kind in KINDS:
        for component in spread(model.anatomy.components(kind), 30):
            with ablate(model, component):
                ablated = subject.outputs(5)
            with weights_zeroed(model, component):
                _equal(ablated, subject.outputs(5), component)
            assert not np.array_equal(ablated, clean), f"{component} changes nothing"


def ablating_several_is_zeroing_all_their_weights(subject: Subject) -> None:
    model = subject.model
    chosen = [*model.anatomy.components("head")[::2], *model.anatomy.components("mlp")[1:]]
    for horizon in subject.horizons:
        with ablate(model, chosen):
            ablated = subject.outputs(horizon)
        with ExitStack() as stack:
            for component in chosen:
                stack.enter_context(weights_zeroed(model, component))
            _equal(ablated, subject.outputs(horizon), "several components")


def columns_belong_to_one_head_each(subject: Subject) -> None:
    for component, site in subject.model.anatomy.sites():
        width = _weight(subject.model, site.output).shape[1]
        columns = [c for head in site.numbers for c in range(width)[site.columns(head)]]
        assert columns == list(range(width)), f"{component}: heads do not share out {width} columns"


def an_ablated_layer_passes_its_input_on(subject: Subject) -> None:
    """So no sublayer of a block is missing in the anatomy."""
    model, contexts = subject.model, full_length(subject.model, 2)
    for stack in model.anatomy.stacks:
        for place, layer in enumerate(stack.numbers):
            with torch.no_grad(), ablate(model, f"{stack.name}.{layer}"), streams(model, stack) as recorded:
                model.teacher_forced(contexts)
            for before, after in zip(recorded[place], recorded[place + 1], strict=True):
                assert torch.equal(before, after), f"{stack.name}.{layer} still changes the residual stream"


# --- law 4 ---------------------------------------------------------------------------------------


def every_component_matters(subject: Subject) -> None:
    model, contexts = subject.model, full_length(subject.model, 2)
    with torch.no_grad():
        clean = model.teacher_forced(contexts)
        for component in model.anatomy.components():
            with ablate(model, component):
                changed = not torch.equal(model.teacher_forced(contexts), clean)
            assert changed, f"{component} does not change the network's output"


# --- law 5 ---------------------------------------------------------------------------------------


def replayed(subject: Subject, replay: Replay, chosen: tuple[Component, ...], horizon: int) -> Values:
    """The outputs under an ablation, with the record of the clean pass reused."""
    with applied(subject.model, Ablation(chosen)), replay.reuse("windows", chosen):
        return subject.model.forecast(ragged(subject.model, 3), horizon).quantiles


def record(subject: Subject, horizon: int) -> Replay:
    """A record of the clean pass."""
    replay = Replay(subject.model)
    with replay.record("windows"):
        subject.model.forecast(ragged(subject.model, 3), horizon)
    return replay


def replaying_is_computing(subject: Subject) -> None:
    model, rng = subject.model, np.random.default_rng(0)
    every = model.anatomy.components()
    for horizon, most in zip(subject.horizons, (40, 4 if model.anatomy.tokens else 12), strict=True):
        replay = record(subject, horizon)
        sets = [(c,) for kind in KINDS for c in spread(model.anatomy.components(kind), most)]
        sizes = [size for size in (2, 3, 5, 8) if size <= len(every)]
        several = [tuple(every[i] for i in rng.choice(len(every), size, replace=False)) for size in sizes]
        for chosen in [(), *sets, *several]:
            with ablate(model, chosen):
                expected = model.forecast(ragged(model, 3), horizon).quantiles
            _equal(replayed(subject, replay, chosen, horizon), expected, [str(c) for c in chosen])


def nothing_upstream_is_computed_again(subject: Subject) -> None:
    """Without this, law 5 would hold for a replay that does nothing."""
    anatomy, replay = subject.model.anatomy, record(subject, 1)
    sites = list(anatomy.sites())

    def computed(chosen: tuple[Component, ...]) -> list[str]:
        """Attention modules whose queries are computed, not replayed."""
        found = []
        for _, site in sites:
            with CountLinear(_weight(subject.model, site.query.module)) as counter:
                replayed(subject, replay, chosen, 1)
            found += [site.module] * bool(counter.count)
        return found

    last = anatomy.components("mlp")[-1:]
    if last and last[0].layer == anatomy.stacks[-1].numbers[-1]:
        assert computed(last) == [], f"under {last[0]}: attention is computed again"
    for index, (sublayer, site) in enumerate(sites):
        if site.heads:
            head = dataclasses.replace(sublayer, head=site.numbers[0])
            found, expected = computed((head,)), [later.module for _, later in sites[index + 1 :]]
            assert found == expected, f"under {head}: computes {found}, expected {expected}"


# --- law 6 ---------------------------------------------------------------------------------------


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


def pruned_is_ablated(subject: Subject, chosen: Iterable[object], horizon: int) -> None:
    """Up to rounding, the model without `chosen` computes as the model with `chosen` ablated."""
    patterns = [str(c) for c in chosen]
    with ablate(subject.model, patterns):
        expected = subject.exact_outputs(horizon)
    pruned = dataclasses.replace(subject, model=prune(subject.model, patterns))
    for actual, wanted in zip(pruned.exact_outputs(horizon), expected, strict=True):
        _close(actual, wanted, patterns)


def pruning_is_ablating(subject: Subject) -> None:
    model, rng = subject.model, np.random.default_rng(1)
    plans = [*named_plans(model).values()]
    every = model.anatomy.components()
    for size in (2, max(2, len(every) // 6), max(2, len(every) // 3)):
        plans.append([str(every[i]) for i in rng.choice(len(every), size, replace=False)])
    done = 0
    for plan in plans:
        try:
            pruned_is_ablated(subject, plan, subject.horizons[1])
            done += 1
        except TspruneError as error:
            if not any(refusal in str(error) for refusal in _REFUSALS):
                raise
    assert done, "no plan could be carried out"


# --- law 7 ---------------------------------------------------------------------------------------


def _reloaded(model: Forecaster, directory: Path) -> Forecaster:
    model.save(directory)
    copy = load(directory, device="cpu")
    if isinstance(copy, SamplingForecaster) and isinstance(model, SamplingForecaster):
        copy.samples, copy.seed = model.samples, model.seed
    return copy


def saving_and_loading_is_the_identity(subject: Subject) -> None:
    model, contexts = subject.model, ragged(subject.model, 3)
    head = model.anatomy.components("head")[0]
    with tempfile.TemporaryDirectory() as folder:
        for name, original in {"whole": model, "pruned": prune(model, _removable(model, head))}.items():
            copy = _reloaded(original, Path(folder) / name)
            assert copy.family == original.family, f"{name}: loads as {copy.family}"
            assert copy.anatomy == original.anatomy, f"{name}: another anatomy"
            assert copy.context_length == original.context_length, f"{name}: another context length"
            for key, tensor in original.module.state_dict().items():
                assert torch.equal(copy.module.state_dict()[key], tensor), f"{name}: {key} differs"
            expected = original.forecast(contexts, subject.horizons[1]).quantiles
            _equal(copy.forecast(contexts, subject.horizons[1]).quantiles, expected, name)


def _removable(model: Forecaster, head: Component) -> list[str]:
    """`head` with those that share its keys and values."""
    site = model.anatomy.site(head)
    served = [h for h in site.numbers if site.key_head(h) == site.key_head(cast(int, head.head))]
    return [str(dataclasses.replace(head, head=number)) for number in served]


# --- law 8 ---------------------------------------------------------------------------------------


@contextmanager
def _projections_only(model: Forecaster, site: AttentionSite, *, factors: bool) -> Iterator[None]:
    """q and k without biases and without what acts on them, but for data-independent `factors`."""
    forwards: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {}
    for path in {site.query.module, site.key.module}:
        linear: Any = model.module.get_submodule(path)
        forwards[path] = linear, functools.partial(nn.functional.linear, weight=linear.weight)
    for factor in site.factors:
        path, _, name = factor.parameter.rpartition(".")
        module: Any = model.module.get_submodule(path)
        if not factors:
            forwards[path] = module, torch.Tensor.clone
        elif factor.transform == "identity":
            forwards[path] = module, functools.partial(torch.mul, getattr(module, name))
    with substituted_forwards(forwards.values()):
        yield


def dense_stable_ranks(subject: Subject, site: AttentionSite, *, factors: bool) -> Values:
    """Of each head's bilinear form, from an SVD of the q . k that the module computes, [heads]."""
    width = subject.model.anatomy.d_model
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, generator=generator)).Q
    with torch.no_grad(), _projections_only(subject.model, site, factors=factors), QueriesAndKeys() as mode:
        subject.attend(subject.model, site, x.float()[:, None])
    assert len(mode.seen) == 1, f"{site.module} calls torch's attention {len(mode.seen)} times"
    query, key = (part.flatten(1, -3)[:, :, 0].double() for part in mode.seen[0])
    assert query.shape == (width, site.heads, site.head_dim), f"{site.module}: queries are {query.shape}"
    key = key.repeat_interleave(site.heads // key.shape[1], 1)
    observed = torch.einsum("ihd,jhd->hij", query, key)  # X A X^T with X orthogonal
    values = torch.linalg.svdvals(x.T @ observed @ x)
    ranks: Values = ((values**2).sum(-1) / values[:, 0] ** 2).numpy()
    return ranks


def stable_ranks_are_of_what_the_model_computes(subject: Subject) -> None:
    table = stable_ranks(subject.model).set_index("address")
    for sublayer, site in subject.model.anatomy.sites():
        if not site.heads:
            continue
        heads = [str(dataclasses.replace(sublayer, head=number)) for number in site.numbers]
        for column, factors in (("stable_rank", False), ("stable_rank_effective", True)):
            expected = dense_stable_ranks(subject, site, factors=factors)
            actual = table.loc[heads, column].to_numpy()
            message = f"{sublayer}: {column}"
            np.testing.assert_allclose(actual, expected, rtol=1e-3, err_msg=message)


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
