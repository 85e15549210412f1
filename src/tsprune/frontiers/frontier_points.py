"""The points of a frontier: weights (original, pruned, recovered, siblings), and the runtimes of each."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from tsprune.anatomy import Component
from tsprune.choices import BFLOAT16, COMPILED, ONNX_RUNTIMES, TORCH
from tsprune.cost.latency import Timed
from tsprune.data.split import split
from tsprune.data.suite import Suite
from tsprune.deployment.conversion import exports
from tsprune.deployment.description import is_export
from tsprune.deployment.exported import load_exported
from tsprune.errors import TspruneError, one_line
from tsprune.models import Forecast, Forecaster, load
from tsprune.models.contexts import MOST_STEPS
from tsprune.models.copies import model_copy
from tsprune.precision import native_bfloat16
from tsprune.pruning.plan import Plan
from tsprune.pruning.recovery import recover
from tsprune.pruning.savings import Components, joined
from tsprune.pruning.search import plan
from tsprune.pruning.surgery import prune
from tsprune.run_options import RunOptions

ORIGINAL = "original"
_HORIZON, _DECODED = 64, 24
_CALIBRATION_WINDOWS = 120  # that decide which products of an int8 graph stay in fp32
_Make = Callable[[], Forecaster | Timed]
_ALIKE = 1e-3  # of forecasts of a compiled model, relative to the largest


@dataclasses.dataclass(frozen=True)
class FrontierWeights:
    """One version of the model, or a sibling.

    name : "original", "pruned 30 %", "without 3 heads", "pruned 30 %, 800 steps of recovery", or a sibling's
    make : loads it, or makes it and writes it to its folder
    mark : tells weights with one name apart in the names of folders
    """

    name: str
    make: Callable[[], Forecaster]
    mark: str = ""

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return _as_folder(f"{self.name} {self.mark}")


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Makes the weights of a frontier, each once: they are kept in a folder.

    original : by torch, on the CPU
    savings : shares of the estimated time of a forecast that pruned versions save
    plans : of further pruned versions
    steps : of recovery; 0: none
    siblings : names of other models
    runtimes : names of `RUNTIMES`
    suite : of which one half is for choices, and the other measures losses
    """

    original: Forecaster
    folder: Path
    savings: Sequence[float]
    plans: Sequence[Plan]
    steps: int
    siblings: Sequence[str]
    runtimes: Sequence[str]
    suite: Suite
    options: RunOptions

    def weights(self) -> Iterator[FrontierWeights]:
        """All versions, those first that others are made from."""
        yield FrontierWeights(ORIGINAL, lambda: self.original)
        smaller = [
            FrontierWeights(_pruned_name(one), partial(self.pruned, one)) for one in sorted(self.savings)
        ]
        smaller += [self._without(one) for one in self.plans]
        yield from smaller
        for one in smaller if self.steps else ():
            name = f"{one.name}, {self.steps} steps of recovery"
            mended = FrontierWeights(name, one.make, one.mark)
            yield dataclasses.replace(mended, make=partial(self.recovered, one, mended.folder))
        for name in self.siblings:
            yield FrontierWeights(name, partial(load, name, device="cpu"))

    def pruned(self, saving: float) -> Forecaster:
        """The model without what saves at least `saving`, along one path of removals for all savings."""
        place = self.folder / "models" / _as_folder(_pruned_name(saving))
        if not place.is_dir():
            found = plan(self.original, saving=max(self.savings), **self.options.keywords())
            for one in self.savings:
                path = self.folder / "models" / _as_folder(_pruned_name(one))
                if not path.is_dir():
                    prune(self.original, _until(found.provenance["path"], one)).save(path)
        return _kept(self.original, place)

    def _without(self, one: Plan) -> FrontierWeights:
        """The model without the components of a plan."""
        addresses = " ".join(part.address for part in one.components)
        mark = hashlib.sha256(addresses.encode()).hexdigest()[:8]
        found = FrontierWeights(f"without {one.removed}", lambda: self.original, mark)

        def make() -> Forecaster:
            place = self.folder / "models" / found.folder
            if not place.is_dir():
                prune(self.original, one).save(place)
            return _kept(self.original, place)

        return dataclasses.replace(found, make=make)

    def recovered(self, smaller: FrontierWeights, folder: str) -> Forecaster:
        """A pruned model after `steps` of recovery; the state of a stopped one is kept beside it."""
        place = self.folder / "models" / folder
        if not place.is_dir():
            state = place.with_name(f"{place.name}.state")
            found = recover(
                smaller.make(),
                self.original,
                suite=self.suite,
                steps=self.steps,
                state=state,
                **self.options.keywords(),
            )
            found.save(place)
            state.unlink(missing_ok=True)
        return _kept(self.original, place)

    def made(self, weights: FrontierWeights) -> Iterator[tuple[str, _Make]]:
        """The runtimes of these weights, and how to make each; making raises TspruneError where it fails."""
        if TORCH in self.runtimes or weights.name == ORIGINAL:
            yield TORCH, weights.make
        if weights.name == ORIGINAL:
            ways: dict[str, _Make] = {
                BFLOAT16: partial(_in_bfloat16, self.original),
                COMPILED: lambda: self._compiled_original,
            }
            yield from ((name, way) for name, way in ways.items() if name in self.runtimes)
        for name, precision in ONNX_RUNTIMES.items():
            if name in self.runtimes:
                yield name, partial(self._exported, weights, precision)

    def _exported(self, weights: FrontierWeights, precision: str) -> Timed:
        wanted = [one for name, one in ONNX_RUNTIMES.items() if name in self.runtimes]
        folders = {one: self.folder / "exports" / f"{weights.folder}-{one}" for one in wanted}
        missing = {one: path for one, path in folders.items() if not is_export(path)}
        if precision in missing:  # all at once: tracing is most of the work
            calibration, _ = split(self.suite, seed=self.options.seed)
            sample = calibration.sample(_CALIBRATION_WINDOWS, seed=self.options.seed)
            how: Any = {"horizon": self.horizon, "suite": sample}
            model = weights.make()
            try:
                exports(model, missing, **how)
            except TspruneError:  # of another precision, perhaps
                if len(missing) == 1:
                    raise
                exports(model, {precision: missing[precision]}, **how)
        return load_exported(folders[precision], threads=torch.get_num_threads())

    @cached_property
    def _compiled_original(self) -> Forecaster | Timed:
        """Kept, as compiling takes a minute."""
        return _compiled(self.original)

    @property
    def horizon(self) -> int:
        """Steps that exports forecast: those of a pass, and all that the suite asks for."""
        own = max(self.original.readout_horizon, timed_steps(self.original))
        return max(own, *(c.horizon for c in self.suite.configurations))


def _as_folder(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def timed_steps(model: Forecaster) -> int:
    """Steps of the forecasts that are timed; a model that decodes value by value takes as many passes."""
    return _DECODED if model.anatomy.tokens else min(_HORIZON, model.readout_horizon)


def _pruned_name(saving: float) -> str:
    return f"pruned {100 * saving:g} %"


def _until(path: Sequence[Mapping[str, object]], saving: float) -> Components:
    """The components that a plan's path removes until a share is saved."""
    components: Components = ()
    for step in path:
        for address in step["added"]:  # type: ignore[attr-defined]
            components = joined(components, Component.parse(address))
        if float(step["saving"]) >= saving - 1e-9:  # type: ignore[arg-type]
            break
    return components


def _kept(original: Forecaster, folder: Path) -> Forecaster:
    """A checkpoint that was written, in the precision of the original; as users will load it."""
    found = load(folder, device="cpu", samples=getattr(original, "samples", None))
    found.to(original.device, original.dtype)
    return found


def _in_bfloat16(model: Forecaster) -> Forecaster | Timed:
    if not native_bfloat16():
        raise TspruneError("this processor has no instructions for bfloat16, and torch is slower with it")
    model.require_dtype(torch.bfloat16)
    half = model_copy(model)
    half.to(model.device, torch.bfloat16)
    return half


def _compiled(model: Forecaster) -> Forecaster | Timed:
    """A copy whose network is compiled; TspruneError where that fails, or changes forecasts."""
    if model.anatomy.tokens:
        raise TspruneError("a model that decodes value by value is not compiled")
    network = model_copy(model)
    series = list(np.random.default_rng(0).standard_normal((2, 64)).cumsum(1).astype(np.float32))
    try:
        network.module.compile(dynamic=True)
        same = network.forecast(series, 8).quantiles
    except Exception as error:  # of the compiler's own classes, or of a C++ compiler that is missing
        raise TspruneError(f"torch.compile fails here ({one_line(error, 120)})") from None
    expected = model.forecast(series, 8).quantiles
    if not np.abs(same - expected).max() <= _ALIKE * np.abs(expected).max():
        raise TspruneError("forecasts of the compiled model are not the original's")
    return CompiledModel(network)


class CompiledModel:
    """A model whose network is compiled: it is timed, and its operations cannot be counted."""

    def __init__(self, network: Forecaster) -> None:
        self._network = network
        self.name, self.context_length = network.name, network.context_length
        self.parameter_count, self.horizon = network.parameter_count, MOST_STEPS
        self.weight_bytes = sum(parameter.nbytes for parameter in network.module.parameters())

    def forecast(self, contexts: Sequence[ArrayLike], horizon: int) -> Forecast:
        """See `Forecaster.forecast`."""
        return self._network.forecast(contexts, horizon)
