"""`study`: the paper's questions, asked of several checkpoints.

1. Each checkpoint is studied by itself (`one_model`), here or in a process of its own (`processes`).
2. The claim about all of them is tested, and a manifest of versions, hashes, seeds and arguments is added.
"""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Unpack

import torch

from tsprune.arguments import checked
from tsprune.data.pocket import pocket
from tsprune.data.suite import Suite
from tsprune.models.forecaster import Forecaster
from tsprune.progress import Progress, showing
from tsprune.run_options import Options, RunOptions
from tsprune.studies.claims import mlp_claim
from tsprune.studies.one_model import Studied, study_model
from tsprune.studies.processes import in_processes, jobs_by_default
from tsprune.studies.study_result import ModelStudy, Study
from tsprune.studies.study_settings import StudySettings
from tsprune.studies.study_tables import STATISTICAL_METHODS
from tsprune.sweeps.store import open_store

DEFAULT_MODELS = ("bundled:timesfm", "bundled:chronos-bolt", "bundled:timesfm-deep")
_PACKAGES = (
    "tsprune", "torch", "numpy", "scipy", "transformers", "chronos-forecasting", "timesfm",
    "timecopilot-toto", "timecopilot-uni2ts", "gluonts",
)  # fmt: skip


@checked
def study(
    models: Sequence[str | Forecaster] = DEFAULT_MODELS,
    suite: Suite | None = None,
    *,
    max_loss: float = 0.01,
    samples: int | None = None,
    explain: bool = True,
    jobs: int | None = 1,
    device: str | None = None,
    dtype: str | None = None,
    budget: float | None = None,
    **options: Unpack[Options],
) -> Study:
    """Studies one or more checkpoints: tables of all ablations, and a verdict on each claim of the paper.

    models : names as `tsprune.load` takes them, or loaded models
    suite : None takes the embedded pocket suite
    max_loss : relative change of MASE allowed by heads@Xpp; 0.01 is 1 %
    samples : paths per window for sampling models given by name; loaded models keep theirs. None uses
        `STUDY_SAMPLES`, or `STUDY_STEPWISE_SAMPLES` for models that decode a path value by value
    explain : adds `tsprune.explain.overview` on a part of the windows, about a minute per model
    jobs : models given by name that are studied at once, each in a process of its own; the processes share
        torch's threads. None uses as many as there are threads for, and 1 on a GPU. Loaded models are
        studied in this process. A script that asks for more than 1 must begin its work under
        `if __name__ == "__main__":`, as processes import it
    device, dtype : of models given by name, as `tsprune.load` takes them. The scores in another precision
        than float32 are compared with those in float32
    budget : seconds that the study may take (see `tsprune.studies.budget`); models share it. What was not
        reached is NaN in the tables and listed in `Study.skipped`. With a `store`, a larger budget goes on
    options : keywords of `tsprune.run_options.RunOptions`; `seed` is of the random strategies, the
        calibration split and the bootstrap. With a `store`, a study that was stopped resumes. The stages of
        `progress` are those of `tsprune.studies.one_model.study_model`

    Raises TspruneError for an unknown model, a suite without windows, or an ablation that fails.
    """
    chosen, started = RunOptions(**options), time.monotonic()
    suite = pocket() if suite is None else suite
    named = sum(isinstance(entry, str) for entry in models)
    jobs = min(jobs or jobs_by_default(named, device), max(1, named))
    with (
        open_store(chosen.store) as store,
        showing(chosen.progress) as progress,
    ):
        settings = StudySettings(
            suite, max_loss, samples, explain, device, dtype, chosen.replace(store=store), budget
        )
        found = _studied(models, settings, jobs, progress, started)
    studies = tuple(one.study for one in found)
    arguments: dict[str, object] = {
        "models": [one.name for one in studies],
        "max_loss": max_loss,
        "seed": chosen.seed,
        "batch_size": chosen.batch_size,
        "explain": explain,
        "dtype": {one.name: one.dtype for one in studies},
        "samples": {one.name: one.samples for one in studies if one.samples is not None},
        "jobs": jobs,
        "budget": budget,
    }
    medians = [median for one in found for median in one.mlps]
    claims = [claim for one in found for claim in one.claims]
    return Study(
        suite.name,
        len(suite),
        max_loss,
        studies,
        (*claims, mlp_claim(medians, seed=chosen.seed)),
        tuple(dict.fromkeys(item for one in found for item in one.skipped)),
        _manifest(suite, studies, arguments),
    )


def _studied(
    models: Sequence[str | Forecaster],
    settings: StudySettings,
    jobs: int,
    progress: Progress,
    started: float,
) -> list[Studied]:
    def within(remaining: int) -> StudySettings:
        """The settings of the next model, with its share of the budget that is left for so many models."""
        if settings.budget is None:
            return settings
        left = max(1e-3, settings.budget - (time.monotonic() - started))
        return dataclasses.replace(settings, budget=left / remaining)

    if jobs > 1:
        settings = within(math.ceil(len(models) / jobs))
        named = [entry for entry in models if isinstance(entry, str)]
        elsewhere = iter(in_processes(named, settings, jobs, progress))
        return [
            next(elsewhere) if isinstance(entry, str) else study_model(entry, settings, progress)
            for entry in models
        ]
    # all are loaded first: a wrong name is found before hours of work on the others
    loaded = [settings.loaded(entry) if isinstance(entry, str) else entry for entry in models]
    return [study_model(model, within(len(loaded) - n), progress) for n, model in enumerate(loaded)]


def _manifest(suite: Suite, studies: Sequence[ModelStudy], arguments: dict[str, object]) -> dict[str, object]:
    """The facts that distinguish two runs of a study, and the main scores; ready for JSON."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
        "checkpoints": {one.name: one.sha256 for one in studies},
        "suite": {"name": suite.name, "windows": len(suite), "fingerprint": suite.fingerprint},
        "arguments": arguments,
        "seconds": {one.name: round(one.seconds, 1) for one in studies},
        "statistics": STATISTICAL_METHODS,
        "scores": {
            one.name: {
                "MASE_ratio": [one.mase_ratio, *one.mase_interval],
                "CRPS_ratio": [one.crps_ratio, *one.crps_interval],
            }
            for one in studies
        },
        "changes_by_precision": {
            one.name: {metric: [x.value, x.low, x.high] for metric, x in one.precision.items()}
            for one in studies
            if one.precision
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
