"""Writing a study: one tidy table of results and the manifest, each complete or absent."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.studies.study_result import Study

TABLES = (
    "baseline",
    "layers",
    "heads",
    "rank_correlation",
    "pruning",
    "heads_at",
    "mlps",
    "comparisons",
    "agreement",
    "svd_correlation",
)
# of the explanation; the others repeat these, or have a row for every lag of every head
EXPLAINED = (
    "heads",
    "residual",
    "cka",
    "lens",
    "attribution",
    "effects",
    "mechanism",
    "correlations",
    "kernel",
)


def results_table(study: Study) -> pd.DataFrame:
    """Every table of every model below each other; `model` and `experiment` say which is which.

    Those of the explanation are called `explain_heads` and so on (`EXPLAINED`).
    """
    parts = [_labelled(one.name, name, getattr(one, name)) for one in study.models for name in TABLES]
    parts += [
        _labelled(one.name, f"explain_{name}", getattr(one.explanation, name))
        for one in study.models
        if one.explanation is not None
        for name in EXPLAINED
    ]
    claims = pd.DataFrame(
        {
            "model": claim.model,
            "experiment": "claims",
            "statement": claim.statement,
            "verdict": claim.verdict,
            "evidence": claim.evidence,
            "value": claim.value,
            "low": claim.low,
            "high": claim.high,
            "p_holm": claim.p_holm,
            "agreement": claim.agreement,
        }
        for claim in study.claims
    )
    return pd.concat([part for part in (*parts, claims) if len(part)], ignore_index=True)


def _labelled(model: str, experiment: str, frame: pd.DataFrame) -> pd.DataFrame:
    table = frame.drop(columns="model", errors="ignore")
    table.attrs = {}  # lists of skipped windows would be compared by concat
    table.insert(0, "model", model)
    table.insert(1, "experiment", experiment)
    return table


def write_results(study: Study, directory: Path) -> None:
    """Writes `results.parquet` and `manifest.json` into `directory`, making it if need be."""
    buffer = io.BytesIO()
    results_table(study).to_parquet(buffer, index=False)
    write_whole(directory / "results.parquet", buffer.getvalue())
    write_whole(directory / "manifest.json", (json.dumps(study.manifest, indent=2) + "\n").encode())
