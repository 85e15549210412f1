"""`tsprune export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tsprune.choices import EXPORT_FORMATS, EXPORT_PRECISIONS
from tsprune.cli.options import ModelArgument, Shared, choice, integer, option, with_shared
from tsprune.cli.output import say
from tsprune.files import check_free


@with_shared("output")
def export_command(
    model: ModelArgument,
    output: Annotated[Path, option("New folder for the exported model.", "--out")],
    precision: Annotated[
        str,
        choice(
            EXPORT_PRECISIONS, text="Of the network; the loss of bf16 and int8 is measured on pocket windows."
        ),
    ] = "fp32",
    format: Annotated[
        str, choice(EXPORT_FORMATS, text="Of the graph; that of torch-export runs with torch, on any device.")
    ] = "onnx",
    horizon: Annotated[
        int | None, integer("The most steps to forecast; by default those of one pass of the network.")
    ] = None,
    context: Annotated[
        int | None, integer("Cut history off beyond so many steps; by default the model's limit.")
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Write a model, pruned or not, as one graph that forecasts without its upstream package."""
    check_free(output)
    shared.check(model)
    from tsprune.deployment import export

    found = export(
        shared.load(model, device="cpu"),
        output,
        horizon=horizon,
        context_length=context,
        precision=precision,
        format=format,
    )
    about = found.description

    def tables() -> None:
        kept = f", {len(about.kept_fp32)} products in fp32" if about.kept_fp32 else ""
        loss = "" if about.loss is None else f", and MASE or CRPS changed by {about.loss:+.2%}"
        say(
            f"{model} exported to {output} ({about.graph_format}, {about.precision}{kept}, "
            f"{found.weight_bytes / 2**20:.1f} MiB): "
            f"up to {about.horizon} steps from up to {about.context_length} of history. "
            f"Quantiles are within {about.distance:.1e} of the model's{loss}."
        )
        say(f"Next: tsprune verify {output}; tsprune evaluate {output}; tsprune latency {model} {output}")

    shared.report("export", {"out": output, **about.as_object()}, tables)
