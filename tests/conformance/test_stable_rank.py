"""Law 8: the stable rank is that of the form q . k which the model really computes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import toto.model.attention
from torch import Tensor

from tests.capabilities import CAPABILITIES, call_attention
from tsprune.anatomy import AttentionSite
from tsprune.models import Forecaster
from tsprune.scores.stable_rank import query_key, singular_values, stable_rank, stable_ranks
from tsprune.testing import Subject
from tsprune.testing.rank_checks import dense_stable_ranks


def logits(model: Forecaster, site: AttentionSite, x: Tensor) -> Tensor:
    """q_i . k_j of every head for inputs x [N, d_model], [heads, N, N], seen on their way into
    torch's attention. Every input is a sequence of its own, at position 0: rotation by RoPE is the
    identity there."""
    seen: list[tuple[Tensor, Tensor]] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def look(query: Tensor, key: Tensor, *args: object, **kwargs: object) -> Tensor:
        seen.append((query, key))
        return original(query, key, *args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", look)
        patch.setattr(toto.model.attention, "scaled_dot_product_attention", look)
        call_attention(model, site, x[:, None])
    ((query, key),) = ((q.flatten(1, -3), k.flatten(1, -3)) for q, k in seen)
    assert query.shape == (len(x), site.heads, 1, site.query.head_dim)
    return torch.einsum("ihd,jhd->hij", query[:, :, 0].double(), key[:, :, 0].double())


NORMS = {
    "timesfm": (("query_ln", "scale"), ("key_ln", "scale")),
    "timesfm3": (("query_ln", "weight"), ("key_ln", "weight")),
    "moirai": (("q_norm", "weight"), ("k_norm", "weight")),
    "moirai2": (("q_norm", "weight"), ("k_norm", "weight")),
    "moirai-moe": (("q_norm", "weight"), ("k_norm", "weight")),
    "t0": (("q_norm", "scale"), ("k_norm", "scale")),
    "toto2": (("q_norm", "weight"), ("k_norm", "weight")),
}


SCALES = {"timesfm": ["per_dim_scale"], "timesfm3": ["per_dim_scale"], "toto2": ["_pds"]}


def without_bias(model: Forecaster, site: AttentionSite) -> pytest.MonkeyPatch:
    """What is added to q and k whatever the input is, is taken out until `undo`."""
    patch = pytest.MonkeyPatch()
    if CAPABILITIES[model.family].biased:
        fused = model.module.get_submodule(site.query.module)
        patch.setattr(fused, "forward", lambda x: torch.nn.functional.linear(x, fused.weight))
    return patch


def without_norm_and_scale(model: Forecaster, site: AttentionSite) -> pytest.MonkeyPatch:
    """What acts on q and k after their projections is taken out until `undo`."""
    patch = without_bias(model, site)
    module = model.module.get_submodule(site.module)
    names = [norm for norm, _ in NORMS.get(model.family, ())]
    for name in [*names, *SCALES.get(model.family, ())]:
        if getattr(module, name) is not None:  # a norm that the configuration leaves out
            patch.setattr(getattr(module, name), "forward", lambda x: x)
    return patch


def without_data_in_the_norm(model: Forecaster, site: AttentionSite) -> pytest.MonkeyPatch:
    """The norm of q and k only multiplies by its weights until `undo`."""
    patch = without_bias(model, site)
    module = model.module.get_submodule(site.module)
    for name, parameter in NORMS.get(model.family, ()):
        norm = getattr(module, name)
        if norm is None:
            continue
        weight = getattr(norm, parameter)
        patch.setattr(norm, "forward", lambda x, weight=weight: x * weight)
    return patch


def test_forms_are_the_models_up_to_a_constant(model: Forecaster) -> None:
    """Stronger than equal ranks: the very matrix, so that no two heads can have been exchanged."""
    x = torch.randn(7, model.anatomy.d_model, generator=torch.Generator().manual_seed(1))
    for component in model.anatomy.components("attention"):
        site = model.anatomy.site(component)
        for variant, prepare, constant in (
            ("paper", without_norm_and_scale, 1.0),
            ("effective", without_data_in_the_norm, upstream_constant(model, site)),
        ):
            patch = prepare(model, site)
            observed = logits(model, site, x)
            patch.undo()
            query, key = query_key(model, site, variant)  # type: ignore[arg-type]
            expected = constant * (x.double() @ query) @ (x.double() @ key).mT
            tolerance = 1e-4 * float(expected.abs().max())
            torch.testing.assert_close(observed, expected, rtol=1e-3, atol=tolerance)


def upstream_constant(model: Forecaster, site: AttentionSite) -> float:
    """The per-dimension scale is softplus times log2(e), and TimesFM's 1 / sqrt(head_dim)."""
    if model.family not in SCALES:
        return 1.0
    return 1.442695041 / (1.0 if model.family == "toto2" else math.sqrt(site.head_dim))


def test_the_order_of_fused_rows_is_measured(model: Forecaster, subject: Subject) -> None:
    """Heads interleaved in a fused weight, or one after the other: the other order is not what runs."""
    fused = [site for _, site in model.anatomy.sites() if site.query.module == site.key.module]
    for site in fused[:2]:
        measured = dense_stable_ranks(subject, site, factors=False)
        for flipped in (False, True):
            query, key = (
                dataclasses.replace(part, interleaved=part.interleaved != flipped)
                for part in (site.query, site.key)
            )
            described = dataclasses.replace(site, query=query, key=key)
            ranks = stable_rank(singular_values(*query_key(model, described, "paper"))).numpy()
            assert np.allclose(ranks, measured, rtol=1e-3) != flipped


def test_every_head_has_a_rank_within_its_bounds(model: Forecaster) -> None:
    table = stable_ranks(model)
    assert list(table["address"]) == [c.address for c in model.anatomy.components("head")]
    for column in ("stable_rank", "stable_rank_effective"):
        sizes = [model.anatomy.site(c).query.head_dim for c in model.anatomy.components("head")]
        assert (table[column] >= 1).all()
        assert (table[column] <= np.array(sizes) + 1e-9).all()
    variants_agree = np.allclose(table.stable_rank, table.stable_rank_effective)
    assert variants_agree == (model.family not in NORMS)  # nothing acts on q . k
