"""Writing a checkpoint: one way for every family.

A checkpoint is written in the types that the original was stored in, unless the caller names another. So
the forecast after a reload is that of the model whose weights were rounded to these types (`rounded`), and
it is the same forecast where they hold the weights exactly, as those of a model that was only pruned.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from tsprune.errors import TspruneError, TspruneWarning, one_line
from tsprune.files import as_json
from tsprune.folders import whole_directory
from tsprune.models import pruned
from tsprune.models.locations import CONFIG
from tsprune.models.origin import Evidence
from tsprune.models.placement import dtype_of
from tsprune.models.weights import WEIGHTS, named

if TYPE_CHECKING:
    from tsprune.models.forecaster import Forecaster


def write_checkpoint(
    model: Forecaster, directory: Path, evidence: Evidence | None, dtype: str | torch.dtype | None
) -> None:
    """See `Forecaster.save`."""
    tensors, config = stored_tensors(model, dtype), model.config_file()
    with whole_directory(directory) as aside:
        try:
            save_file(tensors, aside / WEIGHTS, metadata={"format": "pt", **model.stored_metadata()})
        except (SafetensorError, OSError) as error:
            raise TspruneError(f"cannot write {directory}/{WEIGHTS} ({one_line(error, 200)})") from None
        for name, content in model.other_files().items():
            (aside / name).write_text(as_json(content))
        if model.origin is None:
            (aside / CONFIG).write_text(as_json(config))
        else:
            pruned.complete(model, model.origin, config, aside, evidence)
    if model.origin is not None and model.licence_note:
        warnings.warn(TspruneWarning(model.licence_note), stacklevel=3)


def stored_dtypes(model: Forecaster, dtype: str | torch.dtype | None = None) -> dict[str, torch.dtype]:
    """The type that each tensor of a model is written in, by its name in the checkpoint.

    dtype : of all weights; None: as the original was stored. A tensor of a name that the original did not
        have (paths move up where a layer leaves) takes the type of its role in other layers, else the
        one that most of the original has; of a model that is not from a file, its own. Weights that
        removal scaled are in float32 (`tsprune.models.removal`)
    """
    floating = {
        name: tensor.dtype
        for name, tensor in model.saved_module.state_dict().items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
    }
    if dtype is not None:
        return dict.fromkeys(floating, dtype_of(dtype))
    if not model.stored:
        return floating
    usual = usual_dtype(model)
    roles = {_role(name): kind for name, kind in model.stored.items()}
    return {name: model.stored.get(name) or roles.get(_role(name), usual) for name in floating}


def usual_dtype(model: Forecaster) -> torch.dtype:
    """The type that most tensors of a model were stored in; of one that is not from a file, its own."""
    if model.stored:
        return Counter(model.stored.values()).most_common(1)[0][0]
    return model.dtype


def _role(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def stored_tensors(model: Forecaster, dtype: str | torch.dtype | None = None) -> dict[str, Tensor]:
    """The tensors to be written: every one once, in its type; a tied one under its first name only.

    They share memory with the model where it holds them as they are written; no two of them share any.

    Raises TspruneError if a weight is too large for its type.
    """
    types = stored_dtypes(model, dtype)
    parameters: set[int] = set()
    storages: set[int] = set()
    written: dict[str, Tensor] = {}
    too_large = []
    for name, tensor in model.saved_module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor) or id(tensor) in parameters:
            continue
        if isinstance(tensor, nn.Parameter):
            parameters.add(id(tensor))
        here = tensor.detach().to("cpu")
        stored = here.to(types.get(name, tensor.dtype)).contiguous()
        storage = stored.untyped_storage().data_ptr()
        written[name] = stored.clone() if storage in storages else stored
        storages.add(storage)
        rounded = stored.is_floating_point() and stored.dtype != here.dtype
        if rounded and (stored.isinf() & ~here.isinf()).any():
            too_large.append(name)
    if too_large:
        kind = str(types[too_large[0]]).removeprefix("torch.")
        raise TspruneError(
            f"{model.name}: {named(too_large)} is too large for {kind}; save it as bfloat16 or float32"
        )
    return written


def round_weights(model: Forecaster, dtype: str | torch.dtype | None = None) -> bool:
    """Makes the weights, in place, those that a reloaded checkpoint has (see `stored_dtypes`).

    From then on `save` writes these types by default, so measurements hold for the file.
    Returns whether any weight changed.
    """
    values: Mapping[str, Any] = model.saved_module.state_dict()
    changed = False
    types = stored_dtypes(model, dtype)
    with torch.no_grad():
        for name, tensor in stored_tensors(model, dtype).items():
            before = values[name].clone()
            values[name].copy_(tensor)
            changed = changed or not torch.equal(before, values[name])
    model.stored = types
    return changed
