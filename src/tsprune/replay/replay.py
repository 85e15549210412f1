"""Replay: computation upstream of an ablation is returned from a clean pass, not repeated.

1. `record` runs the clean pass once and keeps the result of every call of every unit. Units are stacks,
   blocks, attention sublayers, MLPs, key and value projections of cross-attention, and the modules that run
   before any block (patching, embedding, scaling).
2. `reuse` makes every unit upstream of the lowest ablated component return its record. The attention of that
   component resumes at its output projection, because heads of one sublayer share everything before it.
3. The readout is computed only where the forecast reads it (`tsprune.replay.reading`).
4. A record is used only if the stack gets exactly the inputs of the clean pass (bits are compared), and only
   if no tensor of the record was changed in place.

Results are bit-identical to the plain run on the same batch. Objects that a block changes in place (a
key-value cache) are recorded and restored as copies, through which no gradients flow. Once a clean pass of a
model changed none of their tensors in place, the copies hold the same tensors: copies of the cache of a
Chronos-Bolt of 200 million parameters, after every block, take 115 MB a window of 2048 steps, the rest 40.

Autoregressive steps after the first read earlier forecasts, so an ablation changes their inputs and they
are computed. Of calls that share a key-value cache, only the first is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.models.substitution import Forward, substituted_forwards
from tsprune.replay.comparisons import Comparisons
from tsprune.replay.forwards import Gate, Recorder, leading, projecting, replaying, resuming
from tsprune.replay.reading import Reading
from tsprune.replay.recorded_calls import Call, Ledger, Tiled, bytes_of, joint_size
from tsprune.replay.recorded_modules import StackUnits, position_of, units_of
from tsprune.replay.values import detached_copy, leaves, shared_copy
from tsprune.run_options import MEMORY

Place = tuple[int, int, int]  # positions of a stack, of a block in it, and of a sublayer in that
_Calls = Mapping[str, list[Call]]
_Gated = Callable[[list[Call]], Gate]  # makes the gate of a unit's calls
_Result = TypeVar("_Result")

# whether the states of a network exchange their tensors and never change them, once a clean pass has shown it
_exchanging: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class _Pass(NamedTuple):
    """A recorded clean pass.

    embeddings : modules that ran before any block
    read_alone : modules of the readout that give the same bits at one position alone
    """

    calls: _Calls
    embeddings: list[str]
    read_alone: list[str]


class Replay:
    """Clean-pass records of one model, by a key of the caller's choice (one per batch of windows).

    memory : bytes that all records together may hold; calls without a record are computed, with the same
        results
    whole_readout : computes the readout at every position, for callers that use more than a forecast does

    Raises TspruneError for a negative `memory`.
    """

    def __init__(self, model: Forecaster, memory: int = MEMORY, *, whole_readout: bool = False) -> None:
        if memory < 0:
            raise TspruneError(f"memory for replay must be 0 bytes or more, not {memory}")
        self._model = model
        self._units = units_of(model.anatomy, model.module)
        self._modules = {path: model.module.get_submodule(path) for path in self._units.paths}
        self._reading = Reading.of(model.anatomy, () if whole_readout else self._units.outside)
        self._memory = memory
        self._deferring = True
        self._records: dict[Hashable, _Pass] = {}
        self._tiled: dict[tuple[Hashable, int], Tiled] = {}
        self._sizes: dict[tuple[Hashable, int], tuple[int, int]] = {}

    @property
    def nbytes(self) -> int:
        """Memory held by the records, in bytes; shared storages count once."""
        every = (calls for recorded in self._records.values() for calls in recorded.calls.values())
        return bytes_of(call for calls in every for call in calls)

    def forget(self, key: Hashable) -> None:
        """Drops the record of `key`."""
        self._records.pop(key, None)
        self._tiled.clear()
        self._sizes.clear()

    def release(self, key: Hashable, place: Place) -> None:
        """Drops the part of a record that is of no use to ablations at `place` or later."""
        calls, stacks = self._records[key].calls, self._units.stacks
        number, layer, _ = place
        paths = [path for stack in stacks[:number] if stack.module for path in stack.inside[1:]]
        for stack in stacks[number : number + 1]:
            sublayers = (part for block in stack.sublayers[:layer] for part in block)
            paths += [path for part in sublayers for path in part if path]
            paths += [path for number, path in stack.cross if number < layer]
        kept = [call for path in paths for call in calls[path] if call.record is not None]
        for call in kept:
            call.record = None
        if kept:
            self._tiled.clear()
            self._sizes.clear()

    def lowest(self, components: Iterable[Component]) -> Place | None:
        """The place of the first sublayer that `components` change; None without components."""
        return min((position_of(self._model.anatomy, c) for c in components), default=None)

    @contextmanager
    def record(self, key: Hashable) -> Iterator[None]:
        """Records the calls of a clean pass under `key` while the context lasts.

        The context reserves the model for this thread, as `reuse` does (`tsprune.models.turns`).
        """
        with self._model.alone(keeps=True):
            self.forget(key)
            network = self._model.module
            snapshot = shared_copy if _exchanging.get(network) else detached_copy
            ledger = Ledger(max(0, self._memory - self.nbytes))
            recorder = Recorder(self._modules, self._units, ledger, snapshot)
            forwards = recorder.forwards()
            verdicts: dict[str, list[bool]] = {path: [] for path in self._reading.paths}
            for path, agreed in verdicts.items():
                forwards[path] = self._reading.comparing(forwards[path], self._modules[path].forward, agreed)
            with self._substituted(forwards):
                yield
            if (exchanged := recorder.states_exchange) is not None:
                _exchanging[network] = exchanged
            agreeing = [path for path, agreed in verdicts.items() if all(agreed)]
            self._records[key] = _Pass(recorder.calls, recorder.embeddings, agreeing)

    @contextmanager
    def reuse(self, key: Hashable, components: Iterable[Component], times: int = 1) -> Iterator[None]:
        """Returns records of `key` for all computation upstream of `components` while the context lasts.

        Without components (an empty ablation) everything is upstream.

        times : how often the batch repeats the rows of the clean batch, at most `at_once`

        Raises KeyError if `key` was not recorded.
        """
        with self._reuse(key, components, times, Comparisons()):
            yield

    def computed(
        self, key: Hashable, components: Iterable[Component], work: Callable[[], _Result], times: int = 1
    ) -> _Result:
        """The result of `work`, which forecasts, within `reuse`.

        On an accelerator the first inputs of a unit are taken to be those of the clean pass; whether they
        were is read once, after `work`. If not, `work` is repeated, and nothing is taken for granted again.
        """
        components = tuple(components)
        comparisons = Comparisons(deferring=self._deferring)
        with self._reuse(key, components, times, comparisons):
            result = work()
        if not comparisons.failed:
            return result
        self._deferring = False
        return self.computed(key, components, work, times)

    @contextmanager
    def _reuse(
        self, key: Hashable, components: Iterable[Component], times: int, comparisons: Comparisons
    ) -> Iterator[None]:
        forwards = self._reusing(key, components, times, partial(Gate, comparisons=comparisons))
        with self._model.alone(keeps=True), self._substituted(forwards):
            yield

    def _reusing(
        self, key: Hashable, components: Iterable[Component], times: int, gated: _Gated
    ) -> dict[str, Forward]:
        calls, embeddings, read_alone = self._records[key]
        stacks = self._units.stacks
        lowest, layer, sublayer = self.lowest(components) or (len(stacks), 0, 0)
        if times != 1:
            if (key, times) not in self._tiled:  # those of another `times` are dropped: they are large
                self._tiled = {
                    (key, times): Tiled(calls, self._size(key, lowest)[1], times, self._units.across)
                }
            calls = self._tiled[key, times]
        forwards = {path: self._replaying(path, calls, gated(calls[path])) for path in embeddings}
        for stack in stacks[:lowest]:
            if stack.module is None:
                forwards |= self._skip_blocks(stack, len(stack.blocks), calls, gated(calls[stack.entry]))
            else:
                forwards[stack.module] = self._replaying(stack.module, calls, gated(calls[stack.module]))
        for stack in stacks[lowest : lowest + 1]:
            forwards |= self._skip_into_stack(stack, layer, sublayer, calls, gated(calls[stack.entry]))
            later = (path for number, path in stack.cross if number >= layer)
            forwards |= {path: projecting(self._modules[path].forward, calls, path) for path in later}
        return forwards | {path: self._reading.alone(self._modules[path].forward) for path in read_alone}

    def at_once(self, key: Hashable, place: Place) -> int:
        """Number of ablations worth computing in one batch, if their lowest sublayer is at `place`.

        It is 1 if stacks are not modules of their own or keep state between calls, if the remaining
        computation is large, if no memory is left to tile the records, and if MLPs have experts: the rows
        of an expert are those that chose it, so their number, and the last bit, depends on other ablations.
        """
        blocks = (block for stack in self._model.anatomy.stacks for block in stack.blocks)
        if any(block.mlp and block.mlp.experts for block in blocks):
            return 1
        return self._size(key, place[0])[0]

    def shape(self, key: Hashable) -> Hashable:
        """Shapes and types of all stacks' inputs: equal ones are computed by the same kernels."""
        calls = self._records[key].calls
        every = (call.usable for stack in self._units.stacks if stack.module for call in calls[stack.module])
        return tuple(
            record and tuple((tuple(one.shape), one.dtype) for one in leaves(record.inputs, Tensor))
            for record in every
        )

    def _size(self, key: Hashable, lowest: int) -> tuple[int, int]:
        """(ablations per batch, rows of the clean batch), if the n-th stack is the lowest."""
        if (key, lowest) not in self._sizes:
            self._sizes[key, lowest] = self._found_size(key, lowest)
        return self._sizes[key, lowest]

    def _found_size(self, key: Hashable, lowest: int) -> tuple[int, int]:
        calls, embeddings, _ = self._records[key]
        sizes: list[tuple[int, int]] = []
        tiled = [*embeddings]
        for number, stack in enumerate(self._units.stacks):
            if stack.module is None or len(calls[stack.module]) != len(calls[stack.entry]):
                return 1, 0
            if any(call.usable is None for call in calls[stack.module]):
                return 1, 0  # its shape is unknown, see `shape`
            pairs = zip(calls[stack.module], calls[stack.entry], strict=True)
            # the first call of a stack upstream is not computed
            sizes += [joint_size(*pair) for pair in pairs][1 if number < lowest else 0 :]
            if number < lowest:
                tiled.append(stack.module)
            elif number == lowest:
                tiled += [*stack.inside, *(path for _, path in stack.cross)]
        if len({rows for _, rows in sizes}) != 1:
            return 1, 0
        nbytes = bytes_of(call for path in tiled for call in calls[path])
        affordable = max(0, self._memory - self.nbytes) // max(1, nbytes)
        return max(1, min(affordable, *(size for size, _ in sizes))), sizes[0][1]

    def _substituted(self, forwards: dict[str, Forward]) -> AbstractContextManager[None]:
        return substituted_forwards((self._modules[path], forward) for path, forward in forwards.items())

    def _replaying(self, path: str, calls: _Calls, gate: Gate) -> Forward:
        return replaying(self._modules[path].forward, calls[path], gate)

    def _skip_blocks(self, stack: StackUnits, count: int, calls: _Calls, gate: Gate) -> dict[str, Forward]:
        entry = stack.entry
        forwards = {path: self._replaying(path, calls, gate) for path in stack.blocks[:count]}
        return forwards or {entry: leading(self._modules[entry].forward, gate)}

    def _skip_into_stack(
        self, stack: StackUnits, layer: int, sublayer: int, calls: _Calls, gate: Gate
    ) -> dict[str, Forward]:
        forwards = self._skip_blocks(stack, layer, calls, gate)
        sublayers = stack.sublayers[layer][: sublayer + 1]
        if any(len(calls[path]) != len(calls[stack.entry]) for x in sublayers for path in x if path):
            return forwards  # records could not be told apart
        *before, lowest = sublayers
        for x in before:
            path = x.module or x.output
            forwards[path] = self._replaying(path, calls, gate)
        module, output = lowest.module, lowest.output
        if module is None:
            return forwards | {output: self._replaying(output, calls, gate)}
        original, projection = self._modules[module].forward, self._modules[output]
        return forwards | {module: resuming(original, calls[module], calls[output], projection, gate)}
