"""Recovery: distils the original model into a pruned one.

1. A copy of the pruned model, in float32, is trained on synthetic series (`distillation`), all weights.
   Muon (Jordan, 2024) trains the matrices inside the blocks, AdamW everything else.
2. The learning rate warms up, then falls to zero over the steps, or over the minutes allowed.
3. At up to `CHECKS` points the model is scored on the calibration series of a suite. The weights of the best
   score are kept; the initial weights count. Training stops after `patience` checks without improvement. The
   report series are never used: they are for `compare`.
4. The state is written atomically at every check and at least once a minute: a process that was killed
   resumes from there, with the same result as without the interruption.
5. Memory holds the original, the copy that is trained, its gradients and the optimizers. The pruned model and
   the best weights are in files, and the activations of long batches are those of a part of the histories.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from tsprune.arguments import checked, whole
from tsprune.choices import AUTO, Precision
from tsprune.data.pocket import pocket
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError, one_line
from tsprune.evaluation import METRICS, evaluate, geometric_mean_ratios
from tsprune.evaluation.batching import reading_of
from tsprune.memory import free_memory, out_of_memory
from tsprune.models.copies import model_copy
from tsprune.models.forecaster import Forecaster, Origin, Recovery, SamplingForecaster
from tsprune.models.saving import round_weights
from tsprune.precision import autocast, training_precision
from tsprune.progress import Progress, showing
from tsprune.pruning.distillation import check_pair, shares_of_distance
from tsprune.pruning.evidence import measured
from tsprune.pruning.mapped_weights import mapped_weights
from tsprune.pruning.optimizers import optimizers
from tsprune.pruning.own_histories import mixed_histories
from tsprune.pruning.plan import identity
from tsprune.pruning.training_state import BestWeights, read_state, write_state
from tsprune.run_options import Options, RunOptions
from tsprune.sweeps.key import checkpoint_digest

CHECKS = 20
# a check may cost as much as five steps, so a short training has fewer: they are this many steps apart
LEAST_APART = 20
LEAST_CHECKS = 5
SAVE_SECONDS = 60.0
_WARMUP = 50  # steps, at most a tenth of all
# histories * steps * width whose activations a CPU holds at once: as many as 32 x 512 steps at width 128
_PART = 32 * 512 * 128


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The training of a recovery; arguments as in `recover`.

    The defaults favour many small steps on short histories: 250 steps on 64 long histories, on the output
    alone and at a third of the rate, recovered a small part in the same time.
    """

    steps: int = 800
    minutes: float | None = None
    histories: int = 32
    learning_rate: float = 1e-3
    metric: str = "MASE"
    patience: int = 10
    precision: Precision = "float32"
    calibration: float = CALIBRATION_FRACTION
    seed: int = 0
    history: int = 512
    stream: float = 1.0
    own_share: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("histories", 2), ("history", 16)):
            whole(getattr(self, name), name, least=least)
        METRICS.named(self.metric)

    def checks(self, step: int, seconds: float) -> int:
        """Number of checks due by then, without the first."""
        most = min(CHECKS, max(LEAST_CHECKS, self.steps // LEAST_APART))
        return int(self.done(step, seconds) * most + 1e-9)

    def done(self, step: int, seconds: float) -> float:
        """Finished share of the training, in [0, 1]."""
        by_time = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        return min(1.0, max(step / self.steps, by_time))

    def rate(self, step: int, seconds: float) -> float:
        """Learning rate of a step."""
        rise = min(1.0, (step + 1) / max(1, min(_WARMUP, self.steps // 10)))
        return self.learning_rate * rise * (1 - self.done(step, seconds))


_DEFAULT = Recipe()


@checked
def recover(
    model: Forecaster,
    teacher: Forecaster,
    *,
    suite: Suite | None = None,
    steps: int = _DEFAULT.steps,
    minutes: float | None = None,
    histories: int = _DEFAULT.histories,
    history: int = _DEFAULT.history,
    learning_rate: float = _DEFAULT.learning_rate,
    stream: float = _DEFAULT.stream,
    own_share: float = _DEFAULT.own_share,
    metric: str = _DEFAULT.metric,
    patience: int = _DEFAULT.patience,
    calibration: float = CALIBRATION_FRACTION,
    precision: Precision | Literal["auto"] = AUTO,
    state: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
    measure: Suite | None = None,
    **options: Unpack[Options],
) -> Forecaster:
    """A copy of a pruned model, trained to forecast as the original does.

    model : a pruned model, in memory or loaded
    teacher : the model it was pruned from
    suite : series that the best weights are chosen on; None takes the embedded pocket suite
    steps : training steps; `minutes` of wall-clock time, scoring included, may end training earlier
    histories, history : synthetic histories per step, and steps of the longest; shorter ones are cheaper
    learning_rate : its maximum, after the warm-up
    stream : weight of the residual stream's distance, block by block; the weight of the output is 1
    own_share : share of the steps whose histories are cut from the calibration windows of `suite`, with the
        variates of a window together where the model reads them so; the others are synthetic
    metric : a name in `METRICS`, such as "MASE" or "CRPS", by which the best weights are chosen
    patience : checks without improvement after which training stops; there are 20, fewer if that were more
        than one every 20 steps
    calibration : share of the series that the weights are chosen on (`tsprune.data.split`)
    precision : of matrix products; "auto" is bfloat16 where the processor has instructions for it, else
        float32. Weights and sums are float32
    state : file that keeps the state; if it exists, training resumes from it. The result is the same to the
        last bit; with `minutes`, lost time is not trained again
    dtype : type that the weights are rounded to, which `save` writes; None: that of the original
    measure : windows that the result and `model` are measured on, against `teacher`, for the model card
        (`evidence`); those of `suite` that chose no weights are `tsprune.data.split(suite)[1]`
    options : keywords of `tsprune.run_options.RunOptions`; `seed` is of the histories and the split,
        `batch_size` the windows forecast together for a score

    The result has the weights of `model` if no better ones were found. Its `origin` records the training and
    the scores on the calibration series: optimistic figures, as the weights were chosen on them. `model` and
    `teacher` are not changed.

    Raises TspruneError for a model that is not pruned, or not from this teacher, for values out of range,
    a suite without calibration windows, or a state of another recovery.
    """
    chosen = RunOptions(**options)
    precise = training_precision(precision, model.device)
    recipe = Recipe(
        steps,
        minutes,
        histories,
        learning_rate,
        metric,
        patience,
        precise,
        calibration,
        chosen.seed,
        history,
        stream,
        own_share,
    )
    check_pair(model, teacher)
    part, _ = split(pocket() if suite is None else suite, fraction=calibration, seed=chosen.seed)
    part.require_windows()
    student = model_copy(model)
    student.evidence = {}
    student.to(model.device, torch.float32)
    student.module.requires_grad_(True)
    path = None if state is None else Path(state)
    key = _key(model, teacher, part, recipe)
    files = mapped_weights(model.module), BestWeights(model.module)
    with files[0], files[1] as best, showing(chosen.progress) as progress:
        training = _Training(student, teacher, best, part, recipe, chosen.batch_size, path, key)
        trained = training.run(progress)
        _restore(student, model, best.weights)
    scores = dict(trained.scores)
    if round_weights(student, dtype):
        scores[trained.best_step] = training.score()
    del training  # and its optimizers
    assert student.origin is not None
    account = _account(student.origin, teacher, part, recipe, trained, scores)
    student.origin = dataclasses.replace(student.origin, recovery=account)
    student.name = f"{student.origin.name} (pruned, recovered)"
    if measure is not None:
        student.evidence = measured(teacher, student, measure, earlier=model, options=options)
    return student


def _restore(student: Forecaster, model: Forecaster, best: Mapping[str, Tensor]) -> None:
    """Loads the best weights, in the type and with the gradient flags of the pruned model."""
    student.module.load_state_dict(best)
    student.module.zero_grad(set_to_none=True)
    for one, before in zip(student.module.parameters(), model.module.parameters(), strict=True):
        one.requires_grad_(before.requires_grad)
    student.to(model.device, model.dtype)


def _key(model: Forecaster, teacher: Forecaster, calibration: Suite, recipe: Recipe) -> dict[str, Any]:
    """Everything that the result of a recovery depends on, for its state file."""
    samples = (model.samples, model.seed) if isinstance(model, SamplingForecaster) else None
    return {
        "small model": checkpoint_digest(model),
        "teacher": checkpoint_digest(teacher),
        "suite": calibration.fingerprint,
        "samples": list(samples or ()),
        **dataclasses.asdict(recipe),
    }


@dataclasses.dataclass
class Trained:
    """Progress of a training: its state without weights and the optimizers.

    scores : (step, score on the calibration series), from step 0 on; lower is better
    windows : calibration windows that the pruned model could forecast
    """

    step: int = 0
    seconds: float = 0.0
    scores: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    windows: int = 0
    finished: bool = False

    @property
    def best_step(self) -> int:
        """The step of the best score; the earliest of equal ones."""
        return min(self.scores, key=lambda score: (score[1], score[0]))[0]


def _account(
    origin: Origin,
    teacher: Forecaster,
    calibration: Suite,
    recipe: Recipe,
    trained: Trained,
    scores: Mapping[int, float],
) -> Recovery:
    """The record of a recovery for its checkpoint; `scores` by step, of the weights as they are stored."""
    return Recovery(
        teacher=identity(teacher)[0],
        components=len(origin.components),
        steps=trained.step,
        histories=trained.step * recipe.histories,
        best_step=trained.best_step,
        metric=recipe.metric,
        suite=calibration.name,
        windows=len(calibration),
        score_before=scores[0],
        score_after=scores[trained.best_step],
        recipe={**dataclasses.asdict(recipe), "calibration_fingerprint": calibration.fingerprint},
    )


@dataclasses.dataclass
class _Training:
    """A training, from the beginning or resumed from its state file."""

    student: Forecaster
    teacher: Forecaster
    best: BestWeights
    calibration: Suite
    recipe: Recipe
    batch_size: int
    path: Path | None
    key: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._optimizers = optimizers(self.student, self.recipe.precision)
        self._trained = Trained()
        self._saved = time.monotonic()
        self._parts = 1  # of the histories of a step, more if memory ran out

    def run(self, progress: Progress) -> Trained:
        """Trains to the end."""
        if self.path is not None and self.path.exists():
            self._resume(self.path)
        trained, recipe = self._trained, self.recipe
        start = time.monotonic() - trained.seconds
        if not trained.scores:
            self._check()
        longest = min(self.student.context_length, recipe.history)
        sizes = recipe.histories, longest
        stream = mixed_histories(
            self.calibration, recipe.own_share, recipe.seed, trained.step, *sizes, reading_of(self.student)
        )
        due = recipe.checks(trained.step, trained.seconds)
        while not trained.finished:
            self._step(next(stream))
            trained.step += 1
            trained.seconds = time.monotonic() - start
            done = recipe.done(trained.step, trained.seconds)
            progress("training", round(done * recipe.steps), recipe.steps)
            before, due = due, recipe.checks(trained.step, trained.seconds)
            if due > before:
                self._check()
                since_best = sum(step > trained.best_step for step, _ in trained.scores)
                trained.finished = done >= 1 or since_best >= recipe.patience
                self._save()
            elif time.monotonic() - self._saved > SAVE_SECONDS:
                self._save()
        return trained

    def _step(self, contexts: Sequence[Any]) -> None:
        recipe, trained = self.recipe, self._trained
        if len(contexts) < 2:
            return  # differences are measured in deviations over windows
        rate = recipe.rate(trained.step, trained.seconds)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self._gradients(contexts)
        norm = nn.utils.clip_grad_norm_(self.student.module.parameters(), 1.0)
        if torch.isfinite(norm):  # otherwise one bad window would destroy the weights
            for optimizer in self._optimizers:
                optimizer.step()
        self.student.module.zero_grad(set_to_none=True)  # before a check takes their memory

    @property
    def _steps_held(self) -> int:
        """History steps whose activations are held at once."""
        limited = self.student.device.type == "cpu"
        return max(1, _PART // self.student.anatomy.d_model) if limited else sys.maxsize

    @property
    def _windows_held(self) -> int:
        """Windows that a check forecasts together; without gradients they take a quarter of the memory."""
        every = (len(x) for c in self.calibration.configurations for x in c.contexts)
        longest = min(self.student.context_length, max(every))
        return min(self.batch_size, max(1, 4 * self._steps_held // max(1, longest)))

    def _gradients(self, contexts: Sequence[Any]) -> None:
        """Sets the gradients of a step, from as many parts of the histories as memory needs."""
        least = -(-sum(map(np.size, contexts)) // self._steps_held)
        while True:
            self.student.module.zero_grad(set_to_none=True)
            try:
                self._backward(contexts, min(max(least, self._parts), len(contexts) // 2))
                return
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            if len(contexts) < 4 * self._parts:
                raise TspruneError("out of memory with two histories; use a shorter history")
            self._parts *= 2
            free_memory()

    @property
    def _positions(self) -> int | None:
        """The longest sequence that attention sees, but for marks and the future; None if unspecified."""
        spans = [stack.time.span if stack.time else None for stack in self.student.anatomy.stacks]
        known = [span for span in spans if span is not None]
        steps = min(self.student.context_length, self.recipe.history)
        # a decoder reads the encoder's positions
        return -(-steps // max(known)) if len(known) == len(spans) else None

    def _backward(self, contexts: Sequence[Any], parts: int) -> None:
        shares = shares_of_distance(self.student, self.teacher, contexts, parts, stream=self.recipe.stream)
        for _ in range(parts):
            with autocast(self.recipe.precision, self.student.device, positions=self._positions):
                share = next(shares)
            share.backward()

    def _check(self) -> None:
        """Scores the student and keeps its weights if they are the best so far."""
        trained = self._trained
        trained.scores.append((trained.step, self.score()))
        if trained.best_step == trained.step and trained.step:
            self.best.keep(self.student.module.state_dict())

    def score(self) -> float:
        """Score on the calibration series; infinite if a window can no longer be forecast."""
        trained = self._trained
        try:
            table = evaluate(self.student, self.calibration, batch_size=self._windows_held)
            score = geometric_mean_ratios(table)[self.recipe.metric]
        except TspruneError:
            if not trained.scores:
                raise
            return math.inf
        windows = int(table["windows"].sum())
        trained.windows = trained.windows or windows
        return score if windows == trained.windows else math.inf

    def _save(self) -> None:
        if self.path is not None:
            content = dict(vars(self._trained))
            content["best"] = self.best.kept
            content["weights"] = self.student.module.state_dict()
            content["optimizers"] = [optimizer.state_dict() for optimizer in self._optimizers]
            write_state(self.path, self.key, content)
        self._saved = time.monotonic()

    def _resume(self, path: Path) -> None:
        content = read_state(path, self.key)
        try:
            self.student.module.load_state_dict(content.pop("weights"))
            for optimizer, saved in zip(self._optimizers, content.pop("optimizers"), strict=True):
                optimizer.load_state_dict(saved)
            if (best := content.pop("best")) is not None:
                self.best.keep(best)
            self._trained = Trained(**content)
        except Exception as error:  # torch raises errors of many types for a value of the wrong type
            raise TspruneError(
                f"the state {path} is damaged ({one_line(error, 200)}); name another"
            ) from None
