"""`tsprune recover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsprune.choices import AUTO, PRECISIONS
from tsprune.cli.options import (
    MetricOption,
    SaveDtype,
    Shared,
    choice,
    decimal,
    integer,
    option,
    portion,
    with_shared,
)
from tsprune.cli.output import evidence_rows, print_evidence
from tsprune.files import check_files, check_free

STEPS = 10**9


@with_shared("suite", "run", "output")
def recover_command(
    small: Annotated[str, typer.Argument(metavar="SMALL", help="Directory with a pruned checkpoint.")],
    teacher: Annotated[
        str, option("The model that it was made from: bundled:NAME, a directory or a hub id.")
    ],
    output: Annotated[Path, option("New folder for the recovered checkpoint.", "--out")],
    steps: Annotated[int, integer("Training steps.", most=STEPS)] = 800,
    minutes: Annotated[
        float | None, decimal("End training after so many minutes, if the steps take longer.", least=1e-6)
    ] = None,
    histories: Annotated[int, integer("Synthetic histories in a step.", least=2)] = 32,
    learning_rate: Annotated[float, decimal("The highest; it falls to zero.", least=1e-12, most=1000)] = 1e-3,
    metric: MetricOption = "MASE",
    patience: Annotated[int, integer("Stop after so many checks (of at most 20) without improvement.")] = 10,
    precision: Annotated[
        str,
        choice((AUTO, *PRECISIONS), text="Precision of training; auto: bfloat16 where the processor has it."),
    ] = "auto",
    history: Annotated[
        int, integer("Steps of the longest histories; shorter ones are cheaper.", least=16)
    ] = 512,
    stream: Annotated[
        float, decimal("Weight of the residual stream's distance, block by block; 0: output only.")
    ] = 1.0,
    own_share: Annotated[
        float,
        portion(
            "Share of the steps whose histories are cut from the calibration half of --data; 0: synthetic."
        ),
    ] = 0.0,
    resume: Annotated[
        Path | None, option("File that keeps the state, made if it is not there: a stopped run goes on.")
    ] = None,
    save_dtype: SaveDtype = None,
    *,
    shared: Shared,
) -> None:
    """Train a pruned checkpoint to forecast as its teacher does, on synthetic series.

    The best weights are chosen on one half of the series; the card reports on the other.
    """
    check_free(output)
    check_files(resume)
    shared.check(small, teacher)
    suite = shared.suite
    from tsprune.data import split
    from tsprune.pruning import recover

    pruned, original = (shared.load(name) for name in (small, teacher))
    with shared.running("recover") as options:
        recovered = recover(
            pruned,
            original,
            suite=suite,
            steps=steps,
            minutes=minutes,
            histories=histories,
            learning_rate=learning_rate,
            metric=metric,
            patience=patience,
            precision=precision,  # type: ignore[arg-type]
            history=history,
            stream=stream,
            own_share=own_share,
            state=resume,
            dtype=save_dtype,
            measure=split(suite, seed=shared.seed)[1],
            **options,
        )
    recovered.save(output)
    assert recovered.origin is not None
    account = recovered.origin.recovery
    assert account is not None
    result = {
        "out": output,
        "parameters": {"before": original.parameter_count, "after": recovered.parameter_count},
        "recovery": account,
        "measured": evidence_rows(recovered.evidence),
    }
    text = (
        f"{small}: {account.steps} steps; the best weights are those of step {account.best_step}. "
        f"Written to {output}; its README.md is the model card. Against {teacher}:"
    )
    shared.report("recover", result, lambda: print_evidence(text, recovered.evidence))
