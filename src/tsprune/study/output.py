"""Writing a study: one tidy table of results and the manifest, each complete or absent."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd

from tsprune.atomic import write_whole
from tsprune.study.result import ModelStudy, Study

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


def results_table(study: Study) -> pd.DataFrame:
    """Every table of every model below each other; `model` and `experiment` say which is which."""
    parts = [_labelled(one, name) for one in study.models for name in TABLES]
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
        }
        for claim in study.claims
    )
    return pd.concat([part for part in (*parts, claims) if len(part)], ignore_index=True)


def _labelled(one: ModelStudy, name: str) -> pd.DataFrame:
    table: pd.DataFrame = getattr(one, name).copy()
    table.attrs = {}  # lists of skipped windows would be compared by concat
    table.insert(0, "model", one.name)
    table.insert(1, "experiment", name)
    return table


def write_results(study: Study, directory: Path) -> None:
    """Writes `results.parquet` and `manifest.json` into `directory`, making it if need be."""
    buffer = io.BytesIO()
    results_table(study).to_parquet(buffer, index=False)
    write_whole(directory / "results.parquet", buffer.getvalue())
    write_whole(directory / "manifest.json", (json.dumps(study.manifest, indent=2) + "\n").encode())
