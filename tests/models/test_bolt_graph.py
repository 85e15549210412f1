"""A decoder that reads one token attends without queries and keys of its own, and without the encoder's."""

from __future__ import annotations

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from tests.tiny import TINY
from tsprune.models import load
from tsprune.models.bolt_graph import BoltGraph
from tsprune.models.chronos_bolt import ChronosBolt
from tsprune.pruning import prune

GONE: dict[str, list[str]] = {"whole": [], "pruned": ["decoder.0.cross.head.0", "decoder.1.self"]}


@pytest.fixture(scope="module", params=GONE)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ChronosBolt, BoltGraph]:
    """A model and its graph."""
    path = tmp_path_factory.mktemp("bolt") / "model"
    TINY["tiny-chronos-bolt"](path)
    model = load(path, device="cpu")
    gone = GONE[request.param]
    model = prune(model, gone) if gone else model
    assert isinstance(model, ChronosBolt)
    return model, BoltGraph(model, model.readout_horizon)


def test_each_sublayer_is_upstreams(pair: tuple[ChronosBolt, BoltGraph]) -> None:
    model, graph = pair
    draw = torch.Generator().manual_seed(0)
    token, encoded = (torch.randn(3, n, model.anatomy.d_model, generator=draw) for n in (1, 7))
    hidden = torch.zeros(3, 1, 1, 7)
    hidden[0, ..., :4] = torch.finfo(torch.float32).min
    seen = 0
    for path, attention in model.module.named_modules():
        if not isinstance(attention, T5Attention) or not path.startswith("decoder"):
            continue
        keys = encoded if path.endswith("EncDecAttention") else None
        for mask in (None, hidden if keys is not None else None):
            with torch.no_grad():
                expected = attention(token, mask=mask, key_value_states=keys)[0]
                found = graph.network.get_submodule(path)(token, mask=mask, key_value_states=keys)[0]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        seen += 1
    stack = model.anatomy.stacks[1]
    assert seen == sum(len(block.attention) for block in stack.blocks)


def test_nothing_of_the_encoder_is_projected(pair: tuple[ChronosBolt, BoltGraph]) -> None:
    """Keys and values of the encoder would take as many products as it has positions."""
    _, graph = pair
    rows: list[int] = []
    for layer in graph.network.decoder.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda layer, given, result: rows.append(result[..., 0].numel()))
    with torch.no_grad():
        graph(torch.randn(3, graph.longest))
    assert rows
    assert set(rows) == {3}
