"""Weight scores of heads: cases by hand, bounds, and the dense products they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.suites import tiny
from tests.tiny import zeroed
from tests.toy import Toy
from tsprune.models import Forecaster
from tsprune.scores.stable_rank import query_key, stable_rank
from tsprune.scores.weight_scores import SPECTRUM_SCORES, entropic_rank, spectra, value_output


def test_entropic_rank_by_hand() -> None:
    assert float(entropic_rank(torch.tensor([3.0, 0.0, 0.0]))) == pytest.approx(1)
    assert float(entropic_rank(torch.ones(4))) == pytest.approx(4)
    # energies 1/2, 1/4, 1/4: entropy 1.5 ln 2
    assert float(entropic_rank(torch.tensor([math.sqrt(2), 1.0, 1.0]))) == pytest.approx(2**1.5)
    assert math.isnan(entropic_rank(torch.zeros(3)))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9))
def test_between_stable_rank_and_count(values: list[float]) -> None:
    """Renyi entropies fall with their order: infinity (stable rank) is below one (entropic)."""
    spectrum = torch.tensor(values, dtype=torch.float64)
    rank = float(entropic_rank(spectrum))
    assert float(stable_rank(spectrum)) <= rank * (1 + 1e-9)
    assert rank <= len(values) * (1 + 1e-9)


@pytest.fixture(params=["tiny-chronos-bolt", "tiny-timesfm", "tiny-toto", "toy"])
def model(request: pytest.FixtureRequest) -> Forecaster:
    return Toy() if request.param == "toy" else tiny(request.param)


def test_norms_are_those_of_the_dense_products(model: Forecaster) -> None:
    table = spectra(model).set_index("address")
    assert table.index.tolist() == [c.address for c in model.anatomy.components("head")]
    for head in model.anatomy.components("head"):
        site = model.anatomy.site(head)
        assert head.head is not None
        query, key = (side[head.head] for side in query_key(model, site, "paper"))
        value, output = (side[head.head] for side in value_output(model, site))
        row = table.loc[head.address]
        for name, form in (("query_key", query @ key.T), ("value_output", value @ output.T)):
            assert row[f"{name}_spectral_norm"] == pytest.approx(float(torch.linalg.matrix_norm(form, 2)))
            assert row[f"{name}_frobenius_norm"] == pytest.approx(float(torch.linalg.matrix_norm(form)))


def test_value_and_output_are_what_the_head_writes() -> None:
    """With one position attention is 1, so without biases the sublayer is x -> sum of x W_V W_O."""
    toy = Toy()
    site = toy.anatomy.stacks[0].blocks[0].attention[0]
    attention = toy.module.get_submodule(site.module)
    with torch.no_grad():
        for name, parameter in attention.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        width = toy.anatomy.d_model
        written = attention(torch.eye(width)[:, None])[:, 0]
    value, output = value_output(toy, site)
    torch.testing.assert_close((value @ output.mT).sum(0).float(), written, rtol=1e-4, atol=1e-6)


def test_a_zero_head_has_norm_zero() -> None:
    toy = Toy()
    query = toy.module.get_submodule("layers.1.attention").get_parameter("q.weight")
    with zeroed(query[:4]):  # the four rows of head 0
        table = spectra(toy).set_index("address")
    (head,) = toy.anatomy.select("*.1.*.head.0")
    row = table.loc[head.address]
    assert row["query_key_spectral_norm"] == row["query_key_frobenius_norm"] == 0
    assert math.isnan(row["entropic_rank"])
    assert list(row.index) == list(SPECTRUM_SCORES)
