"""`python -m pretrain.bundle NAME RUN`: a trained checkpoint into the package, with its card.

Weights are stored in half precision (they are loaded as float32), beside a model card that says how
they came about and what they score, and listed with their SHA-256 in `bundled/SHA256SUMS.json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tsprune
from pretrain.__main__ import commands
from tsprune.data import gift_eval, pocket
from tsprune.evaluation import geometric_mean_ratios
from tsprune.models import Forecaster, SamplingForecaster
from tsprune.models.checkpoints import BUNDLED, WEIGHTS
from tsprune.schema import Table

LOSS_POINTS = 12

CARD = """\
---
license: apache-2.0
---

# bundled:{name}

A small checkpoint in the upstream format of {family}, trained from scratch for `tsprune`, so that
every capability can be tried, tested and compared offline. {parameters:,} parameters, stored in
half precision.

**Data**: synthetic series only (`tsprune.data.synthetic`); no series of GIFT-Eval or of the embedded
pocket suite was seen. **Recipe**: {commands}, {steps:,} steps
of {batch_size} windows, seed {seed}.

## Scores

Geometric means relative to Seasonal Naive (below 1 is better), printed by
`tsprune evaluate bundled:{name} --data ...{sampled}`:

| suite | configurations | MASE | CRPS |
|---|---:|---:|---:|
{scores}

## Loss

Loss of the forecast on training windows (running average):

| step | loss |
|---:|---:|
{losses}
"""


def _loss_rows(run: Path) -> tuple[str, int]:
    """(table rows, last step) of a run's loss log."""
    records = {}
    for line in (run / "loss.jsonl").read_text().splitlines():
        entry = json.loads(line)
        records[entry["step"]] = entry["loss"]  # a resumed run repeats steps: the later one counts
    steps = sorted(records)
    chosen = sorted({steps[round(i * (len(steps) - 1) / (LOSS_POINTS - 1))] for i in range(LOSS_POINTS)})
    return "\n".join(f"| {step:,} | {records[step]:.4f} |" for step in chosen), steps[-1]


def _score_rows(model: Forecaster, root: Path | None, short_only: bool) -> str:
    rows = [("pocket", tsprune.evaluate(model, pocket()))]
    if root is not None:
        suite = gift_eval(root)
        if short_only:
            suite = suite.filter(lambda c: c.name.endswith("/short"))
        scores = tsprune.evaluate(model, suite)
        if not short_only:
            rows.append((f"GIFT-Eval, {len(scores)} of its 97 configurations", scores))
        is_short = scores["configuration"].str.endswith("/short")
        short = dataclasses.replace(scores, frame=scores.frame[is_short])
        rows.append((f"GIFT-Eval, {len(short)} of its short configurations", short))
    return "\n".join(_score_row(name, scores) for name, scores in rows)


def _score_row(name: str, scores: Table) -> str:
    means = geometric_mean_ratios(scores)
    return f"| {name} | {len(scores)} | {means['MASE']:.4f} | {means['CRPS']:.4f} |"


def _half(source: Path, target: Path) -> int:
    tensors = load_file(source)
    with safe_open(source, framework="pt") as header:
        metadata = header.metadata()
    save_file(
        {
            name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        },
        target,
        metadata=metadata or {"format": "pt"},
    )
    target.chmod(0o644)  # safetensors writes files only their owner can read
    return sum(tensor.numel() for tensor in tensors.values())


def _write_sums() -> None:
    sums = {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(BUNDLED.glob(f"*/{WEIGHTS}"))
    }
    (BUNDLED / "SHA256SUMS.json").write_text(json.dumps(sums, indent=2) + "\n")


def main(
    name: Annotated[str, typer.Argument(help="Name of the bundled checkpoint.")],
    run: Annotated[Path, typer.Argument(help="Folder of the finished run.")],
    data: Annotated[Path | None, typer.Option(help="Root of a GIFT-Eval copy, to score on as well.")] = None,
    batch_size: Annotated[int, typer.Option(help="Windows per step of the run.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    samples: Annotated[int | None, typer.Option(help="Paths a window, if the model samples.")] = None,
    short_only: Annotated[bool, typer.Option(help="Score on the short configurations only.")] = False,
) -> None:
    """Put a trained checkpoint into the package."""
    torch.set_num_threads(2)
    target = BUNDLED / name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "checkpoint" / "config.json", target / "config.json")
    parameters = _half(run / "checkpoint" / WEIGHTS, target / WEIGHTS)
    losses, steps = _loss_rows(run)
    model = tsprune.load(str(target), samples=samples)
    card = CARD.format(
        name=name,
        family=model.family,
        parameters=parameters,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        commands=", then ".join(f"`{command}`" for command in commands(name)),
        sampled=f" --samples {model.samples}" if isinstance(model, SamplingForecaster) else "",
        scores=_score_rows(model, data, short_only),
        losses=losses,
    )
    (target / "README.md").write_text(card)
    _write_sums()


if __name__ == "__main__":
    typer.run(main)
