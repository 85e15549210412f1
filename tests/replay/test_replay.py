"""Replay of a toy, also with state and short of memory; the laws are in tests/conformance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.suites import tiny
from tests.tiny import CountLinear, full_length
from tests.toy import Toy
from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.hooks.ablation import ablate
from tsprune.replay import Replay

CONTEXTS = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
LAST = Component("stack", 1, mlp=True)


class Memory:
    """State that a layer changes: a running sum of its inputs, nested one deep, beside a constant."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = [torch.zeros(6)]
        self.constant = torch.zeros(50)


class Remembering(nn.Module):
    """A layer that adds the memory of earlier calls to its output, and updates the memory.

    in_place : by changing its tensor, not by another one
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.attention = layer.attention
        self.mlp = layer.mlp
        self.in_place = True

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        x = x + self.attention(x)
        x = x + self.mlp(x) + memory.sums[0]
        if self.in_place:
            memory.sums[0] += x.mean((0, 1))
        else:
            memory.sums[0] = memory.sums[0] + x.mean((0, 1))
        return x


class StatefulNetwork(nn.Module):
    """The toy's network run twice in a forecast, the second time with the memories of the first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.embed, self.readout = network.embed, network.readout
        self.layers = nn.ModuleList([Remembering(layer) for layer in network.layers])

    def forward(self, series: Tensor) -> Tensor:
        memories = [Memory() for _ in self.layers]
        for scale in (1.0, 0.5):
            x = self.embed(series[..., None] * scale)
            for i, layer in enumerate(self.layers):
                x = layer(x, memories[i])
        return self.readout(x[:, -1])


@pytest.fixture
def stateful() -> Toy:
    toy = Toy()
    toy.module = StatefulNetwork(toy.module).eval()
    return toy


def forecast(toy: Toy, contexts: np.ndarray = CONTEXTS) -> np.ndarray:
    return toy.forecast(list(contexts), 1).quantiles


@pytest.mark.parametrize("kind", ["head", "mlp", "layer"])
def test_state_changed_in_place_is_put_back(stateful: Toy, kind: str) -> None:
    replay = Replay(stateful)
    clean = forecast(stateful)
    with replay.record("k"):
        np.testing.assert_array_equal(forecast(stateful), clean)
    for component in stateful.anatomy.components(kind):  # type: ignore[arg-type]
        with ablate(stateful, component):
            expected = forecast(stateful)
            for _ in range(2):  # a replay must not spoil its record
                with replay.reuse("k", [component]):
                    np.testing.assert_array_equal(forecast(stateful), expected)


def changing(toy: Toy, *, in_place: bool) -> None:
    for layer in toy.module.layers:
        layer.in_place = in_place


def test_tensors_that_states_exchange_are_kept_once(stateful: Toy) -> None:
    """After a pass that changed none in place; a later pass that does is found out, and gives the same."""
    replay = Replay(stateful)
    sizes = []
    for in_place in (False, False, True, True):
        changing(stateful, in_place=in_place)
        with replay.record("k"):
            forecast(stateful)
        sizes.append(replay.nbytes)
        for component in stateful.anatomy.components():
            with ablate(stateful, component):
                expected = forecast(stateful)
                for _ in range(2):
                    with replay.reuse("k", [component]):
                        np.testing.assert_array_equal(forecast(stateful), expected)
    assert sizes[1] < sizes[0] == sizes[3]


def test_a_released_record_serves_what_follows_and_spoils_nothing(stateful: Toy) -> None:
    for toy in (Toy(), stateful):
        replay = Replay(toy)
        with replay.record("k"):
            forecast(toy)
        whole, place = replay.nbytes, replay.lowest([LAST])
        assert place is not None
        replay.release("k", place)
        assert 0 < replay.nbytes < whole
        weight = toy.module.layers[0].mlp[0].weight
        for component in toy.anatomy.components():
            with ablate(toy, component), CountLinear(weight) as plainly:
                expected = forecast(toy)
            with ablate(toy, component), replay.reuse("k", [component]), CountLinear(weight) as counter:
                np.testing.assert_array_equal(forecast(toy), expected)
            assert counter.count < plainly.count or component.layer == 0


def test_released_memory_serves_ablations_in_one_batch() -> None:
    """The encoder's records are of no use to the decoder's ablations, so several need less memory."""
    model = tiny("tiny-chronos-bolt")
    place = Replay(model).lowest([Component("decoder", 0, "cross", 0)])
    assert place is not None
    whole, released = Replay(model), Replay(model)
    for replay in (whole, released):
        with replay.record("windows"):
            model.forecast(full_length(model, 8), 3)
    released.release("windows", place)

    def at_once(replay: Replay, memory: int) -> int:
        replay._memory = memory
        replay._sizes.clear()
        return replay.at_once("windows", place)

    freed = whole.nbytes - released.nbytes
    limits = range(whole.nbytes, 10 * whole.nbytes, freed // 2)
    enough = next(limit for limit in limits if at_once(released, limit) > 1)
    assert (at_once(whole, enough), at_once(released, enough)) == (1, 2)


def test_the_state_counts_as_input(stateful: Toy) -> None:
    """The same series with another memory is another call."""
    block = stateful.module.layers[0]
    x, empty, full = torch.ones(1, 2, 6), Memory(), Memory()
    full.sums[0] += 1
    replay = Replay(stateful)
    with torch.no_grad():
        with replay.record("k"):
            recorded = block(x, empty)
        with replay.reuse("k", [LAST]):
            replayed = block(x, full)
    torch.testing.assert_close(replayed, recorded + 1)
    torch.testing.assert_close(full.sums[0], 1 + replayed.mean((0, 1)))


def test_fewer_and_more_calls_than_recorded() -> None:
    toy = Toy()
    replay = Replay(toy)
    with replay.record("k"):
        forecast(toy)
    with ablate(toy, "stack.1.mlp"):
        expected = forecast(toy)
        with replay.reuse("k", [LAST]):
            for _ in range(3):  # beyond the recorded calls everything is computed
                np.testing.assert_array_equal(forecast(toy), expected)


def test_a_batch_of_another_size_is_computed() -> None:
    toy = Toy()
    replay = Replay(toy)
    with replay.record("k"):
        forecast(toy)
    weight = toy.module.layers[0].mlp[0].weight
    for contexts, computed in ((CONTEXTS, 0), (CONTEXTS[:2], 1), (CONTEXTS[:, 1:], 1), (CONTEXTS + 1, 1)):
        with CountLinear(weight) as counter, replay.reuse("k", [LAST]):
            actual = forecast(toy, contexts)
        assert counter.count == computed
        np.testing.assert_array_equal(actual, forecast(toy, contexts))


def test_recording_again_replaces_the_record() -> None:
    toy = Toy()
    replay = Replay(toy)
    for contexts in (CONTEXTS, CONTEXTS[::-1].copy()):
        with replay.record("k"):
            forecast(toy, contexts)
    with replay.reuse("k", [LAST]), CountLinear(toy.module.layers[0].mlp[0].weight) as counter:
        forecast(toy, CONTEXTS[::-1].copy())
    assert counter.count == 0


def test_an_unknown_key() -> None:
    with pytest.raises(KeyError), Replay(Toy()).reuse("k", ()):
        pass


def test_replay_under_replay_gives_the_outer_forwards_back() -> None:
    toy = Toy()
    replay = Replay(toy)
    with replay.record("a"):
        forecast(toy)
    with replay.reuse("a", [LAST]):
        with replay.record("b"):
            clean = forecast(toy)
        np.testing.assert_array_equal(clean, forecast(toy))
    assert all("forward" not in part.__dict__ for part in toy.module.modules())
    np.testing.assert_array_equal(clean, forecast(toy))


def test_a_negative_limit() -> None:
    with pytest.raises(TspruneError, match="0 bytes or more"):
        Replay(Toy(), memory=-1)


@pytest.mark.parametrize("memory", [0, 100, 700, 1500, 3000, 10**6])
def test_state_under_any_limit_of_memory(stateful: Toy, memory: int) -> None:
    replay = Replay(stateful, memory)
    with replay.record("k"):
        forecast(stateful)
    assert replay.nbytes <= memory
    for component in stateful.anatomy.components():
        with ablate(stateful, component):
            expected = forecast(stateful)
            with replay.reuse("k", [component]):
                np.testing.assert_array_equal(forecast(stateful), expected, err_msg=component.address)


def test_records_of_several_keys_share_the_limit() -> None:
    toy = Toy()
    replay = Replay(toy)
    with replay.record("a"):
        forecast(toy)
    limited = Replay(toy, memory=replay.nbytes)
    for key in "ab":
        with limited.record(key):
            forecast(toy)
        assert limited.nbytes == replay.nbytes
    limited.forget("a")
    assert limited.nbytes == 0  # there was no room for "b"
    with limited.record("b"):
        forecast(toy)
    assert limited.nbytes == replay.nbytes


def test_what_runs_before_any_block_is_not_computed_again() -> None:
    toy = Toy()
    replay = Replay(toy)
    with replay.record("k"):
        clean = forecast(toy)
    for weight, computed in ((toy.module.embed.weight, 0), (toy.module.readout.weight, 1)):
        with CountLinear(weight) as counter, replay.reuse("k", [Component("stack", 0)]):
            np.testing.assert_array_equal(forecast(toy), clean)
        assert counter.count == computed


def test_a_record_that_the_caller_spoils_is_not_used() -> None:
    """Upstream code may change the output of a module in place."""
    toy = Toy()
    replay = Replay(toy)
    with torch.no_grad():
        with replay.record("k"):
            embedded = toy.module.embed(torch.ones(2, 3, 1))
            expected = toy.module.layers[0](embedded).clone()
            embedded += 1
        with replay.reuse("k", [LAST]):
            again = toy.module.embed(torch.ones(2, 3, 1))
            np.testing.assert_array_equal(again, embedded - 1)
            np.testing.assert_array_equal(toy.module.layers[0](again), expected)


def test_a_missing_value_is_the_same_as_itself() -> None:
    """A module that is given NaN, as gaps in a history are, is replayed like any other."""
    toy = Toy()
    gaps = CONTEXTS.copy()
    gaps[1, 2] = np.nan
    replay = Replay(toy)
    with replay.record("k"):
        forecast(toy, gaps)
    with CountLinear(toy.module.embed.weight) as counter, replay.reuse("k", [LAST]):
        forecast(toy, gaps)
    assert counter.count == 0
    other = gaps.copy()
    other[1, 3] = np.nan
    with CountLinear(toy.module.embed.weight) as counter, replay.reuse("k", [LAST]):
        forecast(toy, other)
    assert counter.count == 1


def test_a_stack_of_unknown_shape_is_not_shared() -> None:
    """Its record may be gone for want of memory, and equal shapes could not be told from others."""
    model = tiny("tiny-chronos-bolt")
    replay = Replay(model)
    with replay.record("windows"):
        model.forecast(full_length(model, 8), 3)
    place = replay.lowest([Component("decoder", 0, "cross", 0)])
    assert place is not None
    assert replay.at_once("windows", place) > 1
    (call,) = replay._records["windows"].calls[replay._units.stacks[0].module or ""]
    call.record = None
    replay._sizes.clear()
    assert replay.at_once("windows", place) == 1
