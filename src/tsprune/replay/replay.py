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

Several ablations of one sublayer can be computed in one batch (`ahead`, see `tsprune.replay.ahead`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import torch

from tsprune.anatomy import Component
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.replay.ahead import (
    Ahead,
    Repeated,
    Variant,
    at_once,
    bytes_of,
    comparing,
    piece,
    shape_of,
    together,
)
from tsprune.replay.calls import Call, Ledger
from tsprune.replay.forwards import (
    Forward,
    Gate,
    leading,
    projected,
    remembered,
    replayed,
    resumed,
    substituted_forwards,
)
from tsprune.replay.reading import Reading
from tsprune.replay.recorder import Calls, Recorder
from tsprune.replay.units import position_of, units_of
from tsprune.replay.values import storages

MEMORY = 2 * 2**30

Place = tuple[int, int, int]  # positions of a stack, of a block in it, and of a sublayer in that
SideBySide = Callable[[Sequence[int]], AbstractContextManager[None]]
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
        self._anatomy = model.anatomy
        self._units = units_of(model.anatomy, model.module)
        self._modules = {path: model.module.get_submodule(path) for path in self._units.paths}
        self._reading = Reading.of(model.anatomy, self._units.outside)
        self._memory = memory
        self._records: dict[Hashable, _Pass] = {}
        self._repeated: dict[tuple[Hashable, int, int], Repeated] = {}
        self._at_once: dict[tuple[Hashable, str], tuple[int, int]] = {}

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
        """Records the calls made while the context lasts (a clean pass) under `key`."""
        self.forget(key)
        recorder = Recorder(self._modules, self._units, Ledger(max(0, self._memory - self.nbytes)))
        forwards = recorder.forwards()
        verdicts: dict[str, list[bool]] = {path: [] for path in self._reading.paths}
        for path, agreed in verdicts.items():
            forwards[path] = self._reading.comparing(forwards[path], self._original(path), agreed)
        with substituted_forwards(self._modules, forwards):
            yield
        agreeing = [path for path, agreed in verdicts.items() if all(agreed)]
        self._records[key] = _Pass(recorder.calls, recorder.embeddings, agreeing)

    @contextmanager
    def reuse(
        self, key: Hashable, components: Iterable[Component], ahead: Ahead | None = None
    ) -> Iterator[None]:
        """Everything upstream of `components` returns what was recorded under `key`.

        ahead : of an ablation of `components`; the first calls of the stacks it is of return it, if
            they have the inputs that it was found with

        Without components (an empty ablation) everything is upstream. Raises KeyError for a key
        that was not recorded.
        """
        calls, embeddings, read_alone = self._records[key]
        names = self._units.names
        found = ahead.calls if ahead else {}
        lowest, layer, sublayer = self.lowest(components) or (len(names), 0, 0)
        forwards = {path: remembered(self._original(path), calls[path]) for path in embeddings}
        for name in names[:lowest]:
            forwards |= self._skip_stack(name, calls)
        for name in names[lowest : lowest + 1]:
            begun = int(self._units.stacks.get(name) in found)
            forwards |= self._skip_into_stack(name, layer, sublayer, calls, begun)
            forwards |= self._keep_cross(name, layer, calls)
        forwards |= {path: self._reading.alone(self._original(path)) for path in read_alone}
        for path, call in found.items():
            forwards[path] = replayed(self._original(path), [call], Gate([call]), leads=True)
        with substituted_forwards(self._modules, forwards):
            yield

    def ahead(
        self, key: Hashable, place: Place, count: int, side_by_side: SideBySide
    ) -> tuple[Ahead, ...] | None:
        """What stacks return under `count` ablations, several of which are computed in one batch.

        place : of the lowest sublayer that each of them changes (see `lowest`)
        side_by_side : called with the numbers of some ablations, gives a context in which rows are
            those of the clean batch once per ablation, each repetition under its own

        Returns one `Ahead` per ablation, or None if nothing is gained: stacks that no module wraps, that
        keep state between calls, whose batch is large, or that would take more memory than is left.
        Runs without gradients. What upstream raises on batches unlike the recorded one is raised.
        """
        calls = self._records[key].calls
        names = self._units.names[place[0] :]
        sizes = self._sizes(key, names, count)
        variants = [Variant() for _ in range(count)]
        shapes: list[Hashable] = []
        for name, (size, rows) in zip(names, sizes, strict=False):
            path = self._units.stacks[name]
            clean = calls[path][0].usable
            assert clean is not None
            assert clean.inputs is not None
            for start in range(0, count, size):
                numbers = range(start, min(start + size, count))
                repeated = self._repeats(key, rows, len(numbers))
                forwards: dict[str, Forward] = {}
                if name == names[0]:
                    forwards |= self._skip_into_stack(name, place[1], place[2], repeated)
                    forwards |= self._keep_cross(name, place[1], repeated)
                args, kwargs = together(clean.inputs, [variants[n] for n in numbers], repeated)
                shapes.append((path, len(numbers), shape_of((args, kwargs))))
                with (
                    torch.no_grad(),
                    side_by_side(numbers),
                    substituted_forwards(self._modules, forwards),
                ):
                    output = self._modules[path](*args, **kwargs)
                for index, number in enumerate(numbers):
                    variants[number].take(path, clean, piece(output, index, len(numbers), rows))
        return tuple(Ahead(one.calls, tuple(shapes)) for one in variants) if sizes else None

    @contextmanager
    def compared(self, ahead: Ahead) -> Iterator[list[bool]]:
        """Compares what stacks return, computed as ever, with what was found ahead, to the last bit.

        To be entered within `reuse`. Yields a list with a verdict for each stack by the time it is left.
        """
        verdicts: list[bool] = []
        forwards = {
            path: comparing(self._original(path), call, verdicts) for path, call in ahead.calls.items()
        }
        with substituted_forwards(self._modules, forwards):
            yield verdicts

    def _sizes(self, key: Hashable, names: Sequence[str], count: int) -> list[tuple[int, int]]:
        """(ablations at once, rows of the clean batch) of the stacks that are worth running ahead."""
        sizes: list[tuple[int, int]] = []
        for name in names:
            if (key, name) not in self._at_once:
                self._at_once[key, name] = self._size(key, name)
            size, rows = self._at_once[key, name]
            if size < 2:  # alone it is as quick, later; and so are the stacks after it, by measurement
                break
            sizes.append((min(size, count), rows))
        return sizes

    def _size(self, key: Hashable, name: str) -> tuple[int, int]:
        calls = self._records[key].calls
        path = self._units.stacks.get(name)
        if path is None:
            return 0, 0
        cross = [path for _, path in self._units.cross[name]]
        firsts = (
            call.usable for unit in (path, *self._units.inside(name), *cross) for call in calls[unit][:1]
        )
        nbytes = bytes_of([record for record in firsts if record is not None])
        left = max(0, self._memory - self.nbytes)
        return at_once(calls[path], calls[self._units.entry(name)], nbytes, left)

    def _repeats(self, key: Hashable, rows: int, times: int) -> Repeated:
        """Records repeated for one size of batch: those of another are dropped, as they are large."""
        wanted = key, rows, times
        if wanted not in self._repeated:
            self._repeated = {wanted: Repeated(self._records[key].calls, rows, times)}
        return self._repeated[wanted]

    def _original(self, path: str) -> Forward:
        original: Forward = self._modules[path].forward
        return original

    def _skip_stack(self, name: str, calls: Calls) -> dict[str, Forward]:
        path = self._units.stacks.get(name)
        if path is None:
            return self._skip_blocks(name, len(self._units.blocks[name]), calls)[0]
        gate = Gate(calls[path])
        return {path: replayed(self._original(path), calls[path], gate, leads=True)}

    def _skip_blocks(
        self, name: str, count: int, calls: _Calls, begun: int = 0
    ) -> tuple[dict[str, Forward], Gate]:
        entry = self._units.entry(name)
        gate = Gate(calls[entry], begun)
        forwards = {
            path: replayed(self._original(path), calls[path], gate, leads=path == entry)
            for path in self._units.blocks[name][:count]
        }
        return forwards or {entry: leading(self._original(entry), gate)}, gate

    def _skip_into_stack(
        self, name: str, layer: int, sublayer: int, calls: _Calls, begun: int = 0
    ) -> dict[str, Forward]:
        """begun : see `Gate`"""
        forwards, gate = self._skip_blocks(name, layer, calls, begun)
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
            path: projected(self._original(path), calls[path])
            for layer, path in self._units.cross[name]
            if layer >= first
        }
