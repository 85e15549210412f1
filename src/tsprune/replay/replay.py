"""Replay: what lies upstream of an ablation is returned from a clean pass, not computed again.

1. `record` runs the clean pass once and keeps, call by call, what every unit returned. Units are
   whole stacks, blocks, attention sublayers, MLPs, the key and value projections of cross-attention,
   and the modules that run before any block (patching, embedding, scaling).
2. `reuse` makes every unit upstream of the lowest ablated component return its record: stacks
   before its stack, blocks before its block, sublayers before its sublayer, and, if its stack is not
   the one that is read from, the keys and values made from that one. The lowest component's own
   attention is resumed at its output projection: heads of one sublayer share all that comes before.
3. The readout is computed only where the forecast reads it (`tsprune.replay.reading`).
4. A record is used only if the stack is called with exactly the inputs it had in the clean pass
   (compared, not assumed), and only if no tensor of it was changed in place since.

Results are bit-identical to the plain run on the same batch. (To another batch they may differ by
rounding, with or without replay: how windows are put into batches is part of a protocol.) Objects
that a block changes in place (a key-value cache) are recorded as copies and put back as copies;
gradients do not flow through these.

What cannot be reused: in an autoregressive forecast every step after the first reads what was
forecast (or sampled) so far, so under an ablation that changes the forecast at all, its inputs are
others than in the clean pass, and it is computed. Replayed are the encoder and the first step; of
calls that share a key-value cache, only the first is recorded.

Several ablations of one sublayer can be computed in one batch, whose rows are those of the clean one once
per ablation (`reuse` with `times`, see `tsprune.replay.tiled_records`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.models.substitution import Forward, substituted_forwards
from tsprune.replay.forwards import Gate, leading, projected, remembered, replayed, resumed
from tsprune.replay.reading import Reading
from tsprune.replay.recorded_calls import Call, Ledger
from tsprune.replay.recorded_modules import position_of, units_of
from tsprune.replay.recorder import Calls, Recorder
from tsprune.replay.tiled_records import Repeated, bytes_of, shape_of, worthwhile
from tsprune.replay.values import storages
from tsprune.run_options import MEMORY

Place = tuple[int, int, int]  # positions of a stack, of a block in it, and of a sublayer in that
_Calls = Mapping[str, list[Call]]


class _Pass(NamedTuple):
    """A recorded clean pass.

    embeddings : modules that ran before any block
    read_alone : modules of the readout that give the same bits where only one position is computed
    """

    calls: Calls
    embeddings: list[str]
    read_alone: list[str]


class Replay:
    """Clean-pass records of one model, by a key of the caller's (one per batch of windows).

    memory : bytes that all records together may hold; what does not fit is computed, with the same
        numbers. 0 records nothing.

    Raises TspruneError for a negative `memory`.
    """

    def __init__(self, model: Forecaster, memory: int = MEMORY) -> None:
        if memory < 0:
            raise TspruneError(f"memory for replay must be 0 bytes or more, not {memory}")
        self._model = model
        self._anatomy = model.anatomy
        self._units = units_of(model.anatomy, model.module)
        self._modules = {path: model.module.get_submodule(path) for path in self._units.paths}
        self._reading = Reading.of(model.anatomy, self._units.outside)
        self._memory = memory
        self._records: dict[Hashable, _Pass] = {}
        self._repeated: dict[tuple[Hashable, int], Repeated] = {}
        self._at_once: dict[tuple[Hashable, int], tuple[int, int]] = {}

    @property
    def nbytes(self) -> int:
        """Memory held by the records, in bytes (shared storage counted once)."""
        held: dict[int, int] = {}
        for recorded in self._records.values():
            for call in (call for path_calls in recorded.calls.values() for call in path_calls):
                if call.record is not None:
                    held |= storages((call.record.output, call.record.inputs, call.record.states))
        return sum(held.values())

    def forget(self, key: Hashable) -> None:
        """Drops the record of `key`."""
        self._records.pop(key, None)
        self._repeated.clear()
        self._at_once.clear()

    def lowest(self, components: Iterable[Component]) -> Place | None:
        """The place of the lowest sublayer that `components` change; None without components."""
        return min((position_of(self._anatomy, c) for c in components), default=None)

    @contextmanager
    def record(self, key: Hashable) -> Iterator[None]:
        """Records the calls made while the context lasts (a clean pass) under `key`.

        Until then the model is this thread's, as in `reuse` (`tsprune.models.turns`).
        """
        with self._model.alone(keeps=True):
            yield from self._recorded(key)

    def _recorded(self, key: Hashable) -> Iterator[None]:
        self.forget(key)
        recorder = Recorder(self._modules, self._units, Ledger(max(0, self._memory - self.nbytes)))
        forwards = recorder.forwards()
        verdicts: dict[str, list[bool]] = {path: [] for path in self._reading.paths}
        for path, agreed in verdicts.items():
            forwards[path] = self._reading.comparing(forwards[path], self._original(path), agreed)
        with self._substituted(forwards):
            yield
        agreeing = [path for path, agreed in verdicts.items() if all(agreed)]
        self._records[key] = _Pass(recorder.calls, recorder.embeddings, agreeing)

    @contextmanager
    def reuse(self, key: Hashable, components: Iterable[Component], times: int = 1) -> Iterator[None]:
        """Everything upstream of `components` returns what was recorded under `key`.

        times : how often the rows of the clean batch are repeated: at most what `at_once` says

        Without components (an empty ablation) everything is upstream. Raises KeyError for a key
        that was not recorded.
        """
        with self._model.alone(keeps=True), self._substituted(self._reusing(key, components, times)):
            yield

    def _reusing(self, key: Hashable, components: Iterable[Component], times: int) -> dict[str, Forward]:
        """The forwards that modules have meanwhile, by path."""
        calls, embeddings, read_alone = self._records[key]
        names = self._units.names
        lowest, layer, sublayer = self.lowest(components) or (len(names), 0, 0)
        given = calls if times == 1 else self._repeats(key, lowest, times)
        forwards = {path: remembered(self._original(path), given[path]) for path in embeddings}
        for name in names[:lowest]:
            forwards |= self._skip_stack(name, given)
        for name in names[lowest : lowest + 1]:
            forwards |= self._skip_into_stack(name, layer, sublayer, given)
            forwards |= self._keep_cross(name, layer, given)
        return forwards | {path: self._reading.alone(self._original(path)) for path in read_alone}

    def at_once(self, key: Hashable, place: Place) -> int:
        """How many ablations are worth computing in one batch, whose lowest sublayer is at `place`.

        One where stacks are not modules of their own or keep state between calls, where what is left to
        compute is large, and where there is no memory to repeat what was recorded.
        """
        return self._size(key, place[0])[0]

    def shape(self, key: Hashable) -> Hashable:
        """Shapes of what all stacks were given: equal shapes are computed by the same kernels."""
        calls = self._records[key].calls
        every = (call.usable for path in self._units.stacks.values() for call in calls[path])
        return tuple(shape_of(record.inputs) if record is not None else None for record in every)

    def _size(self, key: Hashable, lowest: int) -> tuple[int, int]:
        """(ablations at once, rows of the clean batch), if the lowest stack is the n-th."""
        if (key, lowest) not in self._at_once:
            self._at_once[key, lowest] = self._found_size(key, lowest)
        return self._at_once[key, lowest]

    def _found_size(self, key: Hashable, lowest: int) -> tuple[int, int]:
        calls, embeddings, _ = self._records[key]
        sizes: list[tuple[int, int]] = []
        for number, name in enumerate(self._units.names):
            path = self._units.stacks.get(name)
            if path is None or len(calls[path]) != len(calls[self._units.entry(name)]):
                return 1, 0
            if any(call.usable is None for call in calls[path]):
                return 1, 0  # its shape is not known, see `shape`
            computed = 1 if number < lowest else 0  # the first call of a stack upstream is not
            pairs = zip(calls[path], calls[self._units.entry(name)], strict=True)
            sizes += [worthwhile(*pair) for pair in pairs][computed:]
        if len({rows for _, rows in sizes}) != 1:
            return 1, 0
        repeated = [*embeddings, *(self._units.stacks[name] for name in self._units.names[:lowest])]
        for name in self._units.names[lowest : lowest + 1]:
            repeated += [*self._units.inside(name), *(path for _, path in self._units.cross[name])]
        nbytes = bytes_of([call for path in repeated for call in calls[path]])
        affordable = max(0, self._memory - self.nbytes) // max(1, nbytes)
        return max(1, min(affordable, *(size for size, _ in sizes))), sizes[0][1]

    def _repeats(self, key: Hashable, lowest: int, times: int) -> Repeated:
        """Records repeated so many times: those of another number are dropped, as they are large."""
        if (key, times) not in self._repeated:
            rows = self._size(key, lowest)[1]
            self._repeated = {(key, times): Repeated(self._records[key].calls, rows, times)}
        return self._repeated[key, times]

    def _original(self, path: str) -> Forward:
        original: Forward = self._modules[path].forward
        return original

    def _substituted(self, forwards: dict[str, Forward]) -> AbstractContextManager[None]:
        return substituted_forwards((self._modules[path], forward) for path, forward in forwards.items())

    def _skip_stack(self, name: str, calls: _Calls) -> dict[str, Forward]:
        path = self._units.stacks.get(name)
        if path is None:
            return self._skip_blocks(name, len(self._units.blocks[name]), calls)[0]
        gate = Gate(calls[path])
        return {path: replayed(self._original(path), calls[path], gate, leads=True)}

    def _skip_blocks(self, name: str, count: int, calls: _Calls) -> tuple[dict[str, Forward], Gate]:
        entry = self._units.entry(name)
        gate = Gate(calls[entry])
        forwards = {
            path: replayed(self._original(path), calls[path], gate, leads=path == entry)
            for path in self._units.blocks[name][:count]
        }
        return forwards or {entry: leading(self._original(entry), gate)}, gate

    def _skip_into_stack(self, name: str, layer: int, sublayer: int, calls: _Calls) -> dict[str, Forward]:
        forwards, gate = self._skip_blocks(name, layer, calls)
        sublayers = self._units.sublayers[name][layer][: sublayer + 1]
        once_a_call = len(calls[self._units.entry(name)])
        if any(len(calls[path]) != once_a_call for x in sublayers for path in x.paths):
            return forwards  # records could not be told apart
        *before, lowest = sublayers
        skipped = [x.module or x.output for x in before] + ([lowest.output] if lowest.module is None else [])
        for path in skipped:
            forwards[path] = replayed(self._original(path), calls[path], gate, leads=False)
        if lowest.module is not None:
            output = self._modules[lowest.output]
            original = self._original(lowest.module)
            forwards[lowest.module] = resumed(
                original, calls[lowest.module], calls[lowest.output], output, gate
            )
        return forwards

    def _keep_cross(self, name: str, first: int, calls: _Calls) -> dict[str, Forward]:
        return {
            path: projected(self._original(path), calls, path)
            for layer, path in self._units.cross[name]
            if layer >= first
        }
