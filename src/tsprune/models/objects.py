"""Models that are in memory already: upstream's pipelines and networks, studied as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tsprune.choices import AUTO
from tsprune.errors import TspruneError, one_line
from tsprune.models.families import FAMILIES
from tsprune.models.forecaster import Forecaster
from tsprune.models.placement import device_of, dtype_of


def from_object(upstream: Any, device: object, dtype: object) -> Forecaster:
    """A Forecaster of one of upstream's objects, which it shares the weights with.

    The network is put into evaluation mode, and is otherwise left as it is, on its device and in its
    precision. It cannot be loaded again by name: `name` is its class, and can be set.

    device, dtype : None, or those that it has; "auto" is taken as None

    Raises TspruneError for an object of another class, or on another device or of another precision.
    """
    kind = type(upstream).__name__
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(upstream).__mro__}
    family = next((family for family in FAMILIES.values() if names & set(family.objects)), None)
    if family is None:
        titles = ", ".join(family.title for family in FAMILIES.values())
        raise TspruneError(
            f"cannot load a {one_line(kind, 60)}; name a folder, bundled:NAME or a hub id, or pass an "
            f"object of upstream's: {titles}"
        )
    try:
        model = family.forecaster.adopt(upstream, f"{kind} in memory")
    except TspruneError:
        raise
    except Exception as error:  # upstream's object may lack anything
        raise TspruneError(f"this {kind} is not complete ({one_line(error, 200)})") from error
    _check_place(model, kind, device, dtype)
    return model


def _check_place(model: Forecaster, kind: str, device: object, dtype: object) -> None:
    first = next(model.module.parameters())
    if first.is_meta:
        raise TspruneError(f"this {kind} has no weights (it is on the device 'meta')")
    here = torch.device("cpu") if first.device.type == "cpu" else first.device
    if device is not None and device_of(device) != here:
        raise TspruneError(f"this {kind} is on {here}; move it there yourself, or leave the device out")
    model.require_dtype(first.dtype)
    if dtype not in (None, AUTO) and dtype_of(dtype) != first.dtype:
        precision = str(first.dtype).removeprefix("torch.")
        raise TspruneError(f"this {kind} is in {precision}; convert it yourself, or leave the precision out")


def network(upstream: Any, wanted: type[nn.Module], holder: type | None = None, name: str = "model") -> Any:
    """The network of class `wanted` in one of upstream's objects, also one that torch.compile wrapped.

    holder, name : the class of objects that hold it, and their attribute; all others are networks

    Raises TspruneError for a network of another class.
    """
    module = getattr(upstream, name) if holder is not None and isinstance(upstream, holder) else upstream
    found = getattr(module, "_orig_mod", module)
    if isinstance(found, wanted):
        return found
    if type(found).__module__.partition(".")[0] == "peft":
        raise TspruneError("the network is wrapped by peft; pass what merge_and_unload() returns")
    raise TspruneError(f"the network is a {type(found).__name__}, not a {wanted.__name__}")
