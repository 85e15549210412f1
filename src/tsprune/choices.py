"""The values that users choose between, for the library and for a command line that imports nothing heavy."""

from __future__ import annotations

from typing import Literal, get_args

Mode = Literal["zero", "mean", "resample"]
MODES: tuple[Mode, ...] = get_args(Mode)

Objective = Literal["latency", "flops", "parameters"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

# of weights
DTYPES = ("float32", "bfloat16", "float16")

# of training; AUTO is the faster one that the processor has instructions for
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
AUTO: Literal["auto"] = "auto"

# of exported graphs
TORCH_EXPORT = "torch-export"
EXPORT_PRECISIONS = ("fp32", "fp16", "bf16", "int8")
EXPORT_FORMATS = ("onnx", "openvino", TORCH_EXPORT)

# of the points of `tsprune.frontier`; those of the first line are of the original only, but for torch
TORCH, BFLOAT16, COMPILED = "torch", "torch-bfloat16", "torch-compiled"
ONNX_RUNTIMES = {f"onnx-{precision}": precision for precision in ("fp32", "int8")}
EXPORTED = "onnx-fp32"  # exact
RUNTIMES = (TORCH, BFLOAT16, COMPILED, *ONNX_RUNTIMES)

# a model's name to `tsprune.evaluate`
SEASONAL_NAIVE: Literal["seasonal-naive"] = "seasonal-naive"

# those that GIFT-Eval ranks by; packages may add others to `tsprune.evaluation.METRICS`
RANKED_METRICS = ("MASE", "CRPS")

# measured by `tsprune.check`
Checked = Literal["scores", "stable_rank", "redundancy", "latency"]
CHECKED: tuple[Checked, ...] = get_args(Checked)
PICTURE_FORMS = ("svg", "png")  # of static pictures
