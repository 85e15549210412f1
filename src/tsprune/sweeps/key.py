"""The key of a cell in a store: one digest of everything its numbers depend on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch

from tsprune.data.suite import Configuration, Suite
from tsprune.errors import TspruneError
from tsprune.evaluation import Batch
from tsprune.hooks.ablation import Ablation
from tsprune.hooks.capture import Reference, reference_contexts
from tsprune.models.checkpoints import find
from tsprune.models.forecaster import Forecaster, SamplingForecaster

# Raise it whenever the same forecast gives other numbers (`tsprune.evaluation.metrics`), or the same
# arguments another forecast: rows of other versions are not reused.
RESULTS_VERSION = 5


@dataclasses.dataclass(frozen=True)
class CellKey:
    """Everything the numbers of one cell depend on.

    checkpoint : see `checkpoint_digest`
    configuration, windows : its name, and the fingerprint of its windows
    batches : the windows that share a batch with its own; see `batches_digest`
    protocol : settings of the forecast as JSON; see `protocol`
    reference : values of mean and resample ablations; see `reference_digest`
    version : of the code that computes scores from forecasts
    """

    checkpoint: str
    ablation: Ablation
    configuration: str
    windows: str
    batches: str
    protocol: str
    reference: str
    version: int = RESULTS_VERSION

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, hexadecimal.

        A zero ablation has neither reference nor draws, and a mean ablation no draws: what would
        change nothing is not part of their digest.
        """
        ablation = self.ablation
        parts = {
            "checkpoint": self.checkpoint,
            "components": [component.address for component in ablation.components],
            "mode": ablation.mode,
            "seed": ablation.seed if ablation.mode == "resample" else None,
            "reference": None if ablation.mode == "zero" else self.reference,
            "configuration": self.configuration,
            "windows": self.windows,
            "batches": self.batches,
            "protocol": self.protocol,
            "version": self.version,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def windows_fingerprint(configuration: Configuration) -> str:
    """SHA-256 of one configuration's windows; see `Suite.fingerprint`."""
    return Suite("", (configuration,)).fingerprint


def batches_digest(number: int, batches: Sequence[Batch]) -> str:
    """SHA-256 of the batches with windows of configuration `number`, and of the positions of these windows.

    A forecast depends on its batch: sums of another shape differ in their last bits, padding may enter
    the normalisation, and `resample` draws by place. So a configuration swept alone is another cell
    than in a suite whose windows share its batches.
    """
    digest = hashlib.sha256()
    for batch in batches:
        if number in batch.members:
            digest.update(batch.fingerprint.encode())
            places = batch.members[number]
            digest.update(places.data)
            digest.update(np.ascontiguousarray(batch.rows[places]).data)
    return digest.hexdigest()


def checkpoint_digest(model: Forecaster) -> str:
    """SHA-256 of the weights as they are in memory, of the anatomy, and of config.json if there is one.

    Not of the files alone: a model may have been pruned or converted since it was loaded.
    """
    digest = hashlib.sha256(repr(dataclasses.asdict(model.anatomy)).encode())
    with suppress(TspruneError):  # the model was not loaded from files
        digest.update(json.dumps(find(model.name).config, sort_keys=True).encode())
    for name, value in model.module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            digest.update(f"{name} {value!r}".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def protocol(model: Forecaster, configuration: Configuration, *, batch_size: int, device: str) -> str:
    """Settings of the forecasts of `configuration`, as JSON with sorted keys.

    The versions of torch and of the upstream package are part of it. The batch size says how batches were
    made; which windows are in them is not part of it (see `batches_digest`).

    device : the processor that forecasts (`tsprune.models.placement.processor`)
    """
    parts = {**settings(model, batch_size=batch_size, device=device), "horizon": configuration.horizon}
    return json.dumps(parts, sort_keys=True)


def settings(model: Forecaster, *, batch_size: int, device: str) -> dict[str, object]:
    """Settings of a model's forecasts of any horizon; see `protocol`."""
    samples, sample_seed = None, None
    if isinstance(model, SamplingForecaster):
        samples, sample_seed = model.samples, model.seed
    package = type(model.upstream).__module__.partition(".")[0]
    return {
        "family": model.family,
        "batch_size": batch_size,
        "context_length": model.context_length,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device,
        "samples": samples,
        "sample_seed": sample_seed,
        "torch": torch.__version__,
        "upstream": _version(package),
    }


@functools.cache
def _version(package: str) -> str:
    """Name and version of the distribution that `package` is imported from, "" if there is none."""
    distributions = importlib.metadata.packages_distributions().get(package, [])
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(distributions)))


def reference_digest(model: Forecaster, reference: Reference | None) -> str:
    """SHA-256 of the values of a reference; None: of the series that the default is recorded on."""
    digest = hashlib.sha256()
    if reference is None:
        contexts = np.ascontiguousarray(reference_contexts(model))
        digest.update(f"{contexts.shape} {model.reference_horizon}".encode())
        digest.update(contexts.data)
        return digest.hexdigest()
    for point in sorted(reference.values):
        for positions, values in sorted(reference.values[point].items()):
            digest.update(f"{point} {positions} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
