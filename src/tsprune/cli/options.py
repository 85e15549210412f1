"""What several commands take, and how it is opened: models, suites, folders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from tsprune.data.suite import Suite
    from tsprune.models.forecaster import Forecaster

# Bounds are those of what computes with the numbers, or beyond any use of them. NaN passes every comparison
# of a range, so options with fractions have `finite` as well; tests/cli/test_numbers.py tries them all.
COUNT = 1_000_000  # as in `tsprune.arguments`, which imports more than --help needs
SEED = 2**32 - 1


def finite(value: float | None) -> float | None:
    """The callback of options that take a fraction: refuses NaN, which no range does."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="bundled:NAME, a directory with a checkpoint in the upstream format, or a hub id such as "
        "amazon/chronos-bolt-small.",
    ),
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="A data source ([bold]pocket[/]: real series that come with tsprune; chaos; those of plug-ins), "
        "or the root folder of a GIFT-Eval copy.",
    ),
]
ConfigsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--configs", help="Only these configurations, e.g. ett1/H/short or 'ett1/*/short'; repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BatchOption = Annotated[int, typer.Option(min=1, max=COUNT, help="Windows forecast together.")]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="File that keeps finished work, made if it is not there: a run that was stopped goes on.",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, max=SEED, help="Seed of everything that is random.")]
PercentOption = Annotated[
    float,
    typer.Option(min=0, max=COUNT, callback=finite, help="X of heads@Xpp: the loss allowed, in percent."),
]
ByOption = Annotated[
    str,
    typer.Option(
        metavar="SCORE",
        help="Score that orders the components: stable_rank, attention_entropy, output_norm, screening, "
        "mase_change, ...; [bold]tsprune rank --list[/] says them all, and what they are.",
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default CUDA if there is one.")
]


SamplesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=COUNT,
        help="Paths drawn per window by models that sample; by default what upstream uses.",
        show_default=False,
    ),
]


DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Type of the weights in the file: float32, bfloat16 or float16; by default as in the original.",
        show_default=False,
    ),
]


def open_suite(data: str, configs: list[str] | None) -> Suite:
    from tsprune.data import sources

    return sources.open_suite(data, configs)


def open_model(
    name: str, device: str | None, samples: int | None = None, *, dtype: torch.dtype | None = None
) -> Forecaster:
    import torch

    from tsprune.models import load

    model = load(name, device=device, dtype=dtype or torch.float32, samples=samples)
    model.require_finite_weights()  # whatever is asked of it
    return model
