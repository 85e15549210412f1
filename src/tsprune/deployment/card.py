"""README.md of an exported folder."""

from __future__ import annotations

from tsprune.choices import TORCH_EXPORT
from tsprune.deployment.description import Description
from tsprune.text import code, markdown

_FORMATS = {
    "onnx": "a graph of ONNX",
    "openvino": "a graph of OpenVINO",
    TORCH_EXPORT: "a program of torch.export",
}
_NEEDS = {
    "onnx": "onnxruntime, neither torch nor the upstream package",
    "openvino": "openvino, neither torch nor the upstream package",
    TORCH_EXPORT: "torch, and not the upstream package",
}


def card(about: Description, licence: str) -> str:
    """The folder's card: its origin, its limits, how to use it, and the licence."""
    lines = [
        f"# {markdown(about.name)}, exported",
        "",
        f"A {about.family} forecaster of {about.parameters:,} parameters, exported by tsprune: "
        f"{_FORMATS[about.graph_format]} ({about.precision}).",
        "",
        f"- Forecasts up to {about.horizon} steps from up to {about.context_length} steps of history.",
        f"- Quantile levels: {', '.join(f'{level:g}' for level in about.levels)}.",
        f"- Its quantiles are within {about.distance:.1e} (of the largest) of the model's, in the self-test.",
        *_pruned(about),
        *_kept(about),
        "",
        "## Use",
        "",
        "```python",
        f"import tsprune  # needs {_NEEDS[about.graph_format]}",
        "",
        'model = tsprune.load_exported("path/to/this/folder")',
        "forecast = model.forecast([[1.0, 2.0, 3.0] * 20], horizon=3)",
        "```",
        "",
        "`tsprune verify path/to/this/folder` checks the files and the forecasts.",
        "",
        "## Licence",
        "",
        licence,
    ]
    return "\n".join(lines) + "\n"


def _pruned(about: Description) -> list[str]:
    if not about.removed:
        return []
    return [f"- Pruned from {code(about.original)}: {len(about.removed)} components were removed."]


def _kept(about: Description) -> list[str]:
    if about.precision == "fp32":
        return []
    if about.precision == "fp16":
        return ["- Weights are stored in 16 bits; the graph computes in fp32."]
    loss = "" if about.loss is None else f" MASE or CRPS changed by {about.loss:+.2%} on calibration windows."
    if about.precision == "bf16":
        what = "Products are computed" if about.graph_format == TORCH_EXPORT else "The network computes"
        where = "" if about.graph_format == TORCH_EXPORT else " where the processor can"
        return [f"- {what} in bfloat16{where}, and scaling in fp32.{loss}"]
    kept = f"{len(about.kept_fp32)} products stay in fp32" if about.kept_fp32 else "no product stays in fp32"
    return [f"- Weights of products are in 8 bits; {kept}, as measured on calibration windows.{loss}"]
