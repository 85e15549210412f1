"""`tsprune recover`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsprune.cli.options import (
    COUNT,
    ConfigsOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    SamplesOption,
    SeedOption,
    finite,
    open_model,
    open_suite,
)
from tsprune.cli.output import evidence_record, print_evidence, print_json, progress_bar
from tsprune.files import check_files, check_free

if TYPE_CHECKING:
    from tsprune.data.suite import Suite
    from tsprune.models.forecaster import Evidence, Forecaster

STEPS = 10**9


def recover_command(
    small: Annotated[str, typer.Argument(metavar="SMALL", help="Directory with a pruned checkpoint.")],
    teacher: Annotated[
        str, typer.Option(help="The model that it was made from: bundled:NAME, a directory or a hub id.")
    ],
    output: Annotated[Path, typer.Option("--out", help="New folder for the recovered checkpoint.")],
    steps: Annotated[int, typer.Option(min=1, max=STEPS, help="Training steps.")] = 800,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=COUNT,
            callback=finite,
            help="End training after so many minutes, if the steps take longer.",
        ),
    ] = None,
    histories: Annotated[int, typer.Option(min=2, max=COUNT, help="Synthetic histories in a step.")] = 32,
    learning_rate: Annotated[
        float,
        typer.Option(min=1e-12, max=1000, callback=finite, help="The highest; it falls to zero."),
    ] = 1e-3,
    metric: Annotated[str, typer.Option(help="MASE or CRPS: what the best weights are chosen by.")] = "MASE",
    patience: Annotated[
        int, typer.Option(min=1, max=COUNT, help="Stop after so many checks (of 20) without improvement.")
    ] = 10,
    precision: Annotated[
        str, typer.Option(help="float32 or bfloat16; auto: bfloat16 where the processor has it.")
    ] = "auto",
    history: Annotated[
        int,
        typer.Option(min=16, max=COUNT, help="Steps of the longest histories; shorter ones are cheaper."),
    ] = 512,
    stream: Annotated[
        float,
        typer.Option(
            min=0,
            max=COUNT,
            callback=finite,
            help="Weight of the residual stream's distance, block by block; 0: output only.",
        ),
    ] = 1.0,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps the state, made if it is not there: a run that was stopped goes on."
        ),
    ] = None,
    data: DataOption = "pocket",
    configs: ConfigsOption = None,
    seed: SeedOption = 0,
    samples: SamplesOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a pruned checkpoint to forecast as its teacher does, on synthetic series.

    The best weights are chosen on one half of the series; the card reports on the other.
    """
    from tsprune.data import split
    from tsprune.models.placement import dtype_of
    from tsprune.pruning.recovery import recover

    check_free(output)
    check_files(resume)
    stored = None if dtype is None else dtype_of(dtype)
    suite = open_suite(data, configs)
    pruned, original = (open_model(name, device, samples) for name in (small, teacher))
    with progress_bar("recover", quiet=quiet) as update:
        recovered = recover(
            pruned,
            original,
            suite=suite,
            steps=steps,
            minutes=minutes,
            histories=histories,
            learning_rate=learning_rate,
            metric=metric,  # type: ignore[arg-type]
            patience=patience,
            precision=precision,  # type: ignore[arg-type]
            seed=seed,
            history=history,
            stream=stream,
            state=resume,
            dtype=stored,
            progress=lambda stage, done, total: update(done, total),
        )
    evidence = _evidence(original, pruned, recovered, split(suite, seed=seed)[1], seed)
    recovered.save(output, evidence=evidence)
    assert recovered.origin is not None
    account = recovered.origin.recovery
    assert account is not None
    if as_json:
        sizes = {"before": original.parameter_count, "after": recovered.parameter_count}
        print_json(
            {
                "out": str(output),
                "parameters": sizes,
                "recovery": dataclasses.asdict(account),
                "measured": evidence_record(evidence),
            }
        )
        return
    print_evidence(
        f"{small}: {account.steps} steps, the best weights are those of step {account.best_step}. "
        f"Written to {output}; its README.md is the model card. Against {teacher}:",
        evidence,
    )


def _evidence(
    teacher: Forecaster, pruned: Forecaster, recovered: Forecaster, report: Suite, seed: int
) -> Evidence:
    """What the original, the pruned and the recovered model score on windows nothing was chosen on."""
    from tsprune.pruning import compare, latency_evidence

    before, after = (compare(teacher, model, report, seed=seed) for model in (pruned, recovered))
    return {
        **after.evidence(),
        **{f"before recovery: {name}": row for name, row in before.evidence().items()},
        **latency_evidence(teacher, recovered),
    }
