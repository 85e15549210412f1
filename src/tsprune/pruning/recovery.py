"""Recovery: a pruned model learns to say again what its teacher, the model it was made from, says.

1. A copy of the pruned model, in float32, is trained on synthetic series (`distillation`), all weights.
   Matrices inside the blocks go by Muon (Jordan, 2024), everything else by AdamW.
2. The learning rate warms up and then falls to zero over the steps, or over the minutes allowed.
3. `CHECKS` times on the way the model is scored on the calibration series of a suite, and the weights of
   the best score are kept, those of the beginning among them. If the score has not improved for
   `patience` checks, training stops. The report series are never looked at: they are for `compare`.
4. The state is written aside and renamed, at every check and at least once a minute: a process that was
   killed goes on from there, with the same numbers as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsprune.arguments import checked
from tsprune.data.pocket import pocket
from tsprune.data.split import CALIBRATION_FRACTION, split
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError, one_line
from tsprune.evaluation import METRICS, evaluate, geometric_mean_ratios
from tsprune.models.forecaster import Forecaster, Origin, Recovery, SamplingForecaster
from tsprune.models.saving import round_weights
from tsprune.precision import AUTO, PRECISIONS, Muon, Precision, autocast, training_precision
from tsprune.pruning.distillation import check_pair, distance, histories
from tsprune.pruning.plan import identity
from tsprune.pruning.surgery import copied
from tsprune.pruning.training_state import read_state, write_state
from tsprune.sweeps.key import checkpoint_digest

# many small steps on short histories: with 250 on 64 long ones, of the output alone and at a third of the
# rate, as much time brought back a small part of what 30 % of the blocks' parameters had cost
STEPS = 800
BATCH_SIZE = 32  # histories a step
LEARNING_RATE = 1e-3
HISTORY = 512
STREAM = 1.0
WARMUP = 50  # steps, at most a tenth of all
CHECKS = 20
PATIENCE = 10  # checks
SAVE_SECONDS = 60.0

Progress = Callable[[int, int], None]  # (steps done, of all)
Weights = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is recovered; what its numbers depend on, beside the models and the suite.

    minutes : on the clock, scores included, after which training ends before `steps` do; None: no limit
    precision : of the products in the networks; weights and sums are float32
    history : steps of the longest histories; shorter ones make more steps in the same time
    stream : weight of the residual stream's distance beside that of the output
    """

    steps: int = STEPS
    minutes: float | None = None
    batch_size: int = BATCH_SIZE
    learning_rate: float = LEARNING_RATE
    metric: str = "MASE"
    patience: int = PATIENCE
    precision: Precision = "float32"
    calibration_fraction: float = CALIBRATION_FRACTION
    seed: int = 0
    history: int = HISTORY
    stream: float = STREAM

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 2), ("patience", 1), ("history", 16)):
            if getattr(self, name) < least:
                raise TspruneError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("learning_rate", "minutes"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TspruneError(f"{name} must be a number above 0, not {value}")
        if not 0 <= self.stream < math.inf:
            raise TspruneError(f"stream must be a number of at least 0, not {self.stream}")
        METRICS.named(self.metric)
        if self.precision not in PRECISIONS:
            raise TspruneError(f"unknown precision {self.precision!r}; one of: {', '.join(PRECISIONS)}")

    def checks(self, step: int, seconds: float) -> int:
        """How many scores on the calibration series are due by then, beside the first."""
        return int(self.done(step, seconds) * CHECKS + 1e-9)

    def done(self, step: int, seconds: float) -> float:
        """Share of the training that is over, 0 to 1."""
        by_time = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        return min(1.0, max(step / self.steps, by_time))

    def rate(self, step: int, seconds: float) -> float:
        """Learning rate of a step."""
        rise = min(1.0, (step + 1) / max(1, min(WARMUP, self.steps // 10)))
        return self.learning_rate * rise * (1 - self.done(step, seconds))


@dataclasses.dataclass
class Trained:
    """How far a training is; what its state consists of, beside weights and optimizers.

    best : weights with the best score so far
    scores : (step, score on the calibration series), from step 0 on; lower is better
    windows : of these series that could be forecast in the beginning
    finished : whether there is nothing left to do
    """

    best: Weights
    step: int = 0
    seconds: float = 0.0
    scores: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    windows: int = 0
    finished: bool = False

    @property
    def best_step(self) -> int:
        """The step of the best score; of equal ones, the earliest."""
        return min(self.scores, key=lambda score: (score[1], score[0]))[0]

    def checks_since_best(self) -> int:
        return sum(step > self.best_step for step, _ in self.scores)


@checked
def recover(
    small: Forecaster,
    teacher: Forecaster,
    suite: Suite | None = None,
    *,
    steps: int = STEPS,
    minutes: float | None = None,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
    metric: str = "MASE",
    patience: int = PATIENCE,
    precision: Precision | Literal["auto"] = AUTO,
    calibration_fraction: float = CALIBRATION_FRACTION,
    seed: int = 0,
    history: int = HISTORY,
    stream: float = STREAM,
    state: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
    progress: Progress | None = None,
) -> Forecaster:
    """A copy of a pruned model, trained for a while to forecast as its teacher does.

    small : a pruned model, in memory or loaded
    teacher : the model it was made from
    suite : what the best weights are chosen on, by `metric`; the embedded one by default. Only its
        calibration series are looked at (`tsprune.data.split` with `calibration_fraction` and `seed`)
    steps : of training, each on `batch_size` synthetic histories; minutes ends it earlier
    learning_rate : the highest, after the first steps; it falls to zero
    patience : checks (a twentieth of the steps each) without improvement after which training stops
    precision : of the products in the networks, "float32" or "bfloat16"; "auto": bfloat16 where the
        processor has instructions for it
    seed : of the histories, and of the split
    history : steps of the longest histories, if the model takes that many; shorter ones are cheaper
    stream : weight of the residual stream's distance, block by block, beside that of the output
    state : file that keeps the state; if it is there, training goes on from it (with `minutes` the time
        that was lost is not trained again, else the result is the same to the last bit)
    dtype : type that the weights are rounded to, which is what `save` writes; None: that of the original
    progress : called after each step with (steps done, of all); with `minutes`, in shares of these

    The result may be `small` as it was, if nothing better was found. Its `origin` says how it was
    recovered, and the scores on the calibration series, which is too little: it was chosen on them.
    `small` and `teacher` are left as they were.

    Raises TspruneError for a model that is not pruned, or not from this teacher, for a recipe that cannot
    be, a suite without calibration windows, or a state of another recovery.
    """
    recipe = Recipe(
        steps,
        minutes,
        batch_size,
        learning_rate,
        metric,
        patience,
        training_precision(precision, small.device),
        calibration_fraction,
        seed,
        history,
        stream,
    )
    check_pair(small, teacher)
    whole = pocket() if suite is None else suite
    calibration, _ = split(whole, fraction=calibration_fraction, seed=seed)
    calibration.require_windows()
    student = copied(small)
    computed_in = next(small.module.parameters()).dtype
    student.to(small.device, torch.float32)
    student.module.requires_grad_(True)
    key = _key(small, teacher, calibration, recipe)
    training = _Training(student, teacher, calibration, recipe, None if state is None else Path(state), key)
    trained = training.run(progress or (lambda done, total: None))
    student.module.load_state_dict(trained.best)
    student.module.zero_grad(set_to_none=True)
    for one, before in zip(student.module.parameters(), small.module.parameters(), strict=True):
        one.requires_grad_(before.requires_grad)
    student.to(small.device, computed_in)
    scores = dict(trained.scores)
    if round_weights(student, dtype):
        scores[trained.best_step] = training.score()
    assert student.origin is not None
    account = _account(student.origin, teacher, calibration, recipe, trained, scores)
    student.origin = dataclasses.replace(student.origin, recovery=account)
    student.name = f"{student.origin.name} (pruned, recovered)"
    return student


def _key(small: Forecaster, teacher: Forecaster, calibration: Suite, recipe: Recipe) -> dict[str, Any]:
    """What the numbers of a recovery depend on, as a state file says it."""
    samples = (small.samples, small.seed) if isinstance(small, SamplingForecaster) else None
    return {
        "small model": checkpoint_digest(small),
        "teacher": checkpoint_digest(teacher),
        "suite": calibration.fingerprint,
        "samples": list(samples or ()),
        **dataclasses.asdict(recipe),
    }


def _account(
    origin: Origin,
    teacher: Forecaster,
    calibration: Suite,
    recipe: Recipe,
    trained: Trained,
    scores: Mapping[int, float],
) -> Recovery:
    """How a model was recovered, for its checkpoint; `scores` by step, of the weights as they are stored."""
    return Recovery(
        teacher=identity(teacher)[0],
        components=len(origin.components),
        steps=trained.step,
        histories=trained.step * recipe.batch_size,
        best_step=trained.best_step,
        metric=recipe.metric,
        suite=calibration.name,
        windows=len(calibration),
        score_before=scores[0],
        score_after=scores[trained.best_step],
        recipe={**dataclasses.asdict(recipe), "calibration": calibration.fingerprint},
    )


# --- training ------------------------------------------------------------------------------------


class _Training:
    """A student on its way, from the beginning or from where its state is."""

    def __init__(
        self,
        student: Forecaster,
        teacher: Forecaster,
        calibration: Suite,
        recipe: Recipe,
        path: Path | None,
        key: Mapping[str, Any],
    ) -> None:
        self._student = student
        self._teacher = teacher
        self._calibration = calibration
        self._recipe = recipe
        self._path = path
        self._key = key
        self._optimizers = optimizers(student, recipe.precision)
        self._trained = Trained(_weights(student))
        self._saved = time.monotonic()

    def run(self, progress: Progress) -> Trained:
        """Trains to the end and returns how far that was."""
        if self._path is not None and self._path.exists():
            self._restore(self._path)
        trained, recipe = self._trained, self._recipe
        start = time.monotonic() - trained.seconds
        if not trained.scores:
            self._check()
        stream = histories(
            recipe.seed,
            trained.step,
            recipe.batch_size,
            min(self._student.context_length, recipe.history),
        )
        due = recipe.checks(trained.step, trained.seconds)
        while not trained.finished:
            self._step(next(stream))
            trained.step += 1
            trained.seconds = time.monotonic() - start
            done = recipe.done(trained.step, trained.seconds)
            progress(round(done * recipe.steps), recipe.steps)
            before, due = due, recipe.checks(trained.step, trained.seconds)
            if due > before:
                self._check()
                trained.finished = done >= 1 or trained.checks_since_best() >= recipe.patience
                self._save()
            elif time.monotonic() - self._saved > SAVE_SECONDS:
                self._save()
        return trained

    def _step(self, contexts: Sequence[Any]) -> None:
        recipe, trained = self._recipe, self._trained
        if len(contexts) < 2:
            return  # differences are measured in deviations over windows
        rate = recipe.rate(trained.step, trained.seconds)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate
        with autocast(recipe.precision, self._student.device):
            loss = distance(self._student, self._teacher, contexts, stream=recipe.stream)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._student.module.parameters(), 1.0)
        if torch.isfinite(norm):  # else one strange window would cost all that was learnt
            for optimizer in self._optimizers:
                optimizer.step()

    def _check(self) -> None:
        """Scores the student as it is, and keeps its weights if none was better."""
        trained = self._trained
        trained.scores.append((trained.step, self.score()))
        if trained.best_step == trained.step:
            trained.best = _weights(self._student)

    def score(self) -> float:
        """Of the student, on the calibration series; infinite if it cannot forecast all windows of before."""
        trained = self._trained
        try:
            frame = evaluate(self._student, self._calibration)
            score = geometric_mean_ratios(frame)[self._recipe.metric]
        except TspruneError:
            if not trained.scores:
                raise
            return math.inf
        windows = int(frame["windows"].sum())
        trained.windows = trained.windows or windows
        return score if windows == trained.windows else math.inf

    def _save(self) -> None:
        if self._path is not None:
            trained = self._trained
            content = {field.name: getattr(trained, field.name) for field in dataclasses.fields(trained)}
            content["weights"] = self._student.module.state_dict()
            content["optimizers"] = [optimizer.state_dict() for optimizer in self._optimizers]
            write_state(self._path, self._key, content)
        self._saved = time.monotonic()

    def _restore(self, path: Path) -> None:
        content = read_state(path, self._key)
        try:
            self._student.module.load_state_dict(content.pop("weights"))
            for optimizer, saved in zip(self._optimizers, content.pop("optimizers"), strict=True):
                optimizer.load_state_dict(saved)
            self._trained = Trained(**content)
        except Exception as error:  # torch raises whatever a value of another type leads to
            raise TspruneError(
                f"the state {path} is damaged ({one_line(error, 200)}); name another"
            ) from None


def _weights(model: Forecaster) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.module.state_dict().items()}


def optimizers(model: Forecaster, precision: Precision) -> list[torch.optim.Optimizer]:
    """Of the matrices inside the blocks, and of everything else."""
    matrices, rest = _matrices(model)
    adamw = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(matrices, precision=precision), adamw] if matrices else [adamw]


def _matrices(model: Forecaster) -> tuple[list[Tensor], list[Tensor]]:
    """(weights of linear maps inside the blocks, all other parameters)."""
    blocks = [block for stack in model.anatomy.stacks for block in stack.blocks]
    modules = [part for block in blocks for part in model.module.get_submodule(block.module).modules()]
    maps = {id(part.weight) for part in modules if isinstance(part, nn.Linear) and part.weight.numel()}
    parameters = list(model.module.parameters())
    return [p for p in parameters if id(p) in maps], [p for p in parameters if id(p) not in maps]
