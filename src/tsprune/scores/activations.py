"""Scores of activations: attention maps and the residual stream, all from one pass over some windows.

1. Some windows of each configuration are run once (`teacher_forced`).
2. During the pass each attention map is reduced to a number per head and window (`maps`), and the residual
   stream is followed: its value before each sublayer, and what the sublayer adds. Neither is kept.
3. Padding does not count: positions that no query may attend to, not even their own.
4. A score is the mean over windows within each configuration, then over configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsprune.anatomy import KINDS, AttentionSite, Block, Component, Kind
from tsprune.errors import TspruneError
from tsprune.evaluation.batching import reading_of
from tsprune.evaluation.sampling import SampledWindows, over_batches, sampled
from tsprune.hooks.attention import AttentionMap, watching
from tsprune.hooks.capture import Point, hook_at, point_in, projection_point
from tsprune.hooks.mixing import Mix, mixes
from tsprune.hooks.stream import stream_of
from tsprune.models.forecaster import Forecaster
from tsprune.progress import showing
from tsprune.scores.maps import (
    Reduction,
    attention_entropic_rank,
    attention_entropy,
    attention_sharpness,
    attention_stable_rank,
)
from tsprune.scores.score import Order, Score, ScoringTask, Values
from tsprune.scores.stable_rank import triangular
from tsprune.scores.weight_scores import value_output

OUTPUT_NORM, BLOCK_INFLUENCE = "output_norm", "block_influence"


def measure_activations(task: ScoringTask) -> Mapping[str, Values]:
    """`ACTIVATION_SCORES` from one pass over a part of the windows."""
    names = {score.name for score in task.scores}
    chosen = sampled(task.windows, task.model, task.per_configuration)
    if len(chosen) == 0:
        raise TspruneError(f"no window of {task.windows.name} can be forecast")
    sums = WindowSums()
    done = 0

    def observed(batch: SampledWindows) -> list[tuple[str, Component, Tensor]]:
        found: list[tuple[str, Component, Tensor]] = []

        def add(name: str, component: Component, values: Tensor) -> None:
            found.append((name, component, values))

        with torch.no_grad(), _observed(task.model, names, task.components, add):
            task.model.teacher_forced(batch.contexts)
        return found

    size = max(1, task.options.batch_size // 4)
    with showing(task.options.progress) as progress:
        batches = over_batches(observed, chosen, task.model, size, reading=reading_of(task.model))
        for batch, found in batches:
            sums.start(batch.configuration.name)
            for values in found:
                sums.add(*values)
            done += len(batch.series)
            progress("activations", done, len(chosen))
    return {name: {c: sums.mean(name, c) for c in task.scored_by(name)} for name in names}


class WindowSums:
    """Sums of window values by configuration, score and component."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Component], dict[str, NDArray[np.float64]]] = {}
        self._configuration = ""

    def start(self, configuration: str) -> None:
        """Later additions belong to this configuration."""
        self._configuration = configuration

    def add(self, name: str, component: Component, values: Tensor) -> None:
        """Adds the values [N] of some windows; NaN does not count."""
        x = values.double().numpy(force=True)
        known = np.isfinite(x)
        of_score = self._found.setdefault((name, component), {})
        before = of_score.get(self._configuration, np.zeros(2))
        of_score[self._configuration] = before + np.array([x[known].sum(), known.sum()])

    def mean(self, name: str, component: Component) -> float:
        """Mean over configurations of the mean over their windows; NaN if nothing was added."""
        found = self._found.get((name, component), {}).values()
        means = [total / count for total, count in found if count]
        return float(np.mean(means)) if means else float("nan")


Add = Callable[[str, Component, Tensor], None]  # (score, component, [N])


# --- observing a pass ----------------------------------------------------------------------------


@contextmanager
def _observed(
    model: Forecaster, names: set[str], components: Collection[Component], add: Add
) -> Iterator[None]:
    """Within the context, every pass adds its values of the scores `names`."""
    follower = _Follower(model, names, frozenset(components), add)
    reductions = {name: MAP_SCORES[name] for name in MAP_SCORES if name in names}

    def each(found: AttentionMap) -> None:
        follower.see(found)
        site = model.anatomy.site(found.component)
        for name, reduce in reductions.items():
            # maps over series may hold several groups, whose rows are apart
            if site.axis == "time" or name in ROW_SCORES:
                values = reduce(found)
                for place, head in enumerate(site.numbers):
                    add(name, dataclasses.replace(found.component, head=head), values[:, place])

    # the maps also show which positions are padding
    maps = watching(model, each) if model.anatomy.components("head") else nullcontext()
    with maps, follower.following() if names & set(STREAM_SCORES) else nullcontext():
        yield


class _Follower:
    """Follows the residual stream of every stack, sublayer by sublayer.

    A sublayer adds its output, or the output of the norm that follows it, with the factors of
    `tsprune.hooks.mixing`. The stream before a sublayer is the block's input plus what the block's earlier
    sublayers added.
    """

    def __init__(
        self, model: Forecaster, names: set[str], components: frozenset[Component], add: Add
    ) -> None:
        self._model = model
        self._names = names
        self._components = components
        self._add = add
        # state of the stack that is running:
        self._real: Tensor | None = None  # [N, T], true where a position is not padding
        self._found: list[tuple[str, Component, Tensor]] = []  # (score, component, [N, T])
        self._given: Tensor | None = None  # input of the running block
        self._stream: Tensor | None = None  # the residual stream so far
        self._mixes: dict[Component, Mix] = {}
        for stack in model.anatomy.stacks:
            self._mixes |= mixes(model, stack)

    def see(self, found: AttentionMap) -> None:
        """Reads from a map which positions are padding."""
        site = self._model.anatomy.site(found.component)
        if site.axis == "time" and site.keys_from is None:
            self._real = found.real.any(1)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Within the context, every block and sublayer is hooked."""
        hooks = ExitStack()

        def on(path: str, hook: Callable[..., None], *, before: bool = False) -> None:
            module: nn.Module = self._model.module.get_submodule(path)
            if before:
                hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            else:
                hooks.callback(module.register_forward_hook(hook).remove)

        def at(point: Point, look: Callable[[Tensor], None]) -> None:
            hooks.callback(hook_at(self._model.module, point, look).remove)

        with self._model.alone(keeps=True), hooks:
            for stack in self._model.anatomy.stacks:
                on(stack.blocks[0].module, self._begin, before=True)
                for layer, block in stack.numbered():
                    self._follow(on, at, Component(stack.name, layer), block)
                on(stack.blocks[-1].module, self._end)
            yield

    def _begin(self, *_: Any) -> None:
        self._real, self._found = None, []

    def _end(self, *_: Any) -> None:
        """Adds the values of the stack that ran: its padding is known by now."""
        for name, component, values in self._found:
            if self._real is not None:  # None if no self-attention is left
                values = torch.where(self._real, values, torch.nan)
            self._add(name, component, values.nanmean(-1))

    def _follow(
        self, on: Callable[..., None], at: Callable[..., None], layer: Component, block: Block
    ) -> None:
        on(block.module, self._enter(block), before=True)
        for site in block.attention:
            sublayer = dataclasses.replace(layer, attention=site.role)
            heads = [dataclasses.replace(sublayer, head=number) for number in site.numbers]
            if OUTPUT_NORM in self._names and self._components & set(heads):
                point = projection_point(block, site, "input")
                at(point, self._heads(sublayer, site, heads, point))
            point = point_in(block, site.norm or site.output, "output", swapped=site.swapped)
            on(point.path, self._wrote(sublayer, point))
        if block.mlp is not None:
            mlp = dataclasses.replace(layer, mlp=True)
            point = point_in(block, block.mlp.norm or block.mlp.output, "output")
            on(point.path, self._wrote(mlp, point))
        on(block.module, self._leave(layer, block))

    def _enter(self, block: Block) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            self._given = self._stream = stream_of(self._model, (args, kwargs), block)

        return hook

    def _leave(self, layer: Component, block: Block) -> Callable[..., None]:
        inside = [mix.kept for component, mix in self._mixes.items() if _within(component, layer)]

        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            assert self._given is not None
            before = self._given
            for factor in inside:
                before = before * factor
            self._step(layer, before, stream_of(self._model, output, block))

        return hook

    def _wrote(self, component: Component, point: Point) -> Callable[..., None]:
        mix = self._mixes.get(component)

        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            assert self._stream is not None
            before = self._stream
            written = point.windows_first(output).reshape(before.shape)
            if mix is not None:
                before, written = before * mix.kept, written * mix.written
            self._stream = before + written
            self._step(component, before, self._stream)

        return hook

    def _heads(
        self, sublayer: Component, site: AttentionSite, heads: list[Component], point: Point
    ) -> Callable[[Tensor], None]:
        _, output = value_output(self._model, site)
        factors = triangular(output) * site.output_scale  # W_O^T = Q R, so that |W_O^T z| is |R z|
        if sublayer in self._mixes:
            factors = factors * self._mixes[sublayer].written

        def look(x: Tensor) -> None:
            mixed = point.windows_first(x).flatten(0, -3)
            mixed = mixed.unflatten(-1, (len(heads), site.head_dim)).double()
            norms = torch.einsum("hde,nthe->nthd", factors, mixed).norm(dim=-1)
            for place, head in enumerate(heads):
                self._found.append((OUTPUT_NORM, head, norms[..., place]))

        return look

    def _step(self, component: Component, before: Tensor, after: Tensor) -> None:
        """Scores `component` by the stream before and after it, [..., T, d_model] each."""
        if component not in self._components:
            return
        x, y = (stream.detach().flatten(0, -3).double() for stream in (before, after))
        if OUTPUT_NORM in self._names:
            self._found.append((OUTPUT_NORM, component, (y - x).norm(dim=-1)))
        if BLOCK_INFLUENCE in self._names:
            self._found.append((BLOCK_INFLUENCE, component, influence(x, y)))


def _within(component: Component, layer: Component) -> bool:
    return (component.stack, component.layer) == (layer.stack, layer.layer)


def influence(before: Tensor, after: Tensor) -> Tensor:
    """1 - cosine between two streams [..., d_model]; NaN where one is zero (Men et al., arXiv 2403.03853)."""
    size = before.norm(dim=-1) * after.norm(dim=-1)
    cosine = (before * after).sum(-1) / size
    return torch.where(size > 0, 1 - cosine, torch.nan)


# --- the scores ----------------------------------------------------------------------------------

MAP_SCORES: Mapping[str, Reduction] = {
    "attention_entropy": attention_entropy,
    "attention_sharpness": attention_sharpness,
    "attention_stable_rank": attention_stable_rank,
    "attention_entropic_rank": attention_entropic_rank,
}
ROW_SCORES = ("attention_entropy", "attention_sharpness")
STREAM_SCORES = (OUTPUT_NORM, BLOCK_INFLUENCE)


def _score(name: str, kinds: tuple[Kind, ...], about: str, redundant: Order = "low-to-high") -> Score:
    return Score(name, kinds, redundant, "windows", about, measure_activations)


ACTIVATION_SCORES = (
    _score(
        "attention_entropy",
        ("head",),
        "mean entropy of the attention rows, in nats; high is diffuse",
        "high-to-low",
    ),
    _score(
        "attention_sharpness",
        ("head",),
        "mean of 1 - entropy / log(keys) over the attention rows (arXiv 2602.01605)",
    ),
    _score(
        "attention_stable_rank",
        ("head",),
        "||A||_F^2 / ||A||_2^2 of the attention maps A: 1 if all queries attend alike",
    ),
    _score(
        "attention_entropic_rank",
        ("head",),
        "exp(-sum p log p), p = s^2 / sum s^2 over the singular values of the attention maps",
    ),
    _score(
        OUTPUT_NORM,
        KINDS,
        "mean norm of what the component adds to the residual stream (of a head: before a norm that "
        "follows the output projection)",
    ),
    _score(
        BLOCK_INFLUENCE,
        ("mlp", "attention", "layer"),
        "mean of 1 - cosine between the residual stream before and after (ShortGPT: Men et al., "
        "arXiv 2403.03853)",
    ),
)
