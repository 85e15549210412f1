"""`study`: the main job, from checkpoints to tables.

1. Each checkpoint is studied by itself (`one_model`), here or in a process of its own (`processes`).
2. The claim about all of them, and a manifest that tells two runs apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tsprune.arguments import checked
from tsprune.data.pocket import pocket
from tsprune.data.suite import Suite
from tsprune.models import load
from tsprune.models.forecaster import Forecaster
from tsprune.run_options import BATCH_SIZE
from tsprune.studies.claims import mlp_claim
from tsprune.studies.manifest import manifest
from tsprune.studies.one_model import Studied, study_model
from tsprune.studies.processes import Task, in_processes, jobs_by_default
from tsprune.studies.settings import Progress, draw, settings_of
from tsprune.studies.study_effects import STATISTICS
from tsprune.studies.study_result import ModelStudy, Study
from tsprune.sweeps.store import Store

DEFAULT_MODELS = ("bundled:timesfm", "bundled:chronos-bolt")


@checked
def study(
    models: Sequence[str | Forecaster] = DEFAULT_MODELS,
    suite: Suite | None = None,
    *,
    percent: float = 1.0,
    seed: int = 0,
    samples: int | None = None,
    batch_size: int = BATCH_SIZE,
    explain: bool = True,
    jobs: int | None = 1,
    device: str | None = None,
    progress: Progress | None = None,
    store: Store | str | Path | None = None,
) -> Study:
    """Runs the study of one or more checkpoints; see `Study` for what comes back.

    models : names as `tsprune.load` takes them, or loaded models
    suite : None takes the embedded pocket suite
    percent : X of heads@Xpp
    seed : of the random strategies, the calibration split and the bootstrap
    samples : paths per window that models given by name draw, if they sample; loaded ones keep theirs. None
        draws `STUDY_SAMPLES`, or `STEPWISE_SAMPLES` where paths are decoded value by value
    explain : whether heads and layers are also explained, on a part of the windows (about a minute a model)
    jobs : models given by name that are studied at once, each in a process of its own, which share torch's
        threads among them; None takes as many as there are threads for, and 1 on a GPU. Loaded models are
        studied here. A script that asks for more than 1 must begin its work under
        `if __name__ == "__main__":`, as processes import it
    device : where models given by name are put, as `tsprune.load` takes it
    progress : called with (model, stage, forecasts done in that stage, of all); see `Progress`
    store : a results store, or the path of one: its cells are not computed again, and what is
        computed is kept there batch by batch, so that a study that was stopped goes on

    Raises TspruneError for an unknown model or a suite without windows, for an ablation that
    fails (the tables need them all), and for fewer than 1 job.
    """
    suite = pocket() if suite is None else suite
    named = [entry for entry in models if isinstance(entry, str)]
    jobs = min(jobs or jobs_by_default(len(named), device), max(1, len(named)))
    settings = settings_of(suite, percent=percent, seed=seed, batch_size=batch_size, explain=explain)
    with Store(store) if isinstance(store, str | Path) else nullcontext(store) as opened:
        # several models: a name that is wrong is known before hours of work on the others
        entries = [
            draw(load(entry, device=device), samples) if isinstance(entry, str) and jobs == 1 else entry
            for entry in models
        ]
        elsewhere: dict[int, Studied] = {}
        if jobs > 1:
            task = Task(settings, samples, device, None if opened is None else opened.path)
            places = [place for place, entry in enumerate(models) if isinstance(entry, str)]
            elsewhere = dict(zip(places, in_processes(named, task, jobs, progress), strict=True))
        found = [
            elsewhere[place] if isinstance(entry, str) else study_model(entry, settings, opened, progress)
            for place, entry in enumerate(entries)
        ]
    studies = tuple(one.study for one in found)
    arguments: dict[str, object] = {
        "models": [one.name for one in studies],
        "percent": percent,
        "seed": seed,
        "batch_size": batch_size,
        "explain": explain,
        "samples": {one.name: one.samples for one in studies if one.samples is not None},
        "jobs": jobs,
    }
    return Study(
        suite.name,
        len(suite),
        percent,
        studies,
        (
            *(claim for one in found for claim in one.claims),
            mlp_claim([m for one in found for m in one.mlps], seed=seed),
        ),
        tuple(dict.fromkeys(item for one in found for item in one.skipped)),
        _record(suite, studies, arguments),
    )


def _record(suite: Suite, studies: Sequence[ModelStudy], arguments: dict[str, object]) -> dict[str, object]:
    """The manifest, with what was found at a glance."""
    record = manifest(suite, {one.name: one.sha256 for one in studies}, arguments)
    record["seconds"] = {one.name: round(one.seconds, 1) for one in studies}
    record["statistics"] = STATISTICS
    record["scores"] = {
        one.name: {
            "MASE_ratio": [one.mase_ratio, *one.mase_interval],
            "CRPS_ratio": [one.crps_ratio, *one.crps_interval],
        }
        for one in studies
    }
    return record
