"""The training loop every bundled checkpoint goes through.

1. Batches come from `tsprune.data.training.batches`, a pure function of the seed and the step.
2. Hidden weight matrices are trained by Muon, everything else by AdamW.
3. The learning rate warms up, stays, and decays to zero over the last part ("trapezoid"), so a run
   can be extended from the state saved just before its decay.
4. The state is written aside and renamed, so an interruption at any instant loses at most
   `SAVE_EVERY` steps.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tsprune.choices import AUTO, Precision
from tsprune.data.training import ALL_SERIES, Source, Windows, batches
from tsprune.errors import TspruneError
from tsprune.precision import FEW_POSITIONS, Muon, autocast, training_precision

SAVE_EVERY = 500
LOG_EVERY = 100
WEIGHT_DECAY = 0.01


class Objective(Protocol):
    """What a family brings to the loop: a model, its loss, and how it is saved."""

    window_length: int
    series_length: int
    positions: int = FEW_POSITIONS  # the longest sequence that attention sees, or more: patches are few

    def build(self) -> nn.Module:
        """The untrained upstream model (auxiliary training-only heads may be attached)."""
        ...

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        """Loss of a batch of windows [B, window_length]."""
        ...

    def rates(self, model: nn.Module) -> Mapping[str, float]:
        """Factors of the learning rate by parameter, for layers that scale their weights; 1 by default.

        Weight decay does not follow them.
        """
        return {}

    def adopt(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of an earlier run in the shapes of this one: the same, unless a family says more."""
        return weights

    def export(self, model: nn.Module, directory: Path) -> None:
        """Writes the checkpoint in the upstream format."""
        ...


@dataclasses.dataclass(frozen=True)
class Losses:
    total: Tensor  # what is minimised
    forecast: Tensor  # what is watched: the loss of the forecast alone


@dataclasses.dataclass(frozen=True)
class Schedule:
    steps: int
    batch_size: int
    learning_rate: float  # of AdamW; Muon's update is matched to its root mean square
    warmup: int = 300
    decay: float = 0.25  # the last fraction of the steps
    # parameters outside of the blocks' matrices that learn faster: (part of the name, factor)
    faster: tuple[tuple[str, float], ...] = ()

    @property
    def decay_start(self) -> int:
        return int(self.steps * (1 - self.decay))

    def factor(self, step: int) -> float:
        rise = min(1.0, (step + 1) / self.warmup)
        fall = min(1.0, (self.steps - step) / max(1, self.steps - self.decay_start))
        return rise * fall


def _split(
    parameters: Iterable[tuple[str, Tensor]],
) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """(matrices inside the transformer blocks, everything else), by name."""
    matrices: list[tuple[str, Tensor]] = []
    rest: list[tuple[str, Tensor]] = []
    for name, parameter in parameters:
        inside = any(part in name for part in ("block.", "stacked_xf.", "layers."))
        is_matrix = parameter.ndim == 2 and not any(part in name for part in ("attention_bias", "attn_bias"))
        if inside and is_matrix:
            matrices.append((name, parameter))
        else:
            rest.append((name, parameter))
    return matrices, rest


def optimizers(
    model: nn.Module, schedule: Schedule, precision: Precision, rates: Mapping[str, float] | None = None
) -> list[torch.optim.Optimizer]:
    """Muon and AdamW; `rates` are those of `Objective.rates`."""
    matrices, rest = _split(model.named_parameters())
    return [
        Muon(_groups(matrices, (), rates or {}), lr=schedule.learning_rate, precision=precision),
        torch.optim.AdamW(
            _groups(rest, schedule.faster, rates or {}), lr=schedule.learning_rate, betas=(0.9, 0.98)
        ),
    ]


def _groups(
    parameters: Iterable[tuple[str, Tensor]], faster: Iterable[tuple[str, float]], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Parameters by the factor of their learning rate, as an optimiser takes them."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in parameters:
        factor = next((factor for part, factor in faster if part in name), 1.0)
        groups.setdefault((factor, rates.get(name, 1.0)), []).append(parameter)
    return [
        {"params": group, "factor": factor * rate, "weight_decay": WEIGHT_DECAY / rate}
        for (factor, rate), group in groups.items()
    ]


@dataclasses.dataclass
class _Run:
    """A training on its way: how far it is, and all that its next steps depend on."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    precision: Precision
    step: int = 0
    seconds: float = 0.0  # of the processor, over all processes that trained
    average: float | None = None  # running average of the forecast's loss

    def save(self, path: Path) -> None:
        aside = path.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "precision": self.precision,
                "step": self.step,
                "seconds": self.seconds,
                "average": self.average,
            },
            aside,
        )
        aside.replace(path)

    def restore(self, path: Path) -> None:
        """Raises TspruneError for the state of a training in another precision."""
        state = torch.load(path, weights_only=True)
        if state["precision"] != self.precision:
            raise TspruneError(
                f"{path} was trained in {state['precision']}, not {self.precision}; "
                f"go on with --precision {state['precision']}"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.average = state["step"], state["seconds"], state["average"]

    def advance(self, objective: Objective, schedule: Schedule, windows: Windows) -> None:
        """One step of the optimisers."""
        started = time.process_time()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * schedule.factor(self.step) * group["factor"]
            optimizer.zero_grad(set_to_none=True)
        with autocast(self.precision, positions=objective.positions):
            losses = objective.loss(self.model, windows, self.step, self.step / schedule.steps)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        value = float(losses.forecast.detach())
        self.average = value if self.average is None else 0.99 * self.average + 0.01 * value
        self.seconds += time.process_time() - started


def train(
    objective: Objective,
    schedule: Schedule,
    directory: Path,
    *,
    seed: int,
    start: Path | None = None,
    precision: str = AUTO,
    source: Source = ALL_SERIES,
    save_seconds: float = math.inf,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """Trains to `schedule.steps`, resuming from `directory/state.pt` if it is there.

    A run that begins takes its weights from `start`, the `state.pt` or `before_decay.pt` of an
    earlier one, if it is given; its optimisers and its data begin anew.
    precision : "float32", "bfloat16", or "auto": bfloat16 where the processor has instructions for it
    source : the synthetic series that windows are cut from
    save_seconds : the state is saved after so many seconds, and every `SAVE_EVERY` steps

    Writes `state.pt`, `before_decay.pt` (to extend the run from) and `loss.jsonl`; the exported
    checkpoint goes to `directory/checkpoint`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = objective.build()
    state_file, stable_file = directory / "state.pt", directory / "before_decay.pt"
    if precision == AUTO and state_file.exists():
        precision = torch.load(state_file, weights_only=True)["precision"]
    chosen = training_precision(precision)
    run = _Run(model, optimizers(model, schedule, chosen, objective.rates(model)), chosen)
    if state_file.exists():
        run.restore(state_file)
    elif start is not None:
        model.load_state_dict(objective.adopt(torch.load(start, weights_only=True)["model"]))
    length, series_length = objective.window_length, objective.series_length
    stream = batches(seed, run.step, schedule.batch_size, length, series_length, source)
    started, first, saved = time.monotonic(), run.step, time.monotonic()
    model.train()
    while run.step < schedule.steps:
        if run.step == schedule.decay_start:
            run.save(stable_file)
        drawing = time.process_time()
        windows = next(stream)
        run.seconds += time.process_time() - drawing
        run.advance(objective, schedule, windows)
        if run.step % LOG_EVERY == 0:
            rate = (run.step - first) * schedule.batch_size / (time.monotonic() - started)
            say(f"{run.step}/{schedule.steps} loss {run.average:.4f} {rate:.0f} windows/s")
            with (directory / "loss.jsonl").open("a") as log:
                log.write(json.dumps({"step": run.step, "loss": round(run.average or 0.0, 5)}) + "\n")
        if run.step % SAVE_EVERY == 0 or time.monotonic() - saved > save_seconds:
            run.save(state_file)
            saved = time.monotonic()
    run.save(state_file)
    model.eval()
    objective.export(model, directory / "checkpoint")
    return model
