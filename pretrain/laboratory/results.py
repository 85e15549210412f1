"""Results in the repository: a table of measurements and a record of each finished run.

A run has two files of its own, so that runs which finish on different machines never meet in one file:
`NAME.csv`, long-form rows (`measures.COLUMNS`), and `NAME.json`, its record: what was trained, what it
cost, the loss curve, the checkpoint's SHA-256. The record is written last: a run with a record is finished.
`separation/NAME.csv` has the rows of `separation.separate`, for runs that it was tried on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from pretrain.laboratory.measures import COLUMNS, VERSION
from pretrain.laboratory.plan import Run
from pretrain.laboratory.windows import Windows
from tsprune.atomic import write_whole
from tsprune.errors import TspruneError

FOLDER = Path(__file__).parent / "results"
WEIGHTS = Path("checkpoint") / "model.safetensors"
SEPARATION = "separation"  # folder of results, beside those of the runs
DIGITS = "%.6g"


def record(run: Run, module: nn.Module, folder: Path, windows: Windows, seconds: float) -> dict[str, Any]:
    """What is known of a finished run beside its measurements.

    module : the trained network, without training-only heads
    seconds : CPU seconds that measuring took
    """
    state = torch.load(folder / "state.pt", weights_only=True)
    condition = dataclasses.asdict(run.condition)
    return {
        "run": run.name,
        "condition": condition.pop("name"),
        "seed": run.seed,
        **condition,
        "heads": run.condition.heads,
        "hidden": run.condition.hidden,
        "parameters": sum(p.numel() for p in module.parameters()),
        "precision": state["precision"],
        "cpu_seconds": round(state["seconds"], 1),
        "checkpoint_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "loss": _losses(folder),
        "measured": {
            "version": VERSION,
            "cpu_seconds": round(seconds, 1),
            "windows": {suite.name: [len(suite), suite.fingerprint[:16]] for suite in windows.suites()},
            "skipped": [list(one) for one in windows.skipped],
        },
        "with": {"torch": torch.__version__, "python": platform.python_version()},
    }


def _losses(folder: Path) -> list[tuple[int, float]]:
    """(step, running average of the loss on training windows); of a step logged twice the later counts."""
    logged = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
    return sorted({entry["step"]: entry["loss"] for entry in logged}.items())


def write(run: Run, rows: pd.DataFrame, known: dict[str, Any], folder: Path = FOLDER) -> None:
    """Writes both files of a run, the record last."""
    folder.mkdir(parents=True, exist_ok=True)
    table = rows.to_csv(index=False, float_format=DIGITS)
    write_whole(folder / f"{run.name}.csv", table.encode())
    write_whole(folder / f"{run.name}.json", (json.dumps(known, indent=1) + "\n").encode())


def write_separation(run: Run, rows: pd.DataFrame, folder: Path = FOLDER) -> Path:
    """Writes the rows of `separation.separate`; the file's path."""
    path = folder / SEPARATION / f"{run.name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, rows.to_csv(index=False, float_format=DIGITS).encode())
    return path


def require_measured(run: Run, out: Path, folder: Path = FOLDER) -> None:
    """Raises TspruneError unless the checkpoint in `out` is the one whose measurements are in `folder`.

    The same training gives other weights on a processor with other instructions.
    """
    weights, path = out / WEIGHTS, folder / f"{run.name}.json"
    if not path.exists():
        raise TspruneError(f"{run.name} is not measured; run it first: python -m pretrain.laboratory run")
    known = json.loads(path.read_text())["checkpoint_sha256"]
    if weights.exists() and hashlib.sha256(weights.read_bytes()).hexdigest() != known:
        raise TspruneError(
            f"{out} is not the checkpoint that was measured as {run.name}; "
            f"delete {path.name} and {path.stem}.csv in {folder} and run it again"
        )


def measured(path: Path) -> pd.DataFrame:
    """Rows of one file, `measures.COLUMNS`."""
    return pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})


def is_finished(run: Run, folder: Path = FOLDER) -> bool:
    """Whether a run is trained, and measured as this version measures."""
    path = folder / f"{run.name}.json"
    return path.exists() and json.loads(path.read_text())["measured"]["version"] == VERSION


def records(folder: Path = FOLDER) -> pd.DataFrame:
    """One row a finished run: its record, but for the loss curve; nested fields are joined by dots."""
    known = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    frame = pd.json_normalize(known)
    return frame.drop(columns=["loss"], errors="ignore")


def table(folder: Path = FOLDER) -> pd.DataFrame:
    """All measurements, long: run, then `measures.COLUMNS`; loss curves are rows of the measure "loss"."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        known = json.loads(path.read_text())
        curve = [("training", "loss", str(step), "loss", loss) for step, loss in known["loss"]]
        more = folder / SEPARATION / f"{path.stem}.csv"
        pieces = [measured(path.with_suffix(".csv")), *([measured(more)] if more.exists() else [])]
        joined = pd.concat([*pieces, pd.DataFrame(curve, columns=list(COLUMNS))], ignore_index=True)
        joined.insert(0, "run", known["run"])
        parts.append(joined)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run", *COLUMNS])


PUBLISHED = (
    *("run", "condition", "seed", "question", "differs", "architecture", "layers", "width", "heads", "steps"),
    *("parameters", "cpu_seconds", "checkpoint_sha256"),
)


def published(folder: Path = FOLDER) -> pd.DataFrame:
    """The table that `tsprune.data.laboratory` reads: `PUBLISHED` of each run beside its measurements."""
    return records(folder)[list(PUBLISHED)].merge(table(folder), on="run")


def publish(path: Path, folder: Path = FOLDER) -> pd.DataFrame:
    """Writes `published` to a parquet file, and returns it."""
    rows = published(folder)
    write_whole(path, rows.to_parquet(index=False, compression="zstd"))
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a run: a few of its measurements.

    MASE, CRPS : relative to Seasonal Naive, on pocket
    share, area : see `measures.redundancy`
    mlps, attention : change of MASE without all of them in the middle layers
    paper, random : change of MASE without 28 % of the heads and two MLPs, the heads by stable rank and at
        random (the mean of the draws)
    parroting : its excess over the true future's
    """
    pocket = rows[rows["suite"] == "pocket"]
    named = {
        "MASE": ("score", "", "MASE"),
        "CRPS": ("score", "", "CRPS"),
        "share": ("redundancy", "share", "MASE"),
        "area": ("redundancy", "area", "MASE"),
        "mlps": ("set", "middle mlp", "MASE"),
        "attention": ("set", "middle attention", "MASE"),
        "paper": ("set", "heads 28% and 2 MLPs, high-to-low", "MASE"),
        "random": ("set", "heads 28% and 2 MLPs, random *", "MASE"),
        "parroting": ("trait", "", "excess_parroting"),
    }
    columns = {}
    for name, (measure, unit, metric) in named.items():
        of = pocket[(pocket["measure"] == measure) & (pocket["metric"] == metric)]
        fitting = of["unit"].map(lambda found, wanted=unit: fnmatchcase(found, wanted)).astype(bool)
        columns[name] = of[fitting].groupby("run")["value"].mean()
    return pd.DataFrame(columns, index=pd.unique(rows["run"]))
