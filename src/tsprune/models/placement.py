"""Where a model is put and in which precision, as users state it, checked."""

from __future__ import annotations

import warnings

import torch

from tsprune.arguments import shown
from tsprune.choices import AUTO, DTYPES
from tsprune.errors import TspruneError

# the types that weights are computed in, as users write them, and stored in, as safetensors does
_COMPUTED = {name: getattr(torch, name) for name in DTYPES}
STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def device_of(device: object) -> torch.device:
    """The device that is meant, which is there, with its index; None: CUDA if there is one, else the CPU."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, str | torch.device):
        raise TspruneError(f"the device must be a name such as cpu or cuda:0, not {shown(device)}")
    try:
        found = torch.device(device)
        with warnings.catch_warnings(action="ignore"):
            one = torch.ones(1, device=found)
            one.sum().item()
    except Exception:  # torch raises half a dozen classes, by device
        raise TspruneError(
            f"no device {shown(str(device))} on this machine; leave it out, or use cpu"
        ) from None
    return torch.device("cpu") if one.device.type == "cpu" else one.device


def processor(device: torch.device) -> str:
    """Kind and model of the processor, on which rounding depends, such as "cpu" or "cuda NVIDIA H100".

    Equal processors have one name, whichever index they have.
    """
    if device.type == "cpu":
        return device.type
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return f"{device.type} {name(device)}" if name is not None else device.type


def dtype_of(dtype: object) -> torch.dtype:
    """The precision that is meant: a floating torch.dtype, or the name of one."""
    found = _COMPUTED.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if isinstance(found, torch.dtype) and found in (*_COMPUTED.values(), torch.float64):
        return found
    raise TspruneError(f"unknown precision {shown(dtype)}; one of: {', '.join((*DTYPES, AUTO))}")
