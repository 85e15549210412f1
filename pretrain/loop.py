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
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from tsprune.data.training import Windows, batches

SAVE_EVERY = 500
LOG_EVERY = 100


class Objective(Protocol):
    """What a family brings to the loop: a model, its loss, and how it is saved."""

    window_length: int
    series_length: int

    def build(self) -> nn.Module:
        """The untrained upstream model (auxiliary training-only heads may be attached)."""
        ...

    def loss(self, model: nn.Module, windows: Windows, step: int, progress: float) -> Losses:
        """Loss of a batch of windows [B, window_length]."""
        ...

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
) -> tuple[list[Tensor], list[tuple[str, Tensor]]]:
    """(matrices inside the transformer blocks, everything else by name)."""
    matrices: list[Tensor] = []
    rest: list[tuple[str, Tensor]] = []
    for name, parameter in parameters:
        inside = any(part in name for part in ("block.", "stacked_xf.", "layers."))
        is_matrix = parameter.ndim == 2 and not any(part in name for part in ("attention_bias", "attn_bias"))
        if inside and is_matrix:
            matrices.append(parameter)
        else:
            rest.append((name, parameter))
    return matrices, rest


def optimizers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    matrices, rest = _split(model.named_parameters())
    groups = [{"params": list(group), "factor": factor} for factor, group in _by_rate(rest, schedule)]
    return [
        torch.optim.Muon(
            [{"params": matrices, "factor": 1.0}],
            lr=schedule.learning_rate,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def _by_rate(
    parameters: Iterable[tuple[str, Tensor]], schedule: Schedule
) -> list[tuple[float, list[Tensor]]]:
    """Parameters by the factor of their learning rate."""
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in parameters:
        factor = next((factor for part, factor in schedule.faster if part in name), 1.0)
        groups.setdefault(factor, []).append(parameter)
    return list(groups.items())


def _save(path: Path, state: object) -> None:
    aside = path.with_suffix(".partial")
    torch.save(state, aside)
    aside.replace(path)


def _restore(path: Path, model: nn.Module, optims: list[torch.optim.Optimizer]) -> int:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optims, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


def train(
    objective: Objective,
    schedule: Schedule,
    directory: Path,
    *,
    seed: int,
    start: Path | None = None,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """Trains to `schedule.steps`, resuming from `directory/state.pt` if it is there.

    A run that begins takes its weights from `start`, the `state.pt` or `before_decay.pt` of an
    earlier one, if it is given; its optimisers and its data begin anew.

    Writes `state.pt`, `before_decay.pt` (to extend the run from) and `loss.jsonl`; the exported
    checkpoint goes to `directory/checkpoint`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = objective.build()
    optims = optimizers(model, schedule)
    state_file, stable_file = directory / "state.pt", directory / "before_decay.pt"
    step = 0
    if state_file.exists():
        step = _restore(state_file, model, optims)
    elif start is not None:
        model.load_state_dict(objective.adopt(torch.load(start, weights_only=True)["model"]))

    def save(path: Path) -> None:
        saved = [optimizer.state_dict() for optimizer in optims]
        _save(path, {"model": model.state_dict(), "optimizers": saved, "step": step})

    stream = batches(seed, step, schedule.batch_size, objective.window_length, objective.series_length)
    started, first, average = time.monotonic(), step, None
    model.train()
    while step < schedule.steps:
        if step == schedule.decay_start:
            save(stable_file)
        for optimizer in optims:
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * schedule.factor(step) * group["factor"]
        with torch.autocast("cpu", torch.bfloat16):
            losses = objective.loss(model, next(stream), step, step / schedule.steps)
        for optimizer in optims:
            optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optims:
            optimizer.step()
        step += 1
        value = float(losses.forecast.detach())
        average = value if average is None else 0.99 * average + 0.01 * value
        if step % LOG_EVERY == 0:
            rate = (step - first) * schedule.batch_size / (time.monotonic() - started)
            say(f"{step}/{schedule.steps} loss {average:.4f} {rate:.0f} windows/s")
            with (directory / "loss.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": round(average, 5)}) + "\n")
        if step % SAVE_EVERY == 0:
            save(state_file)
    save(state_file)
    model.eval()
    objective.export(model, directory / "checkpoint")
    return model
