"""What is left of a pruned model is explained as it is in the ablated one, under the same addresses."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.suites import configuration, tiny
from tests.tiny import TINY, full_length
from tsprune.anatomy import Anatomy, Component
from tsprune.data import Suite
from tsprune.errors import TspruneError
from tsprune.explain import attention, attribution, contributions, induction, residual
from tsprune.explain.attribution.residual_stream import later_layers, layers_of
from tsprune.hooks.ablation import ablate, applied
from tsprune.hooks.attention import AttentionMap, watching
from tsprune.models import Forecaster
from tsprune.pruning import prune

SUITE = Suite("s", (configuration("a/D/short", [60, 90, 128], 12),))
TOLERANCE = 1e-4  # of the largest value; sums over fewer columns are rounded differently


def heads_and_mlp(anatomy: Anatomy) -> list[str]:
    """The first head everywhere, and the last MLP."""
    stack = anatomy.stacks[-1]
    return [*(f"{s.name}.*.*.head.0" for s in anatomy.stacks), f"{stack.name}.{len(stack.blocks) - 1}.mlp"]


@functools.cache
def removed_from(name: str) -> tuple[tuple[str, ...], Forecaster]:
    """A plan, and what it leaves: a whole layer goes as well, so that those after it move up."""
    model = tiny(name)
    plan = (*heads_and_mlp(model.anatomy), f"{model.anatomy.stacks[-1].name}.0")
    return plan, prune(model, plan)


def assert_alike(actual: Tensor, expected: Tensor) -> None:
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE * scale)


def maps(model: Forecaster) -> dict[Component, list[Tensor]]:
    """Of every head, call by call, [N, Q, K]."""
    found: dict[Component, list[Tensor]] = {}

    def add(seen: AttentionMap) -> None:
        site = seen.component
        for place, head in enumerate(model.anatomy.site(site).numbers):
            address = Component(site.stack, site.layer, site.attention, head)
            found.setdefault(address, []).append(seen.weights[:, place])

    with torch.no_grad(), watching(model, add):
        model.teacher_forced(full_length(model, 2))
    return found


@pytest.mark.parametrize("name", TINY)
def test_maps(name: str) -> None:
    plan, pruned = removed_from(name)
    with ablate(tiny(name), plan):
        expected = maps(tiny(name))
    actual = maps(pruned)
    assert set(actual) == set(pruned.anatomy.components("head")) < set(expected)
    for head, calls in actual.items():
        for ours, theirs in zip(calls, expected[head], strict=True):
            assert_alike(ours, theirs)


@pytest.mark.parametrize("name", TINY)
def test_lens(name: str) -> None:
    """With the later layers off, what a layer leaves is read alike: that is all the lens does."""
    plan, pruned = removed_from(name)
    model, contexts = tiny(name), full_length(tiny(name), 2)
    layers = layers_of(pruned.anatomy.stacks[-1])
    assert layers == (-1, *range(1, len(model.anatomy.stacks[-1].blocks)))
    for layer in layers:
        with torch.no_grad(), ablate(model, plan), applied(model, later_layers(model, layer)):
            expected = model.teacher_forced(contexts)
        with torch.no_grad(), applied(pruned, later_layers(pruned, layer)):
            assert_alike(pruned.teacher_forced(contexts), expected)


@pytest.mark.parametrize("name", TINY)
def test_residual_stream(name: str) -> None:
    """Norms and updates are those of the ablated model, whose removed layer adds nothing; angles to the
    layer before are not, as another layer is before. A removed first layer may leave its factor."""
    plan, pruned = removed_from(name)
    with ablate(tiny(name), plan):
        expected = residual(tiny(name), SUITE)
    actual = residual(pruned, SUITE)
    for ours, theirs, index, columns in (
        (actual.layers, expected.layers, ["stack", "layer"], ["norm", "update"]),
        (actual.cka, expected.cka, ["stack", "a", "b"], ["cka"]),
    ):
        both = ours[[*index, *columns]].merge(theirs, on=index, suffixes=("", "_expected"), validate="1:1")
        assert len(both) == len(ours) < len(theirs)
        if pruned.anatomy.stacks[-1].mixing and "norm" in both:
            both = both[both["layer"] >= 0]
        for column in columns:
            np.testing.assert_allclose(both[column], both[f"{column}_expected"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_attribution(name: str) -> None:
    """What is left wrote the same, and what is removed wrote nothing."""
    model = tiny(name)
    contexts, plan = full_length(model, 2), heads_and_mlp(model.anatomy)
    with ablate(model, plan):
        expected = contributions(model, contexts)
    actual = contributions(prune(model, plan), contexts)
    gone = [n for n, part in enumerate(expected.names) if part not in actual.names]
    left = [n for n, part in enumerate(expected.names) if part in actual.names]
    assert tuple(expected.names[n] for n in left) == actual.names
    assert gone
    assert (expected.writes[:, gone] == 0).all()
    assert_alike(actual.writes, expected.writes[:, left])
    assert_alike(actual.writes.sum(1), actual.stream)


def test_tables_name_what_is_left() -> None:
    _, pruned = removed_from("tiny-chronos-bolt")
    heads = [c.address for c in pruned.anatomy.components("head")]
    seen, repeated = attention(pruned, SUITE), induction(pruned, blocks=[2], repeats=[2], sequences=2)
    assert seen.heads["address"].tolist() == repeated["address"].tolist() == heads
    assert [f"{r.stack}.{r.layer}.{r.attention}.head.{r.head}" for r in seen.heads.itertuples()] == heads
    assert set(seen.profile["address"]) <= set(heads)
    table = attribution(pruned, SUITE)
    parts = [c.address for c in pruned.anatomy.components() if c.kind in ("head", "mlp")]
    assert sorted(table["part"]) == sorted(["embedding", "encoder.embedding", *parts])
    assert all(row.part.startswith(row.stack) for row in table.itertuples() if row.part != "embedding")


def test_a_sublayer_of_which_a_bias_is_left_has_no_maps() -> None:
    """Toto's output projection keeps its bias when all heads go; it writes, but attends to nothing."""
    pruned = prune(tiny("tiny-toto"), "stack.0.time.head.*")
    found = attention(pruned, SUITE).heads
    assert found["address"].tolist() == [c.address for c in pruned.anatomy.components("head")]
    assert not found["address"].str.startswith("stack.0.").any()
    assert "stack.0.time.bias" in contributions(pruned, full_length(pruned, 2)).names


def test_a_model_without_heads_says_so() -> None:
    pruned = prune(tiny("tiny-timesfm"), "stack.*.self.head.*")
    for look in (lambda: attention(pruned, SUITE), lambda: induction(pruned)):
        with pytest.raises(TspruneError, match="no attention heads left"):
            look()
    assert set(attribution(pruned, SUITE)["kind"]) == {"embedding", "mlp"}
