"""Laws 2 to 4: the effect of an ablation, and nothing is left of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn

from tsprune.anatomy import KINDS, Component
from tsprune.choices import MODES
from tsprune.hooks.ablation import ablate
from tsprune.hooks.mixing import mixes
from tsprune.hooks.stream import streams
from tsprune.models import Forecaster
from tsprune.testing.probes import full_length, one_head_each, pristine, ragged, spread, zeroed
from tsprune.testing.subject import Subject, require_equal, weight_of

ROUNDING = 1e-6  # of the largest output: what is less may be rounding alone


def an_empty_ablation_is_the_identity(subject: Subject) -> None:
    clean = subject.outputs(5)
    for mode in MODES:
        with ablate(subject.model, [], mode=mode):
            require_equal(subject.outputs(5), clean, mode)


def nothing_is_left_of_an_ablation(subject: Subject) -> None:
    model = subject.model
    for mode in MODES:
        # the default reference holds single series, shorter than several variates in one sequence
        contexts = ragged(model, 3) if mode == "resample" else None
        clean = subject.outputs(5, contexts)
        with pristine(model), ablate(model, model.anatomy.components(), mode=mode):
            assert not np.array_equal(subject.outputs(5, contexts), clean), f"mode {mode} changes nothing"
        require_equal(subject.outputs(5, contexts), clean, mode)


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
        require_equal(subject.outputs(5), clean, "after an error")


def last_linears(model: Forecaster, component: Component) -> list[nn.Module]:
    """The linear layer of a component's MLP that runs last; that of each expert if it has experts.

    All experts are alike, and which of them run depends on the data.
    """
    mlp = model.anatomy.mlp(component)
    parts = [model.module.get_submodule(path) for path in mlp.experts or (mlp.output,)]
    ran: list[str] = []
    with ExitStack() as hooks, torch.no_grad():
        for part in parts:
            for name, linear in part.named_modules():
                if isinstance(linear, nn.Linear):
                    note = partial(_note, ran, name)
                    hooks.callback(linear.register_forward_hook(note).remove)
        model.forecast(full_length(model, 1), 1)
    assert ran, f"no linear layer of {component} runs"
    return [part.get_submodule(ran[-1]) for part in parts]


def _note(ran: list[str], name: str, *_: object) -> None:
    ran.append(name)


@contextmanager
def weights_zeroed(model: Forecaster, component: Component) -> Iterator[None]:
    """The weights of `component` at zero, by hand; those of whole sublayers with their bias."""
    block, whole = model.anatomy.block(component), []
    if component.kind in ("mlp", "layer") and block.mlp is not None:
        whole += last_linears(model, component)
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
            weight = weight_of(model, site.output)
            stack.enter_context(zeroed(weight, slice(start, start + site.head_dim)))
        yield


def ablating_is_zeroing_weights(subject: Subject) -> None:
    model, horizon, most = subject.model, subject.horizons[0], subject.most
    clean = subject.outputs(horizon)
    heads = model.anatomy.components("head")
    tried = [*(heads if len(heads) <= most else spread(one_head_each(model.anatomy), most))]
    tried += [c for kind in KINDS if kind != "head" for c in spread(model.anatomy.components(kind), most)]
    for component in tried:
        with ablate(model, component):
            ablated = subject.outputs(horizon)
        with weights_zeroed(model, component):
            require_equal(ablated, subject.outputs(horizon), component)
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
            require_equal(ablated, subject.outputs(horizon), "several components")


def columns_belong_to_one_head_each(subject: Subject) -> None:
    for component, site in subject.model.anatomy.sites():
        width = weight_of(subject.model, site.output).shape[1]
        columns = [c for head in site.numbers for c in range(width)[site.columns(head)]]
        assert columns == list(range(width)), f"{component}: heads do not share out {width} columns"


def an_ablated_layer_passes_its_input_on(subject: Subject) -> None:
    """The anatomy misses no sublayer of a block, if this holds; `Stack.mixing` has factors of the input."""
    model, contexts = subject.model, full_length(subject.model, 2)
    for stack in model.anatomy.stacks:
        factors = mixes(model, stack)
        for place, layer in enumerate(stack.numbers):
            with torch.no_grad(), ablate(model, f"{stack.name}.{layer}"), streams(model, stack) as recorded:
                model.teacher_forced(contexts)
            for before, after in zip(recorded[place], recorded[place + 1], strict=True):
                for factor in (mix.kept for component, mix in factors.items() if component.layer == layer):
                    before = before * factor
                assert torch.equal(before, after), f"{stack.name}.{layer} still changes the residual stream"


def every_component_matters(subject: Subject) -> None:
    model, contexts = subject.model, full_length(subject.model, 2)
    with torch.no_grad():
        clean = model.teacher_forced(contexts)
        limit = ROUNDING * float(clean.abs().max())
        every = [c for kind in KINDS for c in spread(model.anatomy.components(kind), 10 * subject.most)]
        for component in every:
            with ablate(model, component):
                change = float((model.teacher_forced(contexts) - clean).abs().max())
            assert change > limit, f"{component} changes the network's output by {change:g}, not by {limit:g}"
