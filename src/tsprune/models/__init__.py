"""Upstream models, one short file per family, and `load`, which finds the right one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tsprune.arguments import checked
from tsprune.choices import AUTO
from tsprune.errors import TspruneError
from tsprune.lazy import importing, lazily
from tsprune.models.checkpoints import bundled_names, find
from tsprune.models.families import FAMILIES, Family, family_named, family_of

if TYPE_CHECKING:
    import torch

    from tsprune.models.forecaster import Forecast, Forecaster, SamplingForecaster
else:  # torch is imported when a model is loaded, so that a wrong name is refused at once
    __getattr__ = lazily(
        __name__, {"tsprune.models.forecaster": ["Forecast", "Forecaster", "SamplingForecaster"]}
    )

__all__ = [
    "FAMILIES", "Family", "Forecast", "Forecaster", "SamplingForecaster", "bundled_names", "family_of",
    "load", "load_pipeline",
]  # fmt: skip


@checked
def load(
    name: Any,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    samples: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    subfolder: str | None = None,
) -> Forecaster:
    """Loads a model, pruned or not: `bundled:NAME`, a directory in the upstream format, or a hub id.

    name : a hub id may have a revision and a subfolder, `owner/name@revision:sub/folder`; a path object is
        always a directory. Also one of upstream's pipelines, forecasters or networks, which is then studied
        as it is in memory: it is put into evaluation mode and otherwise left as it was
    device : where to put it; None takes CUDA if there is one, else the CPU
    dtype : precision of the weights, and of most that is computed; None: float32. "auto" measures whether
        bfloat16 is faster for this model on this device, and keeps float32 where it is not
    samples : paths per window, for models that sample; None takes what upstream uses
    seed : of the draws, for models that sample
    revision : branch, tag or commit of a hub id
    subfolder : folder inside the directory or repository

    A fine-tuned adapter (LoRA) in the directory is merged, and an adapter alone brings its base.

    Raises TspruneError with one line that says what to do.

    >>> import tsprune
    >>> model = tsprune.load("bundled:timesfm")
    >>> model.forecast([[1.0, 2.0, 3.0] * 20], horizon=3).median.shape
    (1, 3)
    """
    if isinstance(name, str | os.PathLike):
        model = _from_files(name, device, dtype, revision, subfolder)
    elif revision is not None or subfolder is not None:
        raise TspruneError("a model in memory has neither a revision nor a subfolder; leave them out")
    else:
        from tsprune.models.objects import from_object

        model = from_object(name, device, dtype)
    from tsprune.models.forecaster import SamplingForecaster

    if isinstance(model, SamplingForecaster):
        model.samples, model.seed = model.samples if samples is None else samples, seed
    return model


def _from_files(
    name: str | os.PathLike[str], device: object, dtype: object, revision: str | None, subfolder: str | None
) -> Forecaster:
    checkpoint = find(name, revision=revision, subfolder=subfolder)
    with importing():
        from tsprune.models.fastest import fastest
        from tsprune.models.loading import opened
        from tsprune.models.placement import device_of, dtype_of
        from tsprune.models.pruned import read_record

    target = device_of(device)
    precision = None if dtype == AUTO else dtype_of("float32" if dtype is None else dtype)
    record = read_record(checkpoint.directory)
    family = family_of(checkpoint) if record is None else family_named(checkpoint.name, record.family)
    if precision is None:
        return fastest(lambda: opened(family, checkpoint, record), target)
    model = opened(family, checkpoint, record)
    model.to(target, precision)
    return model


def load_pipeline(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
) -> Any:
    """The upstream package's own object for a model, pruned or not, for code that already uses it.

    Chronos-T5: `ChronosPipeline`, Chronos-Bolt: `ChronosBoltPipeline`, Chronos-2: `Chronos2Pipeline`,
    TimesFM: `TimesFM_2p5_200M_torch` (call its `compile` first, as always), Toto: `Toto`, Moirai:
    `MoiraiForecast` and Moirai-2: `Moirai2Forecast` for univariate series (set their horizon and context
    length with `hparams_context`; the network is `.module`), Timestral: `TimestralForecaster`, TimesFM 3:
    `TimesFM3Evaluator`.

    name, device, dtype, revision, subfolder : as in `load`
    """
    return load(name, device=device, dtype=dtype, revision=revision, subfolder=subfolder).upstream
